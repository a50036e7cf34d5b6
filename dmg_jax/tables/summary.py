"""Contents of a table: the results of finished cells, columns and marks."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from dmg_jax.evaluation import selection
from dmg_jax.evaluation.metrics import FUSED, GAP, RESERVED
from dmg_jax.report import predictions
from dmg_jax.report.tables import contributions
from dmg_jax.report.tables import readouts as readout_table
from dmg_jax.tables import cells, paper, tuning
from dmg_jax.tables.paper import Reported
from dmg_jax.training import run_folder
from dmg_jax.training.experiment import Config

NAMES = {k: v for k, v in selection.NAMES.items() if k != "loss"}
DONE, WAITING = "done", "waiting"


@dataclasses.dataclass(frozen=True)
class Cell:
  """One final run.

  Attributes:
    seed: seed of the run.
    folder: folder of the run, relative to that of the table.
    status: ``done``, ``diverged``, ``unsuitable`` (the method does not suit the
      data), ``error`` or ``waiting``.
    reason: reason of a failure.
    test: metrics on test, ``{}`` unless done.
    readout: read-out of the unimodal metrics.
    readouts: all read-outs and linear probes, ``{}`` if not computed.
    contributions: of each modality on test, ``{}`` if not measured.
    val: metrics on val of the state that was chosen there, ``{}`` unless done.
  """

  seed: int
  folder: str
  status: str
  reason: str
  test: dict[str, Any]
  readout: str
  readouts: dict[str, Any] = dataclasses.field(default_factory=dict)
  contributions: dict[str, Any] = dataclasses.field(default_factory=dict)
  val: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Column:
  """A score that is shown for each row.

  Attributes:
    head: ``fused``, a modality or ``gap``.
    score: one of ``NAMES``.
    better: 1 if higher is better, -1 if lower is better, 0 if the best row is
      not marked. Gaps are marked only in the ablation tables, because a model
      at chance has no gap, either.
  """

  head: str
  score: str
  better: int

  @property
  def name(self) -> str:
    """Name in the head of the table."""
    what = NAMES[self.score]
    return what if self.head == FUSED else f"{self.head} {what}"

  def of(self, test: dict[str, Any]) -> float | None:
    """The score in the metrics of a run, in [0, 1]; ``None`` if absent."""
    if self.head != GAP:
      value = test.get(self.head, {}).get(self.score)
      return None if value is None else float(value)
    own = [float(test[m][self.score]) for m in modalities(test)]
    return max(own) - min(own) if len(own) > 1 else None


@dataclasses.dataclass(frozen=True)
class Row:
  """All seeds of one row.

  Attributes:
    name, label, recipe: the recipe includes its keys.
    cells: one per seed.
    choice: result of tuning; ``None`` without tuning or before its end.
    root: folder of the table.
    group: rows of other groups are not compared with it.
    base: its name within the group; empty if that is its name.
  """

  name: str
  label: str
  recipe: str
  cells: list[Cell]
  choice: tuning.Chosen | None
  root: Path
  group: str = ""
  base: str = ""

  def values(self, column: Column) -> dict[int, float]:
    """{seed: score} of the finished seeds."""
    found = {c.seed: column.of(c.test) for c in self.cells if c.test}
    return {k: v for k, v in found.items() if v is not None}

  def validated(self, column: Column) -> dict[int, float]:
    """{seed: score on val} of the finished seeds."""
    found = {c.seed: column.of(c.val) for c in self.cells if c.val}
    return {k: v for k, v in found.items() if v is not None}

  def right(self, column: Column) -> dict[int, np.ndarray]:
    """{seed: [n], whether each test sample is classified correctly}.

    Empty unless the column is an accuracy.
    """
    if column.score != "accuracy" or column.head == GAP:
      return {}
    paths = {
      c.seed: self.root / c.folder / predictions.FILE
      for c in self.cells
      if c.test
    }
    return {
      seed: _right(path, path.stat().st_mtime_ns, column.head)
      for seed, path in paths.items()
      if path.exists()
    }

  @property
  def readout(self) -> str:
    """Short name of the read-out of the unimodal metrics, e.g. ``R1``."""
    found = [c.readout for c in self.cells if c.readout]
    return found[0].split()[0] if found else ""


@dataclasses.dataclass(frozen=True)
class Summary:
  """A table, finished or not.

  Attributes:
    name, title: name and title of the table.
    dataset: name of the data set in its config.
    shown: name of the data set in the table; that of the file for a manifest.
    rows: the rows, in order.
    columns: the columns, in order; those of modalities need a finished run.
    trials: number of trials per row.
    reference: name, in each group, of the row that others are compared with.
    notes: notes on the table itself.
    select_by: the score on val that chooses the state of a run.
  """

  name: str
  title: str
  dataset: str
  shown: str
  rows: list[Row]
  columns: list[Column]
  trials: int
  reference: str
  notes: tuple[str, ...]
  select_by: str = selection.DEFAULT

  @property
  def progress(self) -> tuple:
    """The state of every cell; changes whenever a cell does."""
    return tuple(
      (r.choice is None, c.status, bool(c.readouts))
      for r in self.rows
      for c in r.cells
    )

  @property
  def seeds(self) -> int:
    """Number of seeds per row."""
    return len(self.rows[0].cells)

  def row(self, name: str) -> Row | None:
    """The row of that name within its group, if the table has it."""
    return next((r for r in self.rows if (r.base or r.name) == name), None)

  @property
  def parts(self) -> list[Summary]:
    """The table cut into its groups of rows; most tables have one."""
    groups = dict.fromkeys(r.group for r in self.rows)
    return [
      dataclasses.replace(self, rows=[r for r in self.rows if r.group == g])
      for g in groups
    ]

  def reported(self, row: Row, column: Column) -> Reported | None:
    """The paper's number for a cell, ``None`` if it gives none."""
    place = self.dataset, column.head, column.score
    return paper.reported(self.name, row.name, *place)

  def has_reported(self, column: Column) -> bool:
    """Whether the paper gives a number for any row."""
    return any(self.reported(row, column) for row in self.rows)

  def marks(self, column: Column) -> dict[str, str]:
    """{row: "best" or "second" of its group} by our means; ties are alike.

    Rows with fewer finished seeds than another row are left out, because the
    means would be over different seeds.
    """
    found: dict[str, str] = {}
    for part in self.parts if column.better else ():
      found |= _marks(column, part.rows)
    return found


