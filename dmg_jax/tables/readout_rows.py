"""Read-outs and linear probes of the rows of a table.

``--mode=readouts`` of a table computes them for each finished run; running it
again completes what is missing. They are written to ``readouts.csv``,
``table.md``, ``.html`` and ``.json``. ``evaluation/readouts.py`` defines them.
"""

from __future__ import annotations

import csv
import gc
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from dmg_jax import processes
from dmg_jax.errors import InputError
from dmg_jax.evaluation import readouts
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.report import write_report
from dmg_jax.report.tables import readouts as shown
from dmg_jax.tables import summary
from dmg_jax.tables.summary import Row, Summary
from dmg_jax.tracking.logging import Console, mean_std
from dmg_jax.training.experiment import Config

CSV = "readouts.csv"
CAPTION = "Accuracy on test, %"


class ReadoutRow(NamedTuple):
  """All read-outs of one head in one row of the table.

  Attributes:
    row: the row of the table.
    head: a modality or ``fused``.
    found: contents of ``readouts.json`` of each seed that has them.
  """

  row: Row
  head: str
  found: Sequence[Mapping[str, Any]]

  def values(self, name: str, score: str = "accuracy") -> list[float]:
    """The scores of a read-out, one per seed that has it."""
    own = [one["scores"].get(self.head, {}).get(name) for one in self.found]
    return [float(x[score]) for x in own if x is not None]


def read(
  config: Config, workdir: Path, changes: Mapping[str, Any], console: Console
) -> None:
  """Computes the read-outs of all finished runs that have none yet.

  Args:
    config: config of the table; its shards divide the runs.
    workdir: folder of the table.
    changes: as in ``training.restore.restore``.
    console: prints progress.

  Raises:
    ValueError: no run is finished, or a folder holds a run of another config.
  """
  rows = processes.decided(lambda: _finished(config, workdir))
  if not any(rows):
    raise InputError(
      f"no run of the table in {workdir} is finished: train it first with the "
      "same command without --mode=readouts"
    )
  for folders in _share(rows, config.shard, config.shards):
    missing = processes.decided(lambda own=folders: _missing(workdir, own))
    if missing:
      _read_row([workdir / f for f in missing], changes, console)


def _finished(config: Config, workdir: Path) -> list[list[str]]:
  """Folders of the finished runs of each row."""
  return [
    [c.folder for c in row.cells if c.status == summary.DONE]
    for row in summary.collect(config, workdir).rows
  ]


def _missing(workdir: Path, folders: list[str]) -> list[str]:
  """Those of the folders that have no read-outs yet."""
  return [f for f in folders if not (workdir / f / shown.FILE).exists()]


def _share(rows: list[list[str]], shard: int, shards: int) -> list[list[str]]:
  """This shard's runs: whole rows, or parts of each if there are few rows."""
  if len(rows) >= shards:
    return rows[shard::shards]
  return [row[shard::shards] for row in rows]


def _read_row(
  folders: list[Path], changes: Mapping[str, Any], console: Console
) -> None:
  """Computes the read-outs of runs that differ in their seeds."""
  console.note(f"read-outs of {len(folders)} runs in {folders[0].parent}")
  for folder, _ in zip(
    folders, readouts.of_runs(folders, changes), strict=True
  ):
    if processes.first():
      write_report(folder)
    console.note(f"written: {folder / shown.FILE}")
  jax.clear_caches()
  gc.collect()


def lines(found: Summary) -> Iterator[ReadoutRow]:
  """For each row, one line per modality and one for the fused prediction."""
  for row in found.rows:
    own = [c.readouts for c in row.cells if c.readouts]
    heads = [h for h in (own[0]["scores"] if own else {}) if h != FUSED]
    yield from (
      ReadoutRow(row, h, own) for h in ([*heads, FUSED] if own else ())
    )


def grid(found: Summary) -> tuple[list[str], list[list[str]]]:
  """Head and body with mean ± standard deviation; no body without read-outs."""
  head = ["method", "features of", "own head", *list(shown.NAMES.values())[1:]]
  body = []
  for line in lines(found):
    texts = [_text(line, name) for name in shown.NAMES]
    body.append([line.row.label, shown.row_name(line.head), *texts])
  return head, body


def _text(line: ReadoutRow, name: str) -> str:
  """Mean ± std, with the kind of the own head and the number of seeds."""
  values = line.values(name)
  if not values:
    return "–"
  text = mean_std(values)
  if name == "own" and line.head != FUSED:
    text += f" ({line.found[0]['names']['own'].split()[0]})"
  total = len(line.row.cells)
  return text if len(values) == total else f"{text}, {len(values)} of {total}"


def notes(found: Summary) -> list[str]:
  """Notes on the numbers; empty without read-outs."""
  own = [one for line in lines(found) for one in line.found]
  if not own:
    return []
  chance = mean_std([own[0]["chance"]["accuracy"]])
  first = (
    f"{CAPTION}, mean ± standard deviation over seeds; always predicting the "
    f"most frequent class gives {chance}. All (fused): the fused prediction, "
    "and a probe on the concatenated features."
  )
  return [first, *shown.MEANINGS, *shown.remarks(own)]


def as_csv(found: Summary) -> str:
  """CSV with one line per row, head and read-out, in %."""
  file = io.StringIO()
  rows = csv.writer(file, lineterminator="\n")
  kinds = [
    f"{s} {k}" for s in ("accuracy", "macro_f1") for k in ("mean", "std")
  ]
  rows.writerow(["row", "label", "head", "read-out", "name", "seeds", *kinds])
  for line in lines(found):
    for name in shown.NAMES:
      values = line.values(name)
      if values:
        called = line.found[0]["names"][name]
        start = [line.row.name, line.row.label, line.head, name, called]
        rows.writerow([*start, len(values), *_figures(line, name)])
  return file.getvalue()


def _figures(line: ReadoutRow, name: str) -> list[str]:
  texts = []
  for score in ("accuracy", "macro_f1"):
    values = line.values(name, score)
    for x in (summary.mean(values), summary.std(values)):
      texts.append("" if x is None else f"{100 * x:.4f}")
  return texts
