"""The table of a manifest: CSV, TSV, JSONL or Parquet to rows of cells."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_pipelines import core
from data_pipelines.errors import (
  DataError,
  InputError,
  ListedDataError,
  MissingPackageError,
  unknown,
)
from data_pipelines.transforms import image

NEEDED, OPTIONAL = ("split", "label"), ("id",)
# Legends of Matplotlib leave out what begins with _.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SHOWN = 20


class Fault(NamedTuple):
  """What is wrong with a row, or with the whole table (row 0)."""

  row: int
  column: str
  text: str

  def __str__(self) -> str:
    place = f"row {self.row}" if self.row else ""
    column = f"column {self.column!r}" if self.column else ""
    where = ", ".join(p for p in (place, column) if p)
    return f"{where}: {self.text}" if where else self.text


class Column(NamedTuple):
  """The column of a modality: its name, its kind and its header."""

  name: str
  kind: str
  header: str


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
      content = image.to_rgb(content)
    array = np.asarray(content)
  # Reading refuses it, and says why.
  except Exception:
    array = np.empty(0, object)
  kind = f"{type(content).__name__} {array.dtype.str} {array.shape} "
  data = repr(content).encode() if array.dtype.hasobject else array.tobytes()
  return hashlib.sha256(kind.encode() + data).digest()


Cell = str | Value


class Line(NamedTuple):
  """A row: its number, from 1 below the header, and {column: cell}."""

  number: int
  cells: dict[str, Cell]


@dataclasses.dataclass(frozen=True)
class Table:
  """A manifest as read.

  Attributes:
    title: its name in messages.
    folder: paths in cells are relative to it.
    header: names of all columns.
    columns: of the modalities.
    lines: all rows; empty rows of a file are left out.
    problems: faults found while reading.
    counted: how rows are counted, for messages.
  """

  title: str
  folder: pathlib.Path
  header: tuple[str, ...]
  columns: tuple[Column, ...]
  lines: tuple[Line, ...]
  problems: tuple[Fault, ...]
  counted: str = "1 is below the header"


_SKIP = "Correct these, or leave bad rows out: --config.data.skip_bad=True"


def failure(
  title: object,
  problems: Iterable[Fault],
  advice: str = _SKIP,
  counted: str = "1 is below the header",
) -> ListedDataError:
  """The error that lists faults, or the first ones if there are many."""
  problems = sorted(problems, key=lambda p: p.row)
  rows = len({p.row for p in problems if p.row})
  first = f"; the first {_SHOWN}" if len(problems) > _SHOWN else ""
  head = f"{title}: {len(problems)} problem{'s' * (len(problems) > 1)}"
  if rows:
    head += f" in {rows} row{'s' * (rows > 1)} ({counted})"
  lines = [f"{head}{first}:", *(f"  {p}" for p in problems[:_SHOWN])]
  if rows:
    lines.append(advice)
  return ListedDataError("\n".join(lines))


def read(
  path: pathlib.Path,
  needed: Sequence[str] = NEEDED,
  field: str = "data.manifest",
) -> Table:
  """Reads a manifest; the file's ending is its format.

  Args:
    path: of the manifest.
    needed: required columns besides the modalities.
    field: the config field that names the manifest.

  Raises:
    DataError: no such file, not a table, or bad columns.
    ModuleNotFoundError: a Parquet file without pyarrow.
  """
  known = ", ".join(_READERS)
  if path.suffix.lower() not in _READERS:
    raise DataError(f"{path}: the name of a manifest ends in one of {known}")
  try:
    header, rows, problems = _READERS[path.suffix.lower()](path)
  except FileNotFoundError as error:
    raise DataError(
      f"no manifest {path}: name one with --config.{field} ({known})"
    ) from error
  except UnicodeDecodeError as error:
    raise DataError(f"{path} is not UTF-8 ({error}): save it as such") from None
  columns = columns_of(path, header, needed)
  lines = []
  for number, row in enumerate(rows, 1):
    cells = {}
    for column in header:
      try:
        cells[column] = cell_of(row.get(column))
      except ValueError as error:
        problems.append(Fault(number, column, str(error)))
        cells[column] = ""
    if any(cells.values()):
      lines.append(Line(number, cells))
  return Table(
    str(path), path.parent, header, columns, tuple(lines), tuple(problems)
  )


def cell_of(value: Any) -> str:
  """A text or whole number as text; None and NaN become ``""``.

  Raises:
    ValueError: anything else.
  """
  if value is None or (isinstance(value, float) and value != value):
    return ""
  if isinstance(value, str):
    return value.strip()
  if isinstance(value, int) and not isinstance(value, bool):
    return str(value)
  raise InputError(f"{value!r} is neither a text nor a whole number")


def modality_name(text: str) -> str:
  """A valid name from any text: ``a-b`` gives ``a_b``, ``2`` ``view_2``."""
  name = re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_")
  return name if _NAME.fullmatch(name) else f"view_{name}".strip("_")


def columns_of(
  title: object, header: tuple[str, ...], needed: Sequence[str]
) -> tuple[Column, ...]:
  """The columns of modalities, in order.

  Raises:
    DataError: a column is absent, occurs twice or has no good name.
  """
  problems = [
    Fault(0, "", f"there is no column {c!r}; there are {', '.join(header)}")
    for c in needed
    if c not in header
  ]
  problems += [
    Fault(0, c, "it occurs twice")
    for c in sorted({c for c in header if header.count(c) > 1})
  ]
  columns: list[Column] = []
  for text in (c for c in header if ":" in c):
    name, _, kind = (part.strip() for part in text.rpartition(":"))
    if kind not in core.KINDS:
      error = unknown("kind of modality", kind, core.KINDS)
      problems.append(Fault(0, text, str(error)))
    elif not _NAME.fullmatch(name):
      reason = (
        "a modality's name is made of letters, digits and _, a letter "
        f"first: {modality_name(name)}:{kind}"
      )
      problems.append(Fault(0, text, reason))
    elif name in (c.name for c in columns) and header.count(text) == 1:
      problems.append(Fault(0, text, f"there is another modality {name!r}"))
    columns.append(Column(name, kind, text))
  if not columns:
    kinds = ", ".join(core.KINDS)
    problems.append(
      Fault(0, "", f"no column of a modality, as photo:image; kinds: {kinds}")
    )
  if problems:
    raise failure(title, problems)
  return tuple(columns)


_Raw = tuple[tuple[str, ...], list[dict[str, Any]], list[Fault]]


def _delimited(path: pathlib.Path) -> _Raw:
  """CSV or TSV, with or without a byte order mark, any line ends."""
  delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
  rows, problems = [], []
  with path.open(encoding="utf-8-sig", newline="") as file:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
      header = tuple(c.strip() for c in next(reader, ()))
      for cells in reader:
        rows.append(dict(zip(header, cells, strict=False)))
        if len(cells) > len(header):
          text = (
            f"{len(cells)} cells, the header has {len(header)}: put a text "
            f"that holds {delimiter!r} in double quotes"
          )
          problems.append(Fault(len(rows), "", text))
    except csv.Error as error:
      raise DataError(f"{path}, line {reader.line_num}: {error}") from error
  if len(header) == 1 and ";" in header[0]:
    raise DataError(f"{path} is divided by ';': save it with commas")
  return header, rows, problems


def _json_lines(path: pathlib.Path) -> _Raw:
  rows, problems = [], []
  header: dict[str, None] = {}
  with path.open(encoding="utf-8-sig") as file:
    for text in file:
      row = {}
      if text.strip():
        try:
          row = json.loads(text)
          if not isinstance(row, dict):
            raise InputError("the line is no JSON object")
        except ValueError as error:
          problems.append(Fault(len(rows) + 1, "", str(error)))
          row = {}
      rows.append({key.strip(): value for key, value in row.items()})
      header |= dict.fromkeys(rows[-1])
  return tuple(header), rows, problems


def _parquet(path: pathlib.Path) -> _Raw:
  try:
    from pyarrow import ArrowException, parquet
  except ModuleNotFoundError as error:
    raise MissingPackageError(
      f"a Parquet manifest needs pyarrow ({error}): pip install -e '.[parquet]'"
    ) from error
  try:
    with path.open("rb") as file:
      table = parquet.read_table(file)
  except ArrowException as error:
    raise DataError(f"{path} is no Parquet file: {error}") from error
  header = tuple(str(c).strip() for c in table.column_names)
  columns = [column.to_pylist() for column in table.columns]
  cells = zip(*columns, strict=True)
  rows = [dict(zip(header, values, strict=True)) for values in cells]
  return header, rows, []


_READERS: dict[str, Callable[[pathlib.Path], _Raw]] = {
  ".csv": _delimited,
  ".tsv": _delimited,
  ".jsonl": _json_lines,
  ".ndjson": _json_lines,
  ".parquet": _parquet,
}
