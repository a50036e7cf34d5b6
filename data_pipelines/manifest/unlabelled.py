"""New samples by a manifest: columns ``name:kind``, and no labels needed.

The table is as ``manifest`` describes it, without ``split``. ``id`` and
``label`` are optional and passed on as they are; other columns are not read.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data_pipelines.core import report
from data_pipelines.manifest import table
from data_pipelines.transforms.intake import Intake

_THREADS = 8
_ADVICE = "Nothing is predicted until these are corrected or left out"


class Unlabelled:
  """The rows of a manifest on their way to batches.

  Attributes:
    ids: of the rows: the column ``id``, or the row's number, from 1.
    labels: the column ``label`` as it is; ``None`` if there is none.
  """

  def __init__(self, path: str | os.PathLike, intakes: Mapping[str, Intake]):
    """Reads the table; files are read by ``batches``.

    Args:
      path: of the manifest.
      intakes: {modality: its preprocessing}, which name the columns.

    Raises:
      core.DataError: no such table, a modality has no column, or no rows.
    """
    self.path = pathlib.Path(path).expanduser()
    self._intakes = dict(intakes)
    self._table = table.read(self.path, (), "eval.manifest")
    self._headers = {
      m: f"{m}:{intake.spec.kind}" for m, intake in intakes.items()
    }
    given = {f"{c.name}:{c.kind}": c.header for c in self._table.columns}
    there = ", ".join(self._table.header)
    problems = [
      table.Problem(0, "", f"there is no column {h!r}; there are {there}")
      for h in self._headers.values()
      if h not in given
    ]
    if not problems and not self._table.lines:
      problems.append(table.Problem(0, "", "it has no rows"))
    if problems:
      raise table.failure(self.path, problems)
    self._headers = {m: given[h] for m, h in self._headers.items()}
    lines, header = self._table.lines, self._table.header
    self.ids = [x.cells.get("id") or str(x.number) for x in lines]
    known = "label" in header
    self.labels = [x.cells["label"] for x in lines] if known else None

  def __len__(self) -> int:
    return len(self._table.lines)

  def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
    """{modality: [b ...]} of at most ``size`` rows, in order.

    After the first thing that is wrong no more come: the rest is only checked.

    Raises:
      core.DataError: all that is wrong, by row and column, at the end.
    """
    lines = self._table.lines
    used = set(self._headers.values())
    problems = [
      p for p in self._table.problems if not p.column or p.column in used
    ]
    starts = range(0, len(lines), size)
    with ThreadPoolExecutor(_THREADS) as pool:
      for start in report.progress(starts, "predicting", len(starts)):
        rows, batch = lines[start : start + size], {}
        for m in self._intakes:
          # Tokenizers are not made for threads.
          spread = map if self._intakes[m].spec.kind == "text" else pool.map
          found = list(spread(lambda row, m=m: self._read(m, row), rows))
          problems += [x for x in found if isinstance(x, table.Problem)]
          batch[m] = found
        if not problems:
          yield {m: np.stack(arrays) for m, arrays in batch.items()}
    if problems:
      raise table.failure(self.path, problems, _ADVICE)

  def _read(self, m: str, row: table.Line) -> np.ndarray | table.Problem:
    header, intake = self._headers[m], self._intakes[m]
    cell = row.cells[header]
    if not cell:
      return table.Problem(row.number, header, "the cell is empty")
    if intake.spec.kind != "text":
      cell = str(self.path.parent / cell)
    try:
      return intake(cell)
    except ValueError as error:
      return table.Problem(row.number, header, str(error))
