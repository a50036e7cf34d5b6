"""The rows of a manifest: their faults and their splits."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from data_pipelines import core
from data_pipelines.errors import InputError, unknown
from data_pipelines.manifest.cells import SPLITS, Cell
from data_pipelines.manifest.faults import EMPTY, Fault, cut
from data_pipelines.manifest.labels import label_of
from data_pipelines.manifest.table import Column, Line, Table

NEEDED = ("train", "test")
CARVED = ("outer", "val")
NOTHING = "all modalities are missing, and a sample must have one"
_LONGEST = 60  # characters of a value in a message


class Row(NamedTuple):
  """A sample: number of the row, id, split, label, {modality: cell}."""

  number: int
  id: str
  split: str
  label: str
  cells: dict[str, Cell]


def check(
  table: Table, optional: bool = False
) -> tuple[list[Row], list[Fault]]:
  """The rows and their faults.

  Rows with an unknown split or without a label are left out.

  Args:
    table: as read.
    optional: whether a row may lack modalities, but not all of them.
  """
  rows, problems = [], list(table.problems)
  told = {(p.row, p.column) for p in problems}
  seen: dict[str, int] = {}
  for line in table.lines:
    row, found = _row(line, table.columns, "id" in table.header, optional)
    if optional and _has_nothing(line, table.columns, told):
      found.append(Fault(line.number, "", NOTHING))
    # A cell that could not be read is empty, too.
    problems += [p for p in found if (p.row, p.column) not in told]
    if row is None:
      continue
    if row.id and row.id in seen:
      text = f"{cut(row.id, _LONGEST)!r} is the id of row {seen[row.id]}, too"
      problems.append(Fault(row.number, "id", text))
    seen.setdefault(row.id, row.number)
    rows.append(row)
  return rows, problems


def _has_nothing(
  line: Line, columns: Sequence[Column], told: Collection[tuple[int, str]]
) -> bool:
  """Whether all modalities are missing, and no cell is at fault for it."""
  return not any(
    line.cells[c.header] or (line.number, c.header) in told for c in columns
  )


def _row(
  line: Line, columns: Sequence[Column], has_id: bool, optional: bool
) -> tuple[Row | None, list[Fault]]:
  number, cells = line
  split_word, label = str(cells["split"]), str(cells["label"])
  needed = ["split", "label", *["id"] * has_id]
  needed += [c.header for c in columns if not optional]
  problems = [Fault(number, c, EMPTY) for c in needed if not cells[c]]
  split = SPLITS.get(split_word.lower())
  if split_word and split is None:
    error = unknown("split", cut(split_word, _LONGEST), SPLITS)
    problems.append(Fault(number, "split", str(error)))
  if split is None or not label:
    return None, problems
  label = label_of(label)
  key = str(cells["id"]) if has_id else str(number)
  given = {c.name: cells[c.header] for c in columns}
  return Row(number, key, split, label, given), problems


def unknown_in_train(
  train: Iterable[Row], columns: Sequence[Column]
) -> list[Fault]:
  """Faults of modalities that no training row has."""
  left = {c.name: c.header for c in columns}
  for row in train:
    for name in [m for m in left if row.cells[m]]:
      del left[name]
  text = (
    "no row of split 'train' has it (is left), so it cannot be learnt: fill in "
    "cells, or call the column something without a colon, so that it is not "
    "used"
  )
  return [Fault(0, header, text) for header in left.values()]


def strangers(rows: Iterable[Row]) -> list[Fault]:
  """Faults of rows whose class has no training row."""
  rows = list(rows)
  known = {r.label for r in rows if r.split == "train"}
  text = "no row of split 'train' is of class {!r}"
  return [
    Fault(r.number, "label", text.format(cut(r.label, _LONGEST)))
    for r in rows
    if r.label not in known
  ]


def whole(rows: Iterable[Row], needed: Sequence[str] = NEEDED) -> list[Fault]:
  """Faults of the table as a whole; ``needed`` are the required splits."""
  rows = list(rows)
  splits = {r.split for r in rows}
  problems = [
    Fault(0, "", f"no row of split {split!r} (is left)")
    for split in needed
    if split not in splits
  ]
  classes = {r.label for r in rows if r.split == "train"}
  if len(classes) == 1:
    text = f"all rows are of class {classes.pop()!r}; there must be two classes"
    problems.append(Fault(0, "label", text))
  return problems


def carve(
  rows: Iterable[Row], share: float
) -> tuple[dict[str, list[Row]], list[str]]:
  """{split: rows, by number}, and a note for each split taken from train.

  Absent splits of ``CARVED`` get ``share`` of each class of train, rounded, at
  least one row, but never the last one. The choice depends on the ids alone.

  Raises:
    ValueError: train has too few rows.
  """
  splits: dict[str, list[Row]] = {s: [] for s in core.SPLITS}
  for row in rows:
    splits[row.split].append(row)
  absent = [s for s in CARVED if not splits[s]]
  if not absent:
    return splits, []
  classes = collections.defaultdict(list)
  for row in splits["train"]:
    classes[row.label].append(row)
  splits["train"] = []
  for members in classes.values():
    members.sort(key=lambda row: _digest(row.id))
    first, size = 0, max(1, round(share * len(members)))
    for split in absent:
      last = min(first + size, len(members) - 1)
      splits[split] += members[first:last]
      first = last
    splits["train"] += members[first:]
  for split in absent:
    if not splits[split]:
      raise InputError(
        f"split {split!r} is absent and too few rows of train to take it from: "
        f"give more rows, or rows of split {split!r}"
      )
  for members in splits.values():
    members.sort(key=lambda row: row.number)
  return splits, [
    f"split {split!r} is absent: {len(splits[split])} rows of train serve as "
    f"it ({share:.0%} of each class, by a hash of the id)"
    for split in absent
  ]


def _digest(key: str) -> bytes:
  return hashlib.sha256(key.encode()).digest()
