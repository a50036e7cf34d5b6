"""Arrays of numbers: reading, checking, standardising."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from data_pipelines.errors import InputError


def read(path: str | os.PathLike) -> np.ndarray:
  """The numbers of a ``.npy`` file as float32; objects are refused.

  Raises:
    ValueError: not a single array of finite numbers.
    OSError: not a ``.npy`` file.
  """
  values = np.load(path, allow_pickle=False)
  if not isinstance(values, np.ndarray):
    raise InputError("it holds several arrays: save each alone, as .npy")
  return checked(values)


def checked(values: np.ndarray) -> np.ndarray:
  """The same numbers as float32.

  Raises:
    ValueError: the array is empty, or has entries that are not finite numbers.
  """
  if values.dtype.kind not in "fiub":
    raise InputError(f"{values.dtype} is no type of real numbers")
  if not values.size:
    raise InputError(f"it is empty, of shape {values.shape}")
  with np.errstate(over="ignore"):
    values = values.astype(np.float32)
  if not np.isfinite(values).all():
    raise InputError("some numbers are NaN or infinite, as float32")
  return values


def standardise(values: np.ndarray, mean: Any, scale: Any) -> np.ndarray:
  """``(values - mean) / scale`` as float32.

  Raises:
    ValueError: ``values`` and ``mean`` differ in shape.
  """
  if values.shape != np.shape(mean):
    raise InputError(
      f"it has shape {values.shape}, those of training have {np.shape(mean)}"
    )
  return ((values - mean) / scale).astype(np.float32)
