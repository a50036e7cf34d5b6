"""The table of a manifest: CSV, TSV, JSONL or Parquet to rows of cells."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from data_pipelines import core
from data_pipelines.core import passing
from data_pipelines.errors import unknown
from data_pipelines.manifest import formats
from data_pipelines.manifest.cells import Cell, cell_of
from data_pipelines.manifest.faults import BELOW_HEADER, Fault, cut, failure

NEEDED, OPTIONAL = ("split", "label"), ("id",)
# Legends of Matplotlib leave out what begins with _.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# Not that of pandas' ``Unnamed: 0``; an unknown kind is a mistake.
_KIND = re.compile(r"([A-Za-z]\w*)?")
_LONGEST = 200  # characters of a list of columns


class Column(NamedTuple):
  """The column of a modality: its name, its kind and its header."""

  name: str
  kind: str
  header: str


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
    lines: all rows with the cells of columns of use; empty rows of a file
      are left out.
    problems: faults found while reading.
    counted: how rows are counted, for messages.
    notes: what was found while reading and is no fault.
  """

  title: str
  folder: pathlib.Path
  header: tuple[str, ...]
  columns: tuple[Column, ...]
  lines: tuple[Line, ...]
  problems: tuple[Fault, ...]
  counted: str = BELOW_HEADER
  notes: tuple[str, ...] = ()


def read(
  path: pathlib.Path,
  needed: Sequence[str] = NEEDED,
  field: str = "data.manifest",
  passed: Sequence[str] = (),
) -> Table:
  """Reads a manifest; the file's ending is its format.

  Args:
    path: of the manifest.
    needed: required columns besides the modalities.
    field: the config field that names the manifest.
    passed: columns that are only passed on, whatever they hold.

  Raises:
    DataError: no such file, not a table, or bad columns.
    ModuleNotFoundError: a Parquet file without pyarrow.
  """
  raw = formats.read(path, is_used, field)
  columns = columns_of(path, raw.header, needed)
  kinds = {c.header: c.kind for c in columns}
  used = [c for c in raw.header if is_used(c)]
  lines, problems = [], list(raw.problems)
  for number, row in enumerate(raw.rows, 1):
    if row is None:
      continue
    line: dict[str, Cell] = {}
    for column in used:
      try:
        value = row.get(column)
        if column in passed:
          line[column] = passing.text(value)
        else:
          line[column] = cell_of(value, kinds.get(column, ""))
      except ValueError as error:
        problems.append(Fault(number, column, str(error)))
        line[column] = ""
    lines.append(Line(number, line))
  return Table(
    str(path),
    path.parent,
    raw.header,
    columns,
    tuple(lines),
    tuple(problems),
    notes=tuple(raw.notes),
  )


def is_used(header: str) -> bool:
  """Whether a column is read: split, label, id or ``name:kind``."""
  name, colon, kind = header.rpartition(":")
  return header in (*NEEDED, *OPTIONAL) or bool(
    colon and name and _KIND.fullmatch(kind.strip())
  )


def no_column(name: str, header: Sequence[str]) -> Fault:
  """The fault that a column is absent."""
  names = [c for c in header if c]
  there = cut(", ".join(names), _LONGEST) if names else "none with a name"
  return Fault(0, "", f"there is no column {name!r}; there are {there}")


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
  problems = [no_column(c, header) for c in needed if c not in header]
  problems += [
    Fault(0, c, "it occurs twice")
    for c in sorted({c for c in header if header.count(c) > 1})
    if is_used(c)
  ]
  columns: list[Column] = []
  for text in (c for c in header if ":" in c and is_used(c)):
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
