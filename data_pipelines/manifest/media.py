"""The files of a manifest: decoding, what is wrong with them, final arrays."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import report
from data_pipelines.errors import InputError
from data_pipelines.manifest.rows import Row
from data_pipelines.manifest.table import Column, Problem
from data_pipelines.transforms import audio, image, text, video

SECONDS = (1.0, 10.0)  # bounds of the length that follows from the clips


@dataclasses.dataclass(frozen=True)
class Settings:
  """The options of ``manifest.prepare`` that shape samples; see there."""

  image_size: int
  sample_rate: int
  seconds: float
  nperseg: int
  noverlap: int
  frames: int
  standardise: bool

  def __post_init__(self):
    for name, low, high in (
      ("image_size", 1, 2048),
      ("sample_rate", 100, 10**6),
      ("nperseg", 2, 2**16),
      ("noverlap", 0, self.nperseg - 1),
      ("frames", 1, 10_000),
    ):
      value = getattr(self, name)
      if not low <= value <= high:
        raise InputError(f"{name} must lie in [{low}, {high}], got {value!r}")
    least = self.nperseg / self.sample_rate
    if self.seconds and not least <= self.seconds <= 3600:
      raise InputError(
        "seconds must be 0 (as long as the longest training clip) or lie in "
        f"[{least:g}, 3600], one window or more, got {self.seconds!r}"
      )


class Media:
  """Files relative to a folder, decoded; kept in memory as far as they fit."""

  def __init__(self, folder: pathlib.Path, settings: Settings):
    self._folder, self._settings = folder, settings
    self._kept: dict[tuple[str, str], np.ndarray] = {}
    self._room = core.CACHE_BYTES

  def path(self, name: str) -> pathlib.Path:
    """Where a file lies."""
    return self._folder / name

  def read(self, kind: str, name: str) -> np.ndarray:
    """Picture, frames, wave or array of a file.

    Raises:
      ValueError: the file is absent or cannot be decoded; the message names it.
    """
    if (kind, name) in self._kept:
      return self._kept[kind, name]
    path = self.path(name)
    if not path.is_file():
      raise InputError(f"{name}: there is no such file")
    try:
      array = self._decode(kind, path)
    except (ImportError, MemoryError):
      raise
    # A decoder may raise anything about a damaged file.
    except Exception as error:
      reason = " ".join(str(error).split()) or type(error).__name__
      raise InputError(f"{name} cannot be used as {kind}: {reason}") from error
    if array.nbytes <= self._room:
      self._room -= array.nbytes
      self._kept[kind, name] = array
    return array

  def _decode(self, kind: str, path: pathlib.Path) -> np.ndarray:
    s = self._settings
    if kind == "image":
      return image.read(path, s.image_size)
    if kind == "video":
      return video.read(path, s.frames, s.image_size)
    if kind == "audio":
      return audio.read(path, s.sample_rate)
    return read_array(path)


def read_array(path: str | os.PathLike) -> np.ndarray:
  """The numbers of a ``.npy`` file as float32, objects refused.

  Raises:
    ValueError: not one array of finite numbers.
    OSError: not a ``.npy`` file.
  """
  array = np.load(path, allow_pickle=False)
  if not isinstance(array, np.ndarray):
    raise InputError("it holds several arrays: save each alone, as .npy")
  return checked_array(array)


def checked_array(array: np.ndarray) -> np.ndarray:
  """As float32.

  Raises:
    ValueError: no finite numbers, or none at all.
  """
  if array.dtype.kind not in "fiub":
    raise InputError(f"{array.dtype} is no type of real numbers")
  if not array.size:
    raise InputError(f"it is empty, of shape {array.shape}")
  with np.errstate(over="ignore"):
    array = array.astype(np.float32)
  if not np.isfinite(array).all():
    raise InputError("some numbers are NaN or infinite, as float32")
  return array


def check(
  rows: Sequence[Row], columns: Sequence[Column], media: Media
) -> list[Problem]:
  """Decodes every file; what is wrong with them."""
  problems = []
  shapes = {c: [] for c in columns if c.kind == "array"}
  for row in report.progress(rows, "checking files", len(rows)):
    for column in columns:
      name = row.cells[column.name]
      if column.kind == "text" or not name:
        continue
      try:
        array = media.read(column.kind, name)
      except ValueError as error:
        problems.append(Problem(row.number, column.header, str(error)))
      else:
        if column in shapes:
          shapes[column].append((row, array.shape))
  for column, found in shapes.items():
    problems += _other_shapes(column, found)
  return problems


def _other_shapes(
  column: Column, found: Sequence[tuple[Row, tuple[int, ...]]]
) -> list[Problem]:
  """The shape that most arrays have is right."""
  counts = collections.Counter(shape for _, shape in found)
  usual = counts.most_common(1)[0][0] if counts else ()
  return [
    Problem(
      row.number,
      column.header,
      f"{row.cells[column.name]} has shape {shape}, {counts[usual]} of "
      f"{len(found)} have {usual}",
    )
    for row, shape in found
    if shape != usual
  ]


def standardised(array: np.ndarray, mean: Any, scale: Any) -> np.ndarray:
  """``(array - mean) / scale`` as float32."""
  if array.shape != np.shape(mean):
    raise InputError(
      f"it has shape {array.shape}, those of training have {np.shape(mean)}"
    )
  return ((array - mean) / scale).astype(np.float32)


class Modality:
  """One modality of the samples, its final shape known from training rows."""

  def __init__(
    self,
    column: Column,
    media: Media,
    settings: Settings,
    train: Sequence[Row],
  ):
    self.name, self.kind = column.name, column.kind
    self._media, self._settings = media, settings
    self._cells = [row.cells[self.name] for row in train]
    self.words: tuple[str, ...] = ()
    self.shape: tuple[int, ...] = ()
    self._length, self._mean, self._scale = 0, np.float32(0), np.float32(1)
    if self.kind == "text":
      self.words = text.WordVocabulary.build(self._cells).words
    else:
      if self.kind == "audio":
        self._length = self._longest()
      elif self.kind == "array" and settings.standardise:
        self._mean, self._scale = self._moments()
      self.shape = self.make(self._cells[0]).shape

  def make(self, cell: str) -> Any:
    """What is stored of a sample: an array, or the text itself."""
    if self.kind == "text":
      return cell
    array, s = self._media.read(self.kind, cell), self._settings
    if self.kind == "audio":
      return audio.log_spectrogram(
        array, self._length, s.sample_rate, s.nperseg, s.noverlap
      )
    if self.kind == "array" and s.standardise:
      return standardised(array, self._mean, self._scale)
    return array

  def notes(self, rows: Iterable[Row]) -> list[str]:
    """A note if clips are cut."""
    if self.kind != "audio":
      return []
    lengths = [
      len(self._media.read("audio", row.cells[self.name])) for row in rows
    ]
    cut = sum(n > self._length for n in lengths)
    seconds = self._length / self._settings.sample_rate
    note = (
      f"{self.name}: clips of {seconds:.3g} s, spectrograms of shape "
      f"{self.shape}; {cut} of {len(lengths)} clips are longer and cut"
    )
    return [note]

  def to_json(self) -> dict[str, Any]:
    """What loading needs to know."""
    return {
      "kind": self.kind,
      "shape": self.shape,
      "words": self.words,
      "intake": self._intake(),
    }

  def _intake(self) -> dict[str, Any]:
    """How new samples are made; of texts, loading knows."""
    s = self._settings
    if self.kind == "image":
      return {"size": s.image_size, "fit": "pad", "stored": 0}
    if self.kind == "video":
      return {"size": s.image_size, "frames": s.frames}
    if self.kind == "audio":
      return {
        "sample_rate": s.sample_rate,
        "length": self._length,
        "nperseg": s.nperseg,
        "noverlap": s.noverlap,
      }
    if self.kind == "array":
      moments = {"mean": self._mean, "scale": self._scale}
      known = s.standardise
      return {k: v.tolist() if known else None for k, v in moments.items()}
    return {}

  def feature(self) -> Any:
    """How tensorflow_datasets stores it."""
    import tensorflow_datasets as tfds

    if self.kind == "text":
      return tfds.features.Text()
    pixels = self.kind in ("image", "video")
    dtype = np.uint8 if pixels else np.float32
    return tfds.features.Tensor(shape=self.shape, dtype=dtype, encoding="bytes")

  def _longest(self) -> int:
    rate, least = self._settings.sample_rate, self._settings.nperseg
    if self._settings.seconds:
      return max(least, round(self._settings.seconds * rate))
    longest = max(len(self._media.read("audio", c)) for c in self._cells)
    low, high = (round(s * rate) for s in SECONDS)
    return max(least, min(max(longest, low), high))

  def _moments(self) -> tuple[Any, Any]:
    """Mean and standard deviation of each number over the training rows."""
    total, squares = np.float64(0), np.float64(0)
    first = self._media.read("array", self._cells[0]).astype(np.float64)
    for cell in self._cells:
      moved = self._media.read("array", cell) - first  # against cancellation
      total, squares = total + moved, squares + moved**2
    mean = total / len(self._cells)
    deviation = np.sqrt(np.maximum(squares / len(self._cells) - mean**2, 0))
    constant = deviation <= 1e-6 * np.maximum(np.abs(mean + first), 1e-6)
    return mean + first, np.where(constant, 1.0, deviation)
