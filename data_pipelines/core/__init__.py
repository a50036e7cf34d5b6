"""What a data set is, and how its samples are stored."""

from data_pipelines.core.dataset import Augment, Dataset, View
from data_pipelines.core.source import (
  CACHE_BYTES,
  Arrays,
  Cached,
  Decoded,
  Sample,
  Source,
  Take,
  Taken,
  cache_if_small,
  check_sample,
  in_memory,
  labels,
  lengths,
  missing,
  nothing,
  sample_of,
)
from data_pipelines.core.spec import KINDS, SPLITS, ModalitySpec, Spec
from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import DataError

__all__ = [
  "CACHE_BYTES",
  "KINDS",
  "SPLITS",
  "Arrays",
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
  "Taken",
  "View",
  "cache_if_small",
  "check_sample",
  "in_memory",
  "labels",
  "lengths",
  "missing",
  "nothing",
  "sample_of",
]
