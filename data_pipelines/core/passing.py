"""Ids and labels of new samples, which predictions pass on as they are."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_pipelines.errors import InputError

_MISSING = ("NAType", "NaTType")  # of pandas
_SHOWN = 5


def text(value: Any) -> str:
  """What a CSV file would hold; empty if there is no value.

  Raises:
    ValueError: a text that no file can hold.
  """
  if value is None or type(value).__name__ in _MISSING:
    return ""
  if isinstance(value, float | np.floating | np.datetime64) and value != value:
    return ""
  if isinstance(value, np.datetime64):
    seconds = value.astype("datetime64[s]")
    return str(seconds if seconds == value else value).replace("T", " ")
  if isinstance(value, bytes):
    value = value.decode("utf-8", "backslashreplace")
  found = str(value)
  try:
    found.encode()
  except UnicodeEncodeError as error:
    half = ascii(found[error.start])
    raise InputError(
      f"{found!a} holds {half}, half a character: write it again, as UTF-8"
    ) from None
  return found if found.strip() else ""


def names(
  ids: Sequence[str], numbers: Iterable[int] | None = None
) -> tuple[list[str], list[str]]:
  """Ids without gaps, and notes on what was filled in or occurs twice.

  A row without an id is called by its number, as no other row is.

  Args:
    ids: texts, empty where there is none.
    numbers: of the rows; from 1 on if not given.
  """
  numbered = list(numbers or range(1, len(ids) + 1))
  taken, made, filled = {*ids}, [], []
  for number, key in zip(numbered, ids, strict=True):
    if not key:
      key = f"row {number}"
      while key in taken:
        key += "'"
      taken.add(key)
      filled.append(f"row {number} is {key!r}")
    made.append(key)
  notes = []
  if filled:
    count = f"{len(filled)} row{'s have' if len(filled) > 1 else ' has'} no id"
    notes.append(f"{count}: {_some(filled)}")
  several = [k for k, n in collections.Counter(made).items() if n > 1]
  if several:
    shown = _some([repr(key) for key in several])
    notes.append(f"ids that more than one row has: {shown}")
  return made, notes


def _some(texts: Sequence[str]) -> str:
  more = len(texts) - _SHOWN
  return ", ".join(texts[:_SHOWN]) + f" and {more} more" * (more > 0)
