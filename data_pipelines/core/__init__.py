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
)
from data_pipelines.core.report import Report
from data_pipelines.errors import DataError, unknown

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
  "Report",
  "Sample",
  "Source",
  "Spec",
  "Take",
  "View",
  "cache_if_small",
  "check_sample",
  "in_memory",
  "unknown",
]
