"""The cells of a manifest: read, checked and turned into stored arrays."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import sequences
from data_pipelines.core.progress import progress
from data_pipelines.errors import InputError
from data_pipelines.manifest.cells import Cell, Value
from data_pipelines.manifest.faults import Fault
from data_pipelines.manifest.findings import notes
from data_pipelines.manifest.findings import shapes as shapes_of_arrays
from data_pipelines.manifest.rows import Row
from data_pipelines.manifest.table import Column
from data_pipelines.transforms import image, kinds, preprocess, text
from data_pipelines.transforms.files.remarks import Remark

_SOUNDS = ("audio", "waveform")
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
  # It decides what is refused, and no sample.
  max_pixels: int = dataclasses.field(default=image.MAX_PIXELS, repr=False)

  def __post_init__(self):
    for name, low, high in (
      ("image_size", 1, 2048),
      ("sample_rate", 100, 10**6),
      ("nperseg", 2, 2**16),
      ("noverlap", 0, self.nperseg - 1),
      ("frames", 1, 10_000),
      ("max_pixels", 1, 2**40),
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

  def preprocessing(self, kind: str) -> dict[str, Any]:
    """Preprocessing settings of a kind that do not depend on the samples."""
    # The usual limit is not stored: older versions do not know of it.
    usual = self.max_pixels == image.MAX_PIXELS
    limit = {} if usual else {"max_pixels": self.max_pixels}
    if kind == "image":
      return {"size": self.image_size, "fit": "pad", "stored": 0, **limit}
    if kind == "video":
      return {"size": self.image_size, "frames": self.frames, **limit}
    if kind == "audio":
      return {
        "sample_rate": self.sample_rate,
        "length": 0,
        "nperseg": self.nperseg,
        "noverlap": self.noverlap,
      }
    if kind == "waveform":
      return {"sample_rate": self.sample_rate, "length": 0}
    return {"mean": None, "scale": None} if kind == "array" else {}


class CellReader:
  """Reads cells and keeps them in memory while there is room."""

  def __init__(self, folder: pathlib.Path, settings: Settings):
    self._folder = folder
    self._steps = {
      kind: kinds.step(kind, settings.preprocessing(kind))
      for kind in core.KINDS
    }
    self._kept: dict[tuple[str, Cell], np.ndarray] = {}
    self._room = core.CACHE_BYTES
    self._said: dict[tuple[str, Cell], Remark] = {}
    self._shapes: dict[Cell, tuple[int, ...]] = {}

  def path(self, name: str) -> pathlib.Path:
    """The path of a file."""
    return self._folder / name

  def read(self, kind: str, cell: Cell) -> np.ndarray:
    """Picture, frames, wave or array of a cell.

    Raises:
      ValueError: a file is absent or cannot be decoded, or a value is not of
        that kind; the message names it.
    """
    if (kind, cell) in self._kept:
      return self._kept[kind, cell]
    step = self._steps[kind]
    value = cell.content if isinstance(cell, Value) else self.path(cell)

    tell = functools.partial(self._said.__setitem__, (kind, cell))
    made = functools.partial(step.read, tell=tell)
    array = preprocess.using(kind, step, value, made, str(cell))
    if kind == "array":
      self._shapes[cell] = array.shape
    if array.nbytes <= self._room:
      self._room -= array.nbytes
      self._kept[kind, cell] = array
    return array

  def shape(self, cell: Cell) -> tuple[int, ...]:
    """Of the array of a cell."""
    if cell not in self._shapes:
      self.read("array", cell)
    return self._shapes[cell]

  def remark(self, kind: str, cell: Cell) -> Remark | None:
    """What was said of a cell when it was read."""
    return self._said.get((kind, cell))


def check(
  rows: Sequence[Row],
  columns: Sequence[Column],
  media: CellReader,
  by_row: bool,
) -> list[Fault]:
  """Reads every cell and returns the faults.

  ``by_row``: of arrays of several shapes, too, a fault a row.
  """
  problems = []
  shapes = {c: [] for c in columns if c.kind == "array"}
  for row in progress(rows, "checking files", len(rows)):
    for column in columns:
      cell = row.cells[column.name]
      if column.kind == "text" or not cell:
        continue
      try:
        array = media.read(column.kind, cell)
      except ValueError as error:
        problems.append(Fault(row.number, column.header, str(error)))
      else:
        if column in shapes:
          shapes[column].append((row, array.shape))
  for column, found in shapes.items():
    problems += shapes_of_arrays.faults(column, found, by_row)
  return problems


class Modality:
  """One modality; training rows determine its preprocessing and shape.

  Rows without it count for nothing.

  Attributes:
    optional: whether some row, of any split, lacks it.
    lengths: {row number: steps} of all rows, if they are arrays [t d] of
      different t; else empty.
  """

  def __init__(
    self,
    column: Column,
    media: CellReader,
    settings: Settings,
    train: Sequence[Row],
    rows: Sequence[Row] = (),
  ):
    self.name, self.kind = column.name, column.kind
    self.optional = not all(row.cells[self.name] for row in rows)
    self._media, self._settings = media, settings
    self.lengths = self._lengths_of(rows) if self.kind == "array" else {}
    self.buckets: tuple[int, ...] = ()
    self.steps = 0.0
    self._cells = [cell for row in train if (cell := row.cells[self.name])]
    self.words: tuple[str, ...] = ()
    self.shape: tuple[int, ...] = ()
    self.preprocessing = settings.preprocessing(self.kind)
    if self.kind == "text":
      self.words = text.WordVocabulary.build(map(str, self._cells)).words
    elif self.kind in _SOUNDS:
      self.preprocessing["length"] = self._longest()
    elif self.kind == "array" and settings.standardise:
      mean, scale = self._step_moments() if self.lengths else self._moments()
      self.preprocessing.update(mean=mean.tolist(), scale=scale.tolist())
    if self.lengths:
      self.preprocessing["ragged"] = True
    self._step = kinds.step(self.kind, self.preprocessing)
    if self.kind != "text":
      self.shape = self.store(self._cells[0]).shape

  def store(self, cell: Cell) -> Any:
    """What is stored of a sample: an array, or the text itself.

    Where it is missing, zeros or an empty text.
    """
    if self.kind == "text":
      return cell
    if not cell:
      return b"" if self.buckets else np.zeros(self.shape, self._dtype)
    made = self._step.pack(self._media.read(self.kind, cell))
    return made.tobytes() if self.buckets else made

  def bucket(self, buckets: Sequence[int], steps: float) -> None:
    """Makes it ragged, with these buckets and so many steps of a mean row."""
    self.buckets, self.steps = tuple(buckets), steps
    self.shape = (self.buckets[-1], *self.shape[1:])

  def notes(self, rows: Sequence[Row]) -> list[str]:
    """Notes on texts without words, on files, and on the length of clips."""
    rows = [row for row in rows if row.cells[self.name]]
    if self.kind == "text":
      return notes.of_texts(self.name, rows)
    found = {
      r.number: self._media.remark(self.kind, r.cells[self.name]) for r in rows
    }
    said = {number: x for number, x in found.items() if x is not None}
    lengths = self._lengths(rows) if self.kind in _SOUNDS else []
    if self.buckets:
      low, high = min(self.lengths.values()), max(self.lengths.values())
      shown = ", ".join(map(str, self.buckets))
      lengths = [
        f"{self.name}: sequences of {low} to {high} steps of {self.shape[1]} "
        f"numbers, padded in batches to {shown}"
      ]
    return lengths + notes.of_files(self.name, self.kind, rows, said)

  def _lengths_of(self, rows: Sequence[Row]) -> dict[int, int]:
    """{row number: steps}; empty if all arrays have one shape."""
    cells = {r.number: r.cells[self.name] for r in rows if r.cells[self.name]}
    shapes = {number: self._media.shape(cell) for number, cell in cells.items()}
    if len(set(shapes.values())) < 2:
      return {}
    return {number: shape[0] for number, shape in shapes.items()}

  def _lengths(self, rows: Sequence[Row]) -> list[str]:
    lengths = [
      len(self._media.read(self.kind, row.cells[self.name])) for row in rows
    ]
    length = self.preprocessing["length"]
    cut = sum(n > length for n in lengths)
    seconds = length / self._settings.sample_rate
    what = "spectrograms" if self.kind == "audio" else "samples"
    return [
      f"{self.name}: clips of {seconds:.3g} s, {what} of shape "
      f"{self.shape}; {cut} of {len(lengths)} clips are longer and cut"
    ]

  def to_json(self) -> dict[str, Any]:
    """What loading needs to know."""
    made = {
      "kind": self.kind,
      "shape": self.shape,
      "words": self.words,
      "intake": self.preprocessing,
    }
    if self.buckets:
      made |= {"buckets": self.buckets, "steps": self.steps}
    return {**made, "optional": True} if self.optional else made

  def feature(self) -> Any:
    """The feature of tensorflow_datasets that stores it."""
    import tensorflow_datasets as tfds

    if self.kind == "text" or self.buckets:  # Bytes of any number.
      return tfds.features.Text()
    return tfds.features.Tensor(
      shape=self.shape, dtype=self._dtype, encoding="bytes"
    )

  @property
  def _dtype(self) -> Any:
    return np.uint8 if self.kind in ("image", "video") else np.float32

  def _longest(self) -> int:
    rate, least = self._settings.sample_rate, 1
    if self.kind == "audio":
      least = self._settings.nperseg
    if self._settings.seconds:
      return max(least, round(self._settings.seconds * rate))
    longest = max(len(self._media.read(self.kind, c)) for c in self._cells)
    low, high = (round(s * rate) for s in SECONDS)
    return max(least, min(max(longest, low), high))

  def _moments(self) -> tuple[Any, Any]:
    """Mean and standard deviation of each number over the training rows."""
    total, squares = np.float64(0), np.float64(0)
    first = self._media.read("array", self._cells[0]).astype(np.float64)
    for cell in self._cells:
      moved = self._media.read("array", cell) - first  # against cancellation
      total, squares = total + moved, squares + moved**2
    return _moments(total, squares, len(self._cells), first)

  def _step_moments(self) -> tuple[Any, Any]:
    """Those of each feature [d] over all steps of the training rows."""
    total, squares, count = np.float64(0), np.float64(0), 0
    first = self._media.read("array", self._cells[0])[0].astype(np.float64)
    for cell in self._cells:
      moved = self._media.read("array", cell) - first
      total = total + moved.sum(axis=0)
      squares = squares + (moved**2).sum(axis=0)
      count += len(moved)
    return _moments(total, squares, count, first)


def _moments(
  total: Any, squares: Any, count: int, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation from sums over what has been moved by ``first``."""
  mean = total / count
  deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
  constant = deviation <= 1e-6 * np.maximum(np.abs(mean + first), 1e-6)
  return mean + first, np.where(constant, 1.0, deviation)


def bucket(modalities: Sequence[Modality], train: Sequence[Row]) -> None:
  """Gives ragged modalities their buckets, all of them at once."""
  ragged = [m for m in modalities if m.lengths]
  if not ragged:
    return
  # A row that lacks a modality has no steps of it.
  lengths = {
    m.name: np.array([m.lengths.get(row.number, 0) for row in train])
    for m in ragged
  }
  longest = {m.name: max(m.lengths.values()) for m in ragged}
  chosen = sequences.choose(lengths, longest)
  for m in ragged:
    m.bucket(chosen[m.name], float(np.mean(lengths[m.name])))
