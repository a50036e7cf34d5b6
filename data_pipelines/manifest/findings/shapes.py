"""Arrays of a column share one shape, or are sequences [t d] of one d."""

from __future__ import annotations

import collections
from collections.abc import Sequence

from data_pipelines.manifest.faults import Fault
from data_pipelines.manifest.rows import Row
from data_pipelines.manifest.table import Column

Found = Sequence[tuple[Row, tuple[int, ...]]]
_SHOWN = 3  # shapes


def faults(column: Column, found: Found, by_row: bool) -> list[Fault]:
  """Faults of arrays whose shape is not the most common one.

  Arrays of two axes may differ in the first one, and only there.

  Args:
    column: of the arrays.
    found: rows and the shapes of their arrays.
    by_row: a fault for each row, so that these rows can be left out; else one
      for the column if several rows differ.
  """
  counts = collections.Counter(shape for _, shape in found)
  kinds = collections.Counter(map(_kind, counts.elements()))
  if len(kinds) < 2:
    return []
  kind = kinds.most_common(1)[0][0]
  # The most common shape, among those that go together.
  usual, most = next(x for x in counts.most_common() if _kind(x[0]) == kind)
  others = [(row, shape) for row, shape in found if _kind(shape) != kind]
  if len(others) > 1 and not by_row:
    first = others[0][0]
    place = f"row {first.number}, {first.cells[column.name]}"
    return [Fault(0, column.header, _sentence(counts, len(found), place))]
  if len([s for s in counts if _kind(s) == kind]) > 1:
    return _no_sequences(column, others, kinds, usual[1])
  return [
    Fault(
      row.number,
      column.header,
      f"{row.cells[column.name]} has shape {shape}, {most} of {len(found)} "
      f"have {usual}",
    )
    for row, shape in others
  ]


def _kind(shape: tuple[int, ...]) -> tuple[int | str, ...]:
  """The same for shapes that may be in one column."""
  return ("t", shape[1]) if len(shape) == 2 else shape


def _no_sequences(
  column: Column,
  others: Found,
  kinds: collections.Counter,
  features: int,
) -> list[Fault]:
  """A fault for each array that is no sequence [t ``features``]."""
  most = kinds["t", features]
  return [
    Fault(
      row.number,
      column.header,
      f"{row.cells[column.name]} has shape {shape}, {most} of {kinds.total()} "
      f"are sequences [t {features}]: of {features} numbers a step",
    )
    for row, shape in others
  ]


def _sentence(counts: collections.Counter, total: int, other: str) -> str:
  """All shapes in one sentence: which axis varies, and how far."""
  shown = ", ".join(
    f"{shape} in {n} row{'s' * (n > 1)}" for shape, n in counts.most_common()
  )
  some = shown if len(counts) <= _SHOWN else f"the first other in {other}"
  return (
    f"the {total} arrays have {len(counts)} shapes, {_ranges(list(counts))} "
    f"({some}); all rows must have the same shape, or be sequences [t d] with "
    f"any t and one d: {_advice(list(counts))}"
  )


def _advice(shapes: Sequence[tuple[int, ...]]) -> str:
  if all(len(shape) == 1 for shape in shapes):
    return "save each as [t 1], x[:, None]"
  return "cut, pad or average the arrays, or save statistics of each"


def _ranges(shapes: Sequence[tuple[int, ...]]) -> str:
  axes = {len(shape) for shape in shapes}
  if len(axes) > 1:
    return f"with {min(axes)} to {max(axes)} axes"
  letters = [f"axis {i}" for i in range(axes.pop())]
  sizes = zip(letters, zip(*shapes, strict=True), strict=True)
  varying = [
    f"{axis} of length {min(found)} to {max(found)}"
    for axis, found in sizes
    if min(found) < max(found)
  ]
  return ", ".join(varying)