def _marks(column: Column, rows: list[Row]) -> dict[str, str]:
  values = {r.name: r.values(column) for r in rows}
  most = max((len(v) for v in values.values()), default=0)
  means = {
    k: column.better * mean(list(v.values()))
    for k, v in values.items()
    if v and len(v) == most
  }
  order = sorted({m for m in means.values() if math.isfinite(m)})[::-1][:2]
  kinds = dict(zip(order, ("best", "second"), strict=False))
  if len(means) < 2:
    return {}
  return {k: kinds[m] for k, m in means.items() if m in kinds}


@functools.lru_cache(maxsize=4096)
def _right(path: Path, changed: int, head: str) -> np.ndarray:
  """[n], whether each test sample is classified correctly, in split order."""
  del changed  # In the signature so that a changed file is read again.
  stored = predictions.load_predictions(path.parent)
  assert stored is not None
  found = predictions.predicted(predictions.by_head(stored)[head])
  return (found == stored["labels"])[np.argsort(stored["index"])]


def mean(values: list[float]) -> float:
  """The mean; NaN for an empty list."""
  return float(np.mean(values)) if values else math.nan


def std(values: list[float]) -> float | None:
  """The standard deviation with divisor n - 1; ``None`` below two values."""
  return float(np.std(values, ddof=1)) if len(values) > 1 else None


def modalities(test: dict[str, Any]) -> list[str]:
  """Names of the modalities in the metrics of a run."""
  return [head for head in test if head not in RESERVED]


def collect(config: Config, workdir: Path) -> Summary:
  """Summarises all finished runs of a table.

  Raises:
    ValueError: a folder holds a run of another config.
  """
  table = config.table
  by_row: dict[str, list[cells.TableRun]] = {name: [] for name in table.rows}
  for cell in cells.finals(config, workdir):
    by_row[cell.row].append(cell)
  rows = [_row(config, workdir, *item) for item in by_row.items()]
  heads = [modalities(c.test) for r in rows for c in r.cells]
  widest = max(heads, key=len, default=[])
  return Summary(
    name=table.name,
    title=table.title,
    dataset=config.data.name,
    shown=run_folder.data_name(config),
    rows=rows,
    columns=_columns(_scores(config), widest),
    trials=table.trials,
    reference=table.reference,
    notes=tuple(table.notes),
    select_by=config.train.select_by,
  )


def _scores(config: Config) -> tuple[str, ...]:
  """The table's own, and those that its runs are trained for."""
  train, scores = config.train, [*config.table.scores]
  if train.class_weights or train.sampler == "balanced":
    scores.append("balanced_accuracy")
  if train.select_by in NAMES and train.select_by != selection.DEFAULT:
    scores.append(train.select_by)
  return tuple(dict.fromkeys(scores))


def _columns(scores: tuple[str, ...], heads: list[str]) -> list[Column]:
  fused = [Column(FUSED, s, 1) for s in scores]
  own = [Column(m, scores[0], 1) for m in heads]
  marked = 0 if scores[0] == "accuracy" else -1
  gap = [Column(GAP, scores[0], marked)] if len(heads) > 1 else []
  return [*fused, *own, *gap]


def _row(config, workdir, name, own) -> Row:
  choice = tuning.choose(config, workdir, name)
  row = config.rows[name]
  made = [_cell(config, workdir, cell, choice) for cell in own]
  tuned = choice if config.table.trials > 1 else None
  place = {"group": row.group, "base": row.base}
  return Row(name, row.label, row.variant, made, tuned, workdir, **place)


def _cell(config, workdir, cell, choice) -> Cell:
  status, reason, found = WAITING, "", None
  if choice is not None:
    found = cells.results(config, cell, choice.trial)
  if found is not None:
    status = DONE
  elif failed := cells.failure(cell):
    status, reason = failed["status"], failed["reason"]
  return Cell(
    seed=cell.seed,
    folder=cell.folder.relative_to(workdir).as_posix(),
    status=status,
    reason=reason,
    test=found["test"] if found else {},
    readout=found["readout"] if found else "",
    readouts=_readouts(cell.folder) if found else {},
    contributions=contributions.of_results(found or {}, "test"),
    val=found.get("val", {}) if found else {},
  )


def _readouts(folder: Path) -> dict[str, Any]:
  path = folder / readout_table.FILE
  return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
