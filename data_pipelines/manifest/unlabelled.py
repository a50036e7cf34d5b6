"""New samples from a table: columns ``name:kind``, no labels needed.

The table is as ``manifest`` or ``memory`` describes it, without ``split``.
``id`` and ``label`` are optional and passed on unchanged; other columns are not
read. An empty cell says that the sample lacks the modality, if the run knows
of such samples (``ModalitySpec.optional``); so does a column that is not there.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from data_pipelines.core import passing
from data_pipelines.core.progress import is_quiet, progress
from data_pipelines.manifest import cells, faults, memory, rows, table
from data_pipelines.transforms.preprocess import Preprocessor

_THREADS = 8
_PASSED = ("id", "label")
_ADVICE = "Nothing is predicted until these are corrected or left out"


def advice(empty: Iterable[str] = ()) -> str:
  """What to do about faults of new samples.

  Args:
    empty: modalities that cells lack though the run knows no such sample.
  """
  names = ", ".join(dict.fromkeys(empty))
  if not names:
    return _ADVICE
  return (
    f"{_ADVICE}. Samples that lack a modality ({names}) can be predicted by a "
    "run that allows it: train with --config.data.missing=allow "
    "(missing='allow' in Python) or with modality_dropout"
  )


class Unlabelled:
  """Rows of new samples, preprocessed into batches.

  Attributes:
    ids: the column ``id``, or the number of the row, from 1.
    notes: on rows without an id, on ids that several rows have, and on columns
      that are not there.
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
      core.DataError: no such table, a modality that samples cannot lack has no
        column, or no rows.
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
    self.notes += tuple(
      f"there is no column {wanted[m]!r}: all samples lack {m}"
      for m in wanted
      if m not in self._headers
    )
    known = "label" in header
    self.labels = [str(x.cells["label"]) for x in lines] if known else None

  def _columns(self, wanted: Mapping[str, str]) -> dict[str, str]:
    """{modality: header of its column}."""
    found = {f"{c.name}:{c.kind}": c.header for c in self._table.columns}
    some = any(h in found for h in wanted.values())
    problems = [
      table.no_column(h, self._table.header)
      for m, h in wanted.items()
      if h not in found and not (some and self._optional(m))
    ]
    if not problems and not self._table.lines:
      problems.append(table.Fault(0, "", "it has no rows"))
    if problems:
      raise table.failure(self._table.title, problems)
    return {m: found[h] for m, h in wanted.items() if h in found}

  def _optional(self, m: str) -> bool:
    return self._preprocessors[m].spec.optional

  def __len__(self) -> int:
    return len(self._table.lines)

  def batches(self, size: int) -> Iterator[dict[str, list[np.ndarray | None]]]:
    """{modality: b arrays} of at most ``size`` rows, in order.

    ``None`` stands where a sample lacks the modality. After the first fault the
    remaining rows are only checked.

    Raises:
      core.DataError: at the end, all faults by row and column.
    """
    content = self._table
    used = {*self._headers.values(), *_PASSED}
    there = {x.number for x in content.lines}
    problems = [
      p
      for p in content.problems
      if not p.column or p.column in used or p.row not in there
    ]
    starts = range(0, len(self), size)
    with ThreadPoolExecutor(_THREADS) as pool:
      for start in progress(starts, "predicting", len(starts)):
        batch, found = self._batch(content.lines[start : start + size], pool)
        problems += found
        if not problems:
          yield batch
    if problems:
      headers = {h: m for m, h in self._headers.items()}
      empty = [p.column for p in problems if p.text == faults.EMPTY]
      said = advice(headers[c] for c in empty if c in headers)
      raise table.failure(content.title, problems, said, content.counted)

  def _batch(
    self, lines: Sequence[table.Line], pool: ThreadPoolExecutor
  ) -> tuple[dict[str, list[Any]], list[table.Fault]]:
    """The arrays of some rows, and their faults."""
    batch = {}
    for m, preprocessor in self._preprocessors.items():
      # Tokenizers are not made for threads.
      spread = map if preprocessor.spec.kind == "text" else pool.map
      batch[m] = list(spread(lambda row, m=m: self._read(m, row), lines))
    told = {p.row for p in self._table.problems}
    problems = [
      table.Fault(line.number, "", rows.NOTHING)
      for line, *own in zip(lines, *batch.values(), strict=True)
      if all(x is None for x in own) and line.number not in told
    ]
    found = [x for own in batch.values() for x in own]
    return batch, problems + [x for x in found if isinstance(x, table.Fault)]

  def _read(self, m: str, row: table.Line) -> np.ndarray | table.Fault | None:
    """The array of a cell; ``None`` if the sample lacks the modality."""
    header, preprocessor = self._headers.get(m), self._preprocessors[m]
    cell = row.cells[header] if header else ""
    if not cell:
      if self._optional(m):
        return None
      return table.Fault(row.number, header or m, faults.EMPTY)
    value = cell.content if isinstance(cell, cells.Value) else cell
    if isinstance(cell, str) and preprocessor.spec.kind != "text":
      value = str(self._table.folder / cell)
    try:
      return preprocessor(value)
    except ValueError as error:
      return table.Fault(row.number, header or m, str(error))
