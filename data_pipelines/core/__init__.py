"""What a data set is, and how its samples are stored."""

from data_pipelines.core.dataset import (
  CACHE_BYTES,
  KINDS,
  SPLITS,
  Augment,
  Cached,
  Dataset,
  Decoded,
  ModalitySpec,
  Sample,
  Source,
  Spec,
  Take,
  View,
  cache_if_small,
  check_sample,
  in_memory,
  labels,
)
from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import DataError

__all__ = [
  "CACHE_BYTES",
  "KINDS",
  "SPLITS",
  "Augment",
  "Cached",
  "DataError",
  "Dataset",
  "Decoded",
  "ModalitySpec",
  "PreparedSummary",
  "Sample",
  "Source",
  "Spec",
  "Take",
  "View",
  "cache_if_small",
  "check_sample",
  "in_memory",
  "labels",
]
