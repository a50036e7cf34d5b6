"""Runs the cells of a table row by row and keeps its files up to date.

The seeds of a row share their compiled steps (``training.seeds``), and all rows
share the data. Finished cells are not run again, and trials get no report. A
failed cell is recorded next to its folder, and the other cells go on. Running
the command again retries cells that ended with an error, but not those that
diverged (they would do so again) or whose method does not suit the data. Errors
in the data or in the whole table end the command.
"""

from __future__ import annotations

import gc
import itertools
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from data_pipelines import core
from data_pipelines.core import catalog
from data_pipelines.disk import locks
from dmg_jax import processes, report
from dmg_jax.errors import (
  BusyError,
  DivergedError,
  UnsuitableError,
  UserError,
  memory_advice,
  one_line,
  out_of_memory,
)
from dmg_jax.model import registry
from dmg_jax.tables import cells, cost, page, summary, tuning, writers
from dmg_jax.tables.cells import TableRun
from dmg_jax.tracking.logging import Console, write_json
from dmg_jax.training import experiment, runner, seeds
from dmg_jax.training.experiment import Config
from dmg_jax.training.seeds import Job

_LOCK = ".table.lock"
_EVERY = 30.0  # Seconds between two updates of the table within a row.


def run(
  config: Config, workdir: Path, console: Console, command: str | None = None
) -> int:
  """Runs this process's share of the table; calling it again resumes.

  Args:
    config: the config that ``configs/tables.py`` returns.
    workdir: folder of the table.
    console: prints progress.
    command: the command line, for the reports of the runs.

  Returns:
    The exit code: 1 if a cell of the table ended with an error, else 0.

  Raises:
    ValueError: the config is invalid, or a folder holds a run of another one.
    core.DataError: the data cannot be read.
  """
  cells.check(config)
  own = _share(config, workdir)
  pending = _all_pending(config, workdir, list(own))
  dataset = _data(config, pending[0]) if pending else None
  done = 0
  for _, some in itertools.groupby(
    pending, lambda cell: (cell.row, cell.trial)
  ):
    group = list(some)
    for number, cell in enumerate(group, done + 1):
      console.note(f"[{number}/{len(pending)}] {cell}: {cell.folder}")
    if not _run_cells(config, workdir, group, console, command, dataset):
      console.note("stopped: run the same command again to resume")
      break
    _forget()
    done += len(group)
  return processes.decided(lambda: _finish(config, workdir, console))


def _all_pending(
  config: Config, workdir: Path, own: list[TableRun]
) -> list[TableRun]:
  """The cells that still have to be run."""
  flags = processes.decided(lambda: [_pending(config, workdir, c) for c in own])
  return [cell for cell, pending in zip(own, flags, strict=True) if pending]


def write(config: Config, workdir: Path) -> summary.Summary:
  """Writes the table's files with all cells that are done.

  Raises:
    ValueError: a cell's folder holds a run of another config.
  """
  # One process after another: the last to write has seen what all have done.
  with locks.waiting(workdir / _LOCK, lambda: None):
    found = summary.collect(config, workdir)
    while True:
      writers.write(found, workdir)
      page.write(found, workdir)
      # Not every file system has locks.
      now = summary.collect(config, workdir)
      if now.progress == found.progress:
        return found
      found = now


def _finish(config: Config, workdir: Path, console: Console) -> int:
  """Writes the table and returns the exit code; in the first process."""
  found = write(config, workdir)
  console.note(writers.plain(found))
  console.note(f"table: {workdir / 'table.md'} (also .html, .tex, .csv, .json)")
  # It stands first in the table, too, which may have scrolled away.
  for found_cost in cost.costs(found):
    console.note(found_cost.sentence())
  return int(any(c.status == "error" for r in found.rows for c in r.cells))


def _share(config: Config, workdir: Path) -> Iterator[TableRun]:
  """The cells of this process: row by row, trials before seeds.

  With n processes these are the cells of every n-th row. If there are fewer
  rows than processes and nothing is tuned, they are every n-th cell instead;
  with tuning, the seeds of a row must wait for its trials.
  """
  shard, shards, rows = config.shard, config.shards, config.table.rows
  tuned = config.table.trials > 1
  by_row = tuned or len(rows) >= shards
  final = cells.finals(config, workdir)
  for row in rows[shard::shards] if by_row else rows:
    yield from cells.trials(config, workdir, row)
    for cell in final if by_row else final[shard::shards]:
      if cell.row == row:
        yield cell


def _pending(config: Config, workdir: Path, cell: TableRun) -> bool:
  """Whether a cell still has to be run, or waits for the tuning of its row."""
  chosen = _trial(config, workdir, cell)
  if chosen is None:
    return True
  if cells.results(config, cell, chosen) is not None:
    if cell.trial is not None or config.report == "off":
      return False
    return not (cell.folder / "report" / "report.html").exists()
  failed = cells.failure(cell)
  if failed is None or failed["status"] in ("diverged", "unsuitable"):
    return failed is None
  # A trial that succeeds now could change the values that the seeds began with.
  return cell.trial is None or not list((workdir / cell.row).glob("seed_*"))


