"""Faults of a table by row and column, and the error that lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from data_pipelines.errors import ListedDataError

_SHOWN = 20  # faults
_LONGEST = 400  # characters of a fault
_COLUMN = 60  # characters of a column's name

SKIP = "Correct these, or leave bad rows out: --config.data.skip_bad=True"
EMPTY = "the cell is empty"
ALLOW = (
  "An empty cell can also mean that the sample lacks the modality: "
  "--config.data.missing=allow (missing='allow' in Python)"
)
BELOW_HEADER = "1 is below the header"


class Fault(NamedTuple):
  """What is wrong with a row, or with the whole table (row 0)."""

  row: int
  column: str
  text: str

  def __str__(self) -> str:
    place = f"row {self.row}" if self.row else ""
    column = f"column {cut(self.column, _COLUMN)!r}" if self.column else ""
    where = ", ".join(p for p in (place, column) if p)
    text = cut(" ".join(self.text.splitlines()), _LONGEST)
    return f"{where}: {text}" if where else text


def cut(text: str, longest: int) -> str:
  """The text, or its beginning and its end if it is longer."""
  if len(text) <= longest:
    return text
  end = longest // 4
  return f"{text[: longest - end]} [...] {text[-end:]}"


def failure(
  title: object,
  problems: Iterable[Fault],
  advice: str = SKIP,
  counted: str = BELOW_HEADER,
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
