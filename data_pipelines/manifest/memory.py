"""Your own data from memory: columns as a manifest has them, and no file.

Cells of text columns hold the text. Other cells hold a file's path, or what a
file would hold:

==========  ===================================================================
image       uint8 [h w 3] or [h w], or a PIL picture
video       uint8 [t h w 3]
audio       float [samples], at the sample rate of the options
array       numbers, of one shape in all rows, or [t d] with any t
==========  ===================================================================
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import passing, storage
from data_pipelines.errors import InputError
from data_pipelines.manifest import (
  cells,
  faults,
  media,
  opening,
  prepared,
  table,
)
from data_pipelines.transforms import image

NAME = "memory"
COUNTED = "counted from 1"


def prepare(
  columns: Mapping[str, Sequence[Any]],
  data_dir: str | os.PathLike,
  *,
  folder: str | os.PathLike = ".",
  name: str = NAME,
  image_size: int = 32,
  sample_rate: int = 16000,
  seconds: float = 0.0,
  nperseg: int = 512,
  noverlap: int = 353,
  frames: int = 8,
  standardise: bool = True,
  max_pixels: int = image.MAX_PIXELS,
  held_out: float = 0.1,
  skip_bad: bool = False,
  missing: str = "refuse",
) -> core.PreparedSummary:
  """Checks and stores a table in memory, as ``manifest.prepare`` does a file.

  ``manifest.load(data_dir, prepared=report.versions["key"], ...)`` reads what
  was stored. Whole data of the same content are left alone.

  Args:
    columns: {header: cells}, a dictionary or a pandas DataFrame. Headers are
      ``label``, ``name:kind`` for each modality, and perhaps ``id`` (else the
      row's number, from 1) and ``split`` (else all rows are train). ``outer``
      and ``val`` are taken from train where they are absent; ``test`` may be.
    data_dir: folder of all prepared data.
    folder: that paths are relative to.
    name: of the data set.
    image_size, sample_rate, seconds, nperseg, noverlap, frames, standardise,
      max_pixels, held_out, skip_bad, missing: see ``manifest.load``. An empty
      cell is ``None``, NaN, pandas' NA, a blank text, or an array of NaN alone.

  Raises:
    ValueError: an option is out of its range, or columns differ in length.
    core.DataError: all that is wrong, by row and column; or the data cannot be
      written.
    ModuleNotFoundError: a package of the extra ``video`` is missing.
  """
  options = prepared.Options(
    media.Settings(
      image_size,
      sample_rate,
      seconds,
      nperseg,
      noverlap,
      frames,
      standardise,
      max_pixels,
    ),
    held_out,
    skip_bad,
    missing,
  )
  content = read(columns, ("label",), folder)
  if "split" not in content.header:
    content = _all_train(content)
  made = opening.of_table(data_dir, name, content, options, ("train",))
  if storage.problem_of(made.folder) is None:
    return core.PreparedSummary.read(made.folder)
  return made.prepare()


def read(
  columns: Mapping[str, Sequence[Any]],
  needed: Sequence[str] = (),
  folder: str | os.PathLike = ".",
  passed: Sequence[str] = (),
) -> table.Table:
  """The table of columns; every row of them is in it.

  Args:
    columns: {header: cells}, see ``prepare``.
    needed: columns that there must be besides modalities.
    folder: that paths are relative to.
    passed: columns that are only passed on, whatever they hold.

  Raises:
    ValueError: columns differ in length.
    core.DataError: columns that do not fit.
  """
  title = "the table"
  given = {str(c).strip(): _entries(columns[c]) for c in columns}
  lengths = {c: len(values) for c, values in given.items()}
  if len(set(lengths.values())) > 1:
    shown = ", ".join(f"{c!r} has {n}" for c, n in lengths.items())
    raise InputError(f"all columns must have as many rows: {shown}")
  header = tuple(given)
  modalities = table.columns_of(title, header, needed)
  kinds = {c.header: c.kind for c in modalities}
  used = {c: values for c, values in given.items() if table.is_used(c)}
  problems, lines = [], []
  for i in range(max(lengths.values(), default=0)):
    line: dict[str, cells.Cell] = {}
    for column, values in used.items():
      try:
        if column in passed:
          line[column] = passing.text(values[i])
        else:
          line[column] = _cell(values[i], kinds.get(column, ""))
      except ValueError as error:
        problems.append(faults.Fault(i + 1, column, str(error)))
        line[column] = ""
    lines.append(table.Line(i + 1, line))
  return table.Table(
    title,
    pathlib.Path(folder).expanduser(),
    header,
    modalities,
    tuple(lines),
    tuple(problems),
    COUNTED,
  )


def _all_train(content: table.Table) -> table.Table:
  lines = tuple(
    line._replace(cells={"split": "train", **line.cells})
    for line in content.lines
  )
  header = ("split", *content.header)
  return dataclasses.replace(content, header=header, lines=lines)


def _entries(values: Any) -> list[Any]:
  """The entries of a column, floats with as many digits as their type has."""
  if str(getattr(values, "dtype", "")) in ("float16", "float32"):
    values = np.asarray(values)
  return list(values)


def _cell(value: Any, kind: str) -> cells.Cell:
  """A cell as a manifest has it, or what a file would hold.

  Raises:
    ValueError: it is neither.
  """
  if isinstance(value, np.generic):
    exact = not kind and isinstance(value, np.floating)
    value = value if exact else value.item()
  if cells.is_empty(value):
    return ""
  if kind in ("", "text") or isinstance(value, str):
    return cells.cell_of(value, kind)
  if isinstance(value, os.PathLike):
    return os.fspath(value)
  return cells.Value(value)
