"""CSV and TSV: rows of cells, and quotes that are not closed.

A quote that is never closed makes one cell of the rows behind it, up to the
next quote. All lines of such a cell are rows, those of a text are not. The bad
row is left out, and reading goes on behind it.
"""

from __future__ import annotations

import contextlib
import csv
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from data_pipelines import core
from data_pipelines.errors import DataError
from data_pipelines.manifest.cells import SPLITS
from data_pipelines.manifest.faults import Fault, cut

_NAMES = {"\t": "tabs", ",": "commas", ";": "';'", "|": "'|'"}
_PATH = re.compile(r"\S+\.\w{1,5}")
_MOST = 2**31 - 1  # characters of a cell that ``csv`` can be told
_SHOWN = 40
_ADVICE = (
  "put a text that holds quotes or line ends in double quotes, with each quote "
  "in it doubled"
)


class Raw(NamedTuple):
  """A table as a format gives it.

  Attributes:
    header: names of all columns.
    rows: {column: value} of each row; ``None`` if it is empty or of no use.
    problems: faults found while reading.
    notes: what else should be known.
  """

  header: tuple[str, ...]
  rows: list[dict[str, Any] | None]
  problems: list[Fault]
  notes: list[str]


def read(path: pathlib.Path) -> Raw:
  """A table with or without a byte order mark, with any line ends.

  Raises:
    DataError: it is divided by something else.
    OSError, UnicodeDecodeError: it cannot be read.
  """
  delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
  rows: list[dict[str, Any] | None] = []
  problems: list[Fault] = []
  spread: dict[str, list[tuple[int, int, bool]]] = {}
  with path.open(encoding="utf-8-sig", newline="") as file, _any_length(path):
    records = _Records(file, delimiter)
    header = _header(path, records, delimiter)
    for record in records:
      number = len(rows) + 1
      if len(record.lines) > 1 or record.error:
        found = record.fault(number, header, delimiter)
        if found is not None:
          records.go_back()
          problems.append(found)
          rows.append(None)
          continue
        for column, value in zip(header, record.cells, strict=False):
          if ends := _ends(value):
            like = record.like_rows(header, delimiter)
            spread.setdefault(column, []).append((ends, number, like))
      rows.append(record.row(header))
      if len(record.cells) > len(header):
        problems += _surplus(number, record.cells, header, delimiter)
  return Raw(header, rows, problems, _notes(spread))


@contextlib.contextmanager
def _any_length(path: pathlib.Path) -> Iterator[None]:
  """Cells as long as the file can be read; ``csv`` stops at 131,072."""
  before = csv.field_size_limit()
  csv.field_size_limit(min(max(before, path.stat().st_size), _MOST))
  try:
    yield
  finally:
    csv.field_size_limit(before)


class _Record(NamedTuple):
  """A row of cells with the lines that it was read from."""

  cells: list[str]
  lines: list[str]
  first: int  # number of the first line
  error: str

  def row(self, header: Sequence[str]) -> dict[str, Any] | None:
    filled = any(x.strip() for x in self.cells)
    return dict(zip(header, self.cells, strict=False)) if filled else None

  def fault(
    self, number: int, header: Sequence[str], delimiter: str
  ) -> Fault | None:
    """That a quote is not closed, if so."""
    if self.error:
      text = "".join(self.lines)
      index, text = _broken(text, delimiter, self.first)
      return Fault(number, _name(header, index), f"{text}: {_ADVICE}")
    if len(self.lines) < 2 or not self._swallows(header, delimiter):
      return None
    index = next(i for i, c in enumerate(self.cells) if _ends(c))
    ends = _ends(self.cells[index])
    last = self.first + len(self.lines) - 1
    text = (
      f"the cell holds {ends} line end{'s' * (ends > 1)} and {ends} other "
      f"row{'s' * (ends > 1)} (lines {self.first} to {last} of the file): its "
      f"quote is not closed; {_ADVICE}"
    )
    return Fault(number, _name(header, index), text)

  def _swallows(self, header: Sequence[str], delimiter: str) -> bool:
    """Whether each line is a row, by number of cells, split and paths."""
    rows = [_plain(x, delimiter) for x in self.lines if x.strip()]
    if len(rows) < 2 or any(len(row) != len(header) for row in rows):
      return False
    known = [i for i, c in enumerate(header) if c == "split" or _is_path(c)]
    return bool(known) and all(
      _fits(header[i], row[i]) for row in rows[1:] for i in known
    )

  def like_rows(self, header: Sequence[str], delimiter: str) -> bool:
    """Whether one of its further lines has as many cells as a row."""
    counts = (len(_plain(x, delimiter)) for x in self.lines[1:])
    return len(header) > 1 and len(header) in counts


class _Records:
  """Iterates over the records of a file."""

  def __init__(self, file: Iterable[str], delimiter: str):
    self._file, self._delimiter = iter(file), delimiter
    self._again: list[str] = []  # lines to read once more, the last one first
    self._taken: list[str] = []
    self._line = 0
    self._reader = self._new()

  def __iter__(self) -> Iterator[_Record]:
    while True:
      self._taken, cells, error = [], [], ""
      try:
        cells = next(self._reader, None)
      except csv.Error as problem:
        error = str(problem)
      if cells is None:
        return
      first, self._line = self._line + 1, self._line + len(self._taken)
      yield _Record(cells, self._taken, first, error)

  def go_back(self) -> None:
    """Goes on behind the first line of the last record."""
    self._again += reversed(self._taken[1:])
    self._line -= len(self._taken) - 1
    self._reader = self._new()

  def _new(self) -> Iterator[list[str]]:
    return csv.reader(self._lines(), delimiter=self._delimiter, strict=True)

  def _lines(self) -> Iterator[str]:
    while True:
      line = self._again.pop() if self._again else next(self._file, None)
      if line is None:
        return
      self._taken.append(line)
      yield line


