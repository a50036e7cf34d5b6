"""The cells of a manifest: texts, numbers as texts, and values in memory."""

from __future__ import annotations

import decimal
import hashlib
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.manifest.faults import cut
from data_pipelines.transforms import image

# Words of the column ``split``.
SPLITS = {
  "train": "train",
  "outer": "outer",
  "val": "val",
  "valid": "val",
  "validation": "val",
  "dev": "val",
  "test": "test",
}
_FILES = {
  "image": "pictures",
  "audio": "sounds",
  "waveform": "sounds",
  "video": "videos",
  "array": "arrays",
}
_NOTHING = ("NAType", "NaTType")  # of pandas
_LONGEST = 60  # characters of a value in a message
_PATH = 4096  # characters of a path


class Value:
  """A cell with the content of a file; equal if the content is.

  Attributes:
    content: an array, a PIL picture, or what becomes an array.
    digest: hash of the content.
  """

  def __init__(self, content: Any):
    self.content = content
    self.digest = _digest(content)

  def __hash__(self) -> int:
    return hash(self.digest)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Value) and self.digest == other.digest

  def __str__(self) -> str:
    return f"this {type(self.content).__name__}"


def _digest(content: Any) -> bytes:
  """Of type, shape and bytes."""
  try:
    if isinstance(content, Image.Image):
      content = np.asarray(image.to_rgb(content))
    array = np.asarray(content)
  # Reading refuses it, and says why.
  except Exception:
    array = np.empty(0, object)
  kind = f"{type(content).__name__} {array.dtype.str} {array.shape} "
  data = repr(content).encode() if array.dtype.hasobject else array.tobytes()
  return hashlib.sha256(kind.encode() + data).digest()


Cell = str | Value


def is_empty(value: Any) -> bool:
  """Whether a cell holds nothing.

  That is ``None``, NaN, pandas' NA, a blank text, or an array of NaN alone.
  """
  if value is None or type(value).__name__ in _NOTHING:
    return True
  if isinstance(value, str):
    return not value.strip()
  if isinstance(value, np.ndarray):
    if value.dtype.kind != "f" or not value.size:
      return False
    return bool(np.isnan(value.flat[0]) and np.isnan(value).all())
  return _is_float(value) and bool(value != value)


def cell_of(value: Any, kind: str = "") -> str:
  """A cell as text, without spaces around it; None and NaN become ``""``.

  In ``split``, ``label`` and ``id`` a number or truth value becomes what a CSV
  file would hold: ``0.5``, ``1.0``, ``True``.

  Args:
    value: what a format or a column in memory gives.
    kind: of the modality; empty for ``split``, ``label`` and ``id``.

  Raises:
    ValueError: it cannot be a cell of that kind.
  """
  if isinstance(value, str):
    text = value.strip()
    if kind in _FILES and len(text) > _PATH:
      raise InputError(f"{shown(text)} is no path; {_files(kind)}")
    return text if text.isascii() else _storable(text)
  if is_empty(value):
    return ""
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  if not kind and (_is_float(value) or isinstance(value, _NUMBERS)):
    return str(value)
  if kind in _FILES:
    raise InputError(f"{shown(value)}; {_files(kind)}")
  number = "whole number" if kind else "number"
  raise InputError(f"{shown(value)} is neither a text nor a {number}")


def _files(kind: str) -> str:
  called = _FILES[kind]
  return f"{called} must be files: write each to a file and give its path"


_NUMBERS = (bool, np.bool_, decimal.Decimal)


def _is_float(value: Any) -> bool:
  return isinstance(value, float | np.floating)


def _storable(text: str) -> str:
  """The text itself.

  Raises:
    ValueError: it holds half a character, which no file can hold.
  """
  try:
    text.encode()
  except UnicodeEncodeError as error:
    half = ascii(text[error.start])
    raise InputError(
      f"{shown(text)} holds {half}, half a character: write the text again, as "
      "UTF-8"
    ) from None
  return text


def shown(value: Any) -> str:
  """A value in a message: long ones by their beginning or their size."""
  if isinstance(value, bytes | bytearray | memoryview):
    return f"bytes of length {len(value)}"
  if isinstance(value, dict):
    inner = value.get("bytes")
    if isinstance(inner, bytes):
      return f"a dictionary with bytes of length {len(inner)}"
    keys = cut(", ".join(map(str, value)), _LONGEST)
    return f"a dictionary ({keys})" if value else "an empty dictionary"
  if isinstance(value, list | tuple | np.ndarray):
    return f"a {type(value).__name__} of length {len(value)}"
  if isinstance(value, str):
    return _printable(repr(cut(value, _LONGEST)))
  return cut(repr(value), _LONGEST)


def _printable(text: str) -> str:
  """The text, with halves of characters written out."""
  return text.encode(errors="backslashreplace").decode()
