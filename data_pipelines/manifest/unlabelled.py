"""New samples from a table: columns ``name:kind``, no labels needed.

The table is as ``manifest`` or ``memory`` describes it, without ``split``.
``id`` and ``label`` are optional and passed on unchanged; other columns are not
read.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from data_pipelines.core import passing
from data_pipelines.core.progress import is_quiet, progress
from data_pipelines.manifest import cells, faults, memory, table
from data_pipelines.transforms.preprocess import Preprocessor

_THREADS = 8
_PASSED = ("id", "label")
ADVICE = "Nothing is predicted until these are corrected or left out"


class Unlabelled:
  """Rows of new samples, preprocessed into batches.

  Attributes:
    ids: the column ``id``, or the number of the row, from 1.
    notes: on rows without an id, and on ids that several rows have.
    labels: the column ``label``; ``None`` if there is none.
  """

  def __init__(
    self,
    given: str | os.PathLike | Mapping[str, Sequence[Any]],
    preprocessors: Mapping[str, Preprocessor],
    folder: str | os.PathLike = ".",
  ):
    """Reads the table; files are read by ``batches``.

    Args:
      given: path of a manifest; or columns, a dictionary or a DataFrame, whose
        headers may also be the names of modalities alone.
      preprocessors: {modality: its preprocessing}, which name the columns.
      folder: that paths in columns are relative to.

    Raises:
      ValueError: columns differ in length.
      core.DataError: no such table, a modality has no column, or no rows.
    """
    self._preprocessors = dict(preprocessors)
    wanted = {m: f"{m}:{p.spec.kind}" for m, p in preprocessors.items()}
    if isinstance(given, str | os.PathLike):
      path = pathlib.Path(given).expanduser()
      self._table = table.read(path, (), "eval.manifest", _PASSED)
      if not is_quiet():
        sys.stderr.write("".join(f"note: {n}\n" for n in self._table.notes))
    else:
      named = {wanted.get(c, c): given[c] for c in given}
      self._table = memory.read(named, (), folder, _PASSED)
    self._headers = self._columns(wanted)
    lines, header = self._table.lines, self._table.header
    self.ids = [str(x.number) for x in lines]
    self.notes: tuple[str, ...] = ()
    if "id" in header:
      given_ids = [str(x.cells["id"]) for x in lines]
      self.ids, notes = passing.names(given_ids, (x.number for x in lines))
      self.notes = tuple(notes)
    known = "label" in header
    self.labels = [str(x.cells["label"]) for x in lines] if known else None

  def _columns(self, wanted: Mapping[str, str]) -> dict[str, str]:
    """{modality: header of its column}."""
    found = {f"{c.name}:{c.kind}": c.header for c in self._table.columns}
    problems = [
      table.no_column(h, self._table.header)
      for h in wanted.values()
      if h not in found
    ]
    if not problems and not self._table.lines:
      problems.append(table.Fault(0, "", "it has no rows"))
    if problems:
      raise table.failure(self._table.title, problems)
    return {m: found[h] for m, h in wanted.items()}

  def __len__(self) -> int:
    return len(self._table.lines)

  def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
    """{modality: [b ...]} of at most ``size`` rows, in order.

    After the first fault the remaining rows are only checked.

    Raises:
      core.DataError: at the end, all faults by row and column.
    """
    content = self._table
    lines = content.lines
    used = {*self._headers.values(), *_PASSED}
    there = {x.number for x in lines}
    problems = [
      p
      for p in content.problems
      if not p.column or p.column in used or p.row not in there
    ]
    starts = range(0, len(lines), size)
    with ThreadPoolExecutor(_THREADS) as pool:
      for start in progress(starts, "predicting", len(starts)):
        rows, batch = lines[start : start + size], {}
        for m in self._preprocessors:
          # Tokenizers are not made for threads.
          kind = self._preprocessors[m].spec.kind
          spread = map if kind == "text" else pool.map
          found = list(spread(lambda row, m=m: self._read(m, row), rows))
          problems += [x for x in found if isinstance(x, table.Fault)]
          batch[m] = found
        if not problems:
          yield {m: np.stack(arrays) for m, arrays in batch.items()}
    if problems:
      raise table.failure(content.title, problems, ADVICE, content.counted)

  def _read(self, m: str, row: table.Line) -> np.ndarray | table.Fault:
    header, preprocessor = self._headers[m], self._preprocessors[m]
    cell = row.cells[header]
    if not cell:
      return table.Fault(row.number, header, faults.EMPTY)
    value = cell.content if isinstance(cell, cells.Value) else cell
    if isinstance(cell, str) and preprocessor.spec.kind != "text":
      value = str(self._table.folder / cell)
    try:
      return preprocessor(value)
    except ValueError as error:
      return table.Fault(row.number, header, str(error))
