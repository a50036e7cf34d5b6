"""Arrays of numbers: reading, checking, standardising."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.transforms.files import npy, signatures

LARGEST = 1e18  # of a number: its square still fits into float32


def read(path: str | os.PathLike) -> np.ndarray:
  """The numbers of a ``.npy`` file as float32; objects are refused.

  Raises:
    ValueError: not a ``.npy`` file with a single array of finite numbers.
    OSError: the file is absent.
  """
  with open(path, "rb") as file:
    start = file.read(len(npy.MAGIC))
  if start.startswith(b"PK\x03\x04"):
    raise InputError("it holds several arrays: save each alone, as .npy")
  if start != npy.MAGIC:
    why = "it is no .npy file: write it with numpy.save"
    raise signatures.unreadable("array", path, why)
  return checked(npy.load(path))


def checked(values: np.ndarray) -> np.ndarray:
  """The same numbers as float32.

  Raises:
    ValueError: the array is empty, or has entries that are not finite numbers
      or beyond ``LARGEST``.
  """
  if values.dtype.kind not in "fiub":
    raise InputError(f"{values.dtype} is no type of real numbers")
  if not values.size:
    raise InputError(f"it is empty, of shape {values.shape}")
  with np.errstate(over="ignore"):
    values = values.astype(np.float32)
  if not np.isfinite(values).all():
    raise InputError("some numbers are NaN or infinite, as float32")
  _check_size(values)
  return values


def _check_size(values: np.ndarray) -> None:
  largest = np.abs(values).max(initial=0)
  if largest > LARGEST:
    raise InputError(
      f"some numbers are as large as {largest:.3g}, more than {LARGEST:g}: a "
      "mark for missing values? Otherwise divide all by the same number"
    )


def standardise(values: np.ndarray, mean: Any, scale: Any) -> np.ndarray:
  """``(values - mean) / scale`` as float32.

  Raises:
    ValueError: ``values`` and ``mean`` differ in shape, or a result is beyond
      ``LARGEST``.
  """
  if values.shape != np.shape(mean):
    raise InputError(
      f"it has shape {values.shape}, those of training have {np.shape(mean)}"
    )
  made = ((values - mean) / scale).astype(np.float32)
  _check_size(made)
  return made


def standardise_steps(values: np.ndarray, mean: Any, scale: Any) -> np.ndarray:
  """``(values - mean) / scale`` of each step of a sequence [t d], as float32.

  Raises:
    ValueError: ``values`` are not [t d] with as many features as ``mean`` has;
      or a result is beyond ``LARGEST``.
  """
  check_steps(values)
  if values.shape[1:] != np.shape(mean):
    raise InputError(
      f"it has shape {values.shape}, those of training have {len(mean)} "
      "numbers a step, [t d]"
    )
  made = ((values - mean) / scale).astype(np.float32)
  _check_size(made)
  return made


def check_steps(values: np.ndarray) -> None:
  """Raises ``ValueError`` if ``values`` are no sequence [t d]."""
  if values.ndim != 2:
    raise InputError(
      f"it has shape {values.shape}, those of training are sequences [t d]"
    )
