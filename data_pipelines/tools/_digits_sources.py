"""What ``digits.py`` reads: recordings of digits, and pictures of them."""

from __future__ import annotations

import collections
import os
import pathlib
import re
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.transforms.files import npy

_NAME = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav")


class Recording(NamedTuple):
  """A spoken digit: what its file's name says, and the file's content."""

  name: str
  digit: int
  speaker: str
  index: int
  content: bytes


def read_sounds(path: pathlib.Path) -> list[Recording]:
  """All recordings below a folder or in a zip, by name.

  Raises:
    DataError: nothing there, none of such a name, one twice, a damaged zip.
  """
  if path.is_dir():
    files = [(p.name, p.read_bytes) for p in sorted(path.rglob("*.wav"))]
    found = [_recording(name, read) for name, read in files]
  elif path.is_file():
    found = _from_zip(path)
  else:
    raise DataError(
      f"no folder or zip {path}: name the recordings of the Free Spoken Digit "
      "Dataset with --sounds"
    )
  kept = sorted(r for r in found if r is not None)
  if not kept:
    raise DataError(
      f"{path} has no recordings named {{digit}}_{{speaker}}_{{index}}.wav"
    )
  names = collections.Counter(r.name for r in kept)
  twice = sorted(name for name, n in names.items() if n > 1)
  if twice:
    raise DataError(f"{path} has several recordings {', '.join(twice[:5])}")
  return kept


def _recording(name: str, read) -> Recording | None:
  match = _NAME.fullmatch(name)
  if match is None:
    return None
  digit, speaker, index = match.groups()
  return Recording(name, int(digit), speaker, int(index), read())


def _from_zip(path: pathlib.Path) -> list[Recording | None]:
  try:
    with zipfile.ZipFile(path) as file:
      return [
        _recording(n.rpartition("/")[2], lambda n=n: file.read(n))
        for n in file.namelist()
      ]
  except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
    raise DataError(
      f"{path} is no zip, or a damaged one ({error}): fetch it again"
    ) from error


def read_images(
  path: str | os.PathLike | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Pictures [n h w] uint8, the ink bright, and their digits [n].

  Raises:
    DataError: no such file, or one without such arrays.
  """
  if path is None:
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    brightness = np.round(digits.images * (255 / 16))  # given as 0 to 16
    return brightness.astype(np.uint8), digits.target
  try:
    path = pathlib.Path(path).expanduser()
    npy.check_archive(path)
    with np.load(path, allow_pickle=False) as file:
      x, y = file["x"], file["y"]
  except FileNotFoundError as error:
    raise DataError(f"no pictures {path}: name a file with --images") from error
  except Exception as error:  # zipfile, zlib and numpy each have their own.
    raise DataError(
      f"{path} is no .npz file with arrays x and y: {error}"
    ) from error
  if x.ndim != 3 or x.dtype != np.uint8 or y.shape != x.shape[:1]:
    raise DataError(
      f"{path}: x must be uint8 [n h w] and y [n], got {x.dtype} {x.shape} and "
      f"{y.shape}"
    )
  if not np.isin(y, np.arange(10)).all():
    raise DataError(f"{path}: y must hold digits, 0 to 9")
  return x, y.astype(int)