def _trial(config: Config, workdir: Path, cell: TableRun) -> int | None:
  """The trial whose values a cell uses; ``None`` if not chosen yet."""
  if cell.trial is not None:
    return cell.trial
  choice = tuning.choose(config, workdir, cell.row)
  return None if choice is None else choice.trial


def _data(config: Config, cell: TableRun) -> core.Dataset:
  """The data of all cells, loaded once so that errors end the command here."""
  one = cells.run_config(config, cell)
  one.data.drop = ""  # Rows may differ in it.
  method = registry.make_method(**one.method.to_dict())
  dataset = experiment.load(
    one, registry.make_method("joint")
  )  # All modalities.
  experiment.batch_sizes(one, method, dataset.spec)
  for row in config.table.rows:  # Unknown modalities end the command here, too.
    fields = cells.run_config(config, cell._replace(row=row)).data.to_dict()
    catalog.hide(dataset, fields)
  return dataset


def _run_cells(config, workdir, group, console, command, dataset) -> bool:
  """Runs cells that differ in their seeds; returns whether to go on.

  A signal ends the table, a failed cell does not. If the cells fail together,
  each is tried alone, unless the method does not suit the data.
  """
  jobs = [_job(config, workdir, cell) for cell in group]
  shown = catalog.hide(dataset, jobs[0].config.data.to_dict())
  left, written = list(group), time.monotonic()
  root = _root(workdir, group[0])

  def done(folder, outcome):
    nonlocal written
    cell = next(c for c in left if c.folder == folder)
    left.remove(cell)
    processes.by_first(lambda: _note_end(config, cell, outcome, console))
    late = time.monotonic() - written > _EVERY
    if processes.decided(lambda: not left or late):
      processes.by_first(lambda: write(config, workdir))
      written = time.monotonic()

  try:
    ended = runner.run_jobs(
      jobs, root, console, command, done=done, dataset=shown
    )
  # WriteError is one of the data's: it cannot be noted in a file either.
  except (core.DataError, BusyError):
    raise
  except Exception as error:
    if processes.several() and not isinstance(error, UserError):
      raise  # It need not be an error of all processes.
    unsuitable = isinstance(error, UnsuitableError)
    status = "unsuitable" if unsuitable else "error"
    if len(group) > 1 and not unsuitable:
      console.note(f"{error}: trying the remaining seeds one by one")
      return all(
        _run_cells(config, workdir, [c], console, command, dataset)
        for c in list(left)
      )
    failed = config, workdir, left, status, error, console
    processes.by_first(lambda: _note_failures(*failed))
    return True
  return ended is not None


def _note_end(
  config: Config, cell: TableRun, outcome: Any, console: Console
) -> None:
  """Records that a cell diverged, or draws its report."""
  if isinstance(outcome, DivergedError):
    _note_failure(cell, "diverged", outcome, console)
    return
  if cell.trial is None and config.report == "on":
    report.write_report(cell.folder)
  cell.failure.unlink(missing_ok=True)


def _note_failures(config, workdir, left, status, error, console) -> None:
  """Records the error of cells that were not run, and writes the table."""
  for cell in left:
    _note_failure(cell, status, error, console)
  write(config, workdir)


def _root(workdir: Path, cell: TableRun) -> Path:
  """Where a row keeps whether its seeds train at once.

  Not in one place for all rows: it would depend on which of them, perhaps of
  another process, came first. A table of an older version goes on as it began.
  """
  return workdir if (workdir / seeds.FILE).exists() else workdir / cell.row


def _job(config: Config, workdir: Path, cell: TableRun) -> Job:
  trial = processes.decided(lambda: _trial(config, workdir, cell))
  assert trial is not None, f"{cell} comes before its trials"
  job = Job(cells.run_config(config, cell, trial), cell.folder)
  # Raises for a folder of another config, which does not count as a failure.
  runner.finished(*job)
  return job


def _forget() -> None:
  """Frees compiled programs, which the next run cannot use."""
  jax.clear_caches()
  gc.collect()


def _note_failure(
  cell: TableRun, status: str, error: Exception, console
) -> None:
  reason, trace = one_line(error), ""
  if out_of_memory(error):
    reason = f"{memory_advice(error)}. {reason[:300]}"
  elif not isinstance(error, UserError | OSError):
    reason = f"{type(error).__name__}: {reason}"
    trace = "".join(traceback.format_exception(error))
  found = {"status": status, "reason": reason[:1000]}
  cell.failure.parent.mkdir(parents=True, exist_ok=True)
  write_json(cell.failure, {**found, **({"traceback": trace} if trace else {})})
  console.note(f"{cell}: {status}: {reason}")
  if trace:
    console.note(
      f"this is a bug in dmg_jax: please report it with {cell.failure}"
    )
