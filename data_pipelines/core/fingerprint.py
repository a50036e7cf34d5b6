"""Identity of prepared data: a hash of everything that is stored."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

_LENGTH = 32  # hexadecimal digits

Example = tuple[str, dict[str, Any]]


class Fingerprint:
  """A hash of examples, updated as they pass.

  It depends on splits, keys and values in their order, not on the bytes of the
  files, which differ each time the same data are stored.
  """

  def __init__(self):
    self._splits: dict[str, str] = {}

  def passing(self, split: str, examples: Iterable[Example]) -> Iterator:
    """Yields the examples of a split and hashes them."""
    total = hashlib.sha256()
    for key, fields in examples:
      _update(total, key)
      for name in sorted(fields):
        _update(total, name)
        _update(total, fields[name])
      yield key, fields
    self._splits[split] = total.hexdigest()

  def text(self, classes: Iterable[str]) -> str:
    """Hexadecimal hash of all splits that passed and the class names."""
    known = repr((sorted(self._splits.items()), tuple(classes)))
    return hashlib.sha256(known.encode()).hexdigest()[:_LENGTH]


def _update(total: Any, value: Any) -> None:
  """Adds a value with its type and size, so that values cannot run together."""
  if isinstance(value, os.PathLike):
    value = pathlib.Path(value).read_bytes()
  if isinstance(value, bytes | bytearray):
    total.update(f"bytes {len(value)} ".encode())
    total.update(value)
  elif isinstance(value, str):
    _update(total, value.encode())
  else:
    array = np.ascontiguousarray(value)
    total.update(f"{array.dtype.str} {np.shape(value)} ".encode())
    total.update(array.tobytes())