def _header(
  path: pathlib.Path, records: _Records, delimiter: str
) -> tuple[str, ...]:
  """The names of the columns, behind empty lines.

  Raises:
    DataError: the file is divided by something else, or a quote is open.
  """
  for record in records:
    text = "".join(record.lines)
    if record.error:
      _check_division(path, text, ())
      index, said = _broken(text, delimiter, record.first)
      raise DataError(f"{path}, cell {index + 1} of the header: {said}")
    header = tuple(c.strip() for c in record.cells)
    if any(header):
      _check_division(path, text, header)
      return header
  return ()


def _check_division(
  path: pathlib.Path, text: str, header: tuple[str, ...]
) -> None:
  """Raises ``DataError`` if another division makes better columns."""
  if text.lower().startswith("sep="):
    raise DataError(
      f"{path} begins with the line {text.strip()!r}, which only Excel reads: "
      "delete it, and divide the cells by commas"
    )
  counts = {
    d: _known(c.strip('" \ufeff') for c in _plain(text, d)) for d in _NAMES
  }
  other = max(counts, key=lambda d: counts[d])
  if counts[other] > _known(header):
    own = {"\t": ".tsv", ",": ".csv"}.get(other)
    fix = "save it with commas as .csv"
    if own:
      fix = f"let its name end in {own}, or divide it as {path.suffix} is"
    raise DataError(f"{path} is divided by {_NAMES[other]}: {fix}")


def _known(names: Iterable[str]) -> int:
  """How many of the names are those of a manifest's columns."""
  return sum(
    c in ("split", "label", "id") or c.rpartition(":")[2].strip() in core.KINDS
    for c in names
  )


def _plain(line: str, delimiter: str) -> list[str]:
  """The cells of a line if quotes mean nothing."""
  return line.strip("\r\n").split(delimiter)


def _ends(text: str) -> int:
  """How many line ends a text holds."""
  return text.count("\n") + text.count("\r") - text.count("\r\n")


def _is_path(column: str) -> bool:
  kind = column.rpartition(":")[2].strip()
  return ":" in column and kind in core.KINDS and kind != "text"


def _fits(column: str, value: str) -> bool:
  """Whether a cell is a split's name or like a path, as its column asks."""
  value = value.strip('" ')
  if column == "split":
    return value.lower() in SPLITS
  return _PATH.fullmatch(value) is not None


def _name(header: Sequence[str], index: int) -> str:
  return header[index] if index < len(header) else ""


def _broken(text: str, delimiter: str, first: int) -> tuple[int, str]:
  """The cell whose quote is not closed well, and what is wrong with it."""
  start, index = 0, 0
  while start < len(text):
    if text[start] != '"':
      end = text.find(delimiter, start)
      if end < 0:
        break
      start, index = end + 1, index + 1
      continue
    end = text.find('"', start + 1)
    while end >= 0 and text[end + 1 : end + 2] == '"':
      end = text.find('"', end + 2)
    line = first + text.count("\n", 0, start)
    opened = f"the quote that opens in line {line} of the file"
    if end < 0:
      ends = _ends(text[start:].rstrip())
      follow = f", {ends} line ends later" if ends > 1 else ""
      return index, f"{opened} is not closed when the file ends{follow}"
    behind = text[end + 1 : end + 2]
    if behind not in (delimiter, "\r", "\n", ""):
      line = first + text.count("\n", 0, end)
      found = cut(text[end:].splitlines()[0], _SHOWN)
      return index, f"{opened} is closed in line {line}, in front of {found!r}"
    if behind != delimiter:
      break
    start, index = end + 2, index + 1
  return index, "a quote is not closed"


def _surplus(
  number: int, cells: list[str], header: Sequence[str], delimiter: str
) -> list[Fault]:
  """The fault of a row with more cells than the header."""
  if not any(x.strip() for x in cells[len(header) :]):
    return []
  text = (
    f"{len(cells)} cells, the header has {len(header)}: put a text that holds "
    f"{delimiter!r} in double quotes"
  )
  if any(x.lstrip(" ").startswith('"') for x in cells):
    text += ", without a space in front of them"
  return [Fault(number, "", text)]


def _notes(spread: dict[str, list[tuple[int, int, bool]]]) -> list[str]:
  """A note for each column with cells of several lines."""
  notes = []
  for column, found in spread.items():
    ends, number, _ = max(found, key=lambda x: (x[0], -x[1]))
    note = (
      f"column {column!r}: {len(found)} cell{'s' * (len(found) > 1)} of "
      f"several lines, row {number} holds {ends} line end{'s' * (ends > 1)}"
    )
    odd = [number for _, number, like in found if like]
    if odd:
      note += (
        f"; in {len(odd)} of them lines look like rows, first in row {odd[0]}: "
        "is a quote not closed?"
      )
    notes.append(note)
  return notes
