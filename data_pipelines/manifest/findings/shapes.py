"""Arrays of a column must share one shape: what to say where they do not."""

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

  Args:
    column: of the arrays.
    found: rows and the shapes of their arrays.
    by_row: a fault for each row, so that these rows can be left out; else one
      for the column if several rows differ.
  """
  counts = collections.Counter(shape for _, shape in found)
  if len(counts) < 2:
    return []
  usual, most = counts.most_common(1)[0]
  others = [(row, shape) for row, shape in found if shape != usual]
  if len(others) > 1 and not by_row:
    first = others[0][0]
    place = f"row {first.number}, {first.cells[column.name]}"
    return [Fault(0, column.header, _sentence(counts, len(found), place))]
  return [
    Fault(
      row.number,
      column.header,
      f"{row.cells[column.name]} has shape {shape}, {most} of {len(found)} "
      f"have {usual}",
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
    f"({some}); all rows must have the same shape: cut, pad or average the "
    "arrays, or save statistics of each"
  )


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
