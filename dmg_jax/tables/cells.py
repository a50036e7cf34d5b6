"""The cells of a table: the run behind each cell, its config and its folder.

The config of a table is that of its data set, with ``rows`` in place of recipe,
fusion and method. The config of a cell is that of an ordinary run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dmg_jax.errors import InputError, UnsuitableError
from dmg_jax.training import runner, validation
from dmg_jax.training.experiment import Config

# Fields of the table itself; all other fields are common to its runs.
_OWN = ("table", "rows", "shard", "shards", "variant")


class TableRun(NamedTuple):
  """One run of a table.

  Attributes:
    row: name of the row.
    seed: seed of the run.
    folder: folder of the run.
    trial: number of the tuning trial, ``None`` for a final run.
  """

  row: str
  seed: int
  folder: Path
  trial: int | None = None

  @property
  def failure(self) -> Path:
    """Path of the file that records why this run failed."""
    return self.folder.with_name(f"{self.folder.name}_failure.json")

  def __str__(self) -> str:
    what = f"seed {self.seed}" if self.trial is None else f"trial {self.trial}"
    return f"{self.row}, {what}"


def finals(config: Config, workdir: Path) -> list[TableRun]:
  """The final runs: all rows with the first seed, then with the next."""
  return [
    TableRun(row, seed, workdir / row / f"seed_{seed}")
    for seed in range(config.seed, config.seed + config.seeds)
    for row in config.table.rows
  ]


def trials(config: Config, workdir: Path, row: str) -> list[TableRun]:
  """The tuning trials of a row; empty without tuning.

  All use the same seed, which is not a seed of the final runs.
  """
  if config.table.trials < 2:
    return []
  seed = config.table.tuning_seed
  return [
    TableRun(row, seed, workdir / row / f"trial_{i}", trial=i)
    for i in range(config.table.trials)
  ]


def values(config: Config, row: str, trial: int) -> dict[str, Any]:
  """{field: value} that a trial sets, e.g. ``optimiser.learning_rate``."""
  if trial == 0:
    return {}
  drawn = config.rows[row].trials[f"trial_{trial}"]
  rate = config.optimiser.learning_rate * drawn.learning_rate_factor
  own = {f"method.{k}": v for k, v in sorted(drawn.method.items())}
  return {"optimiser.learning_rate": float(f"{rate:.3g}"), **own}


def run_config(config: Config, cell: TableRun, trial: int = 0) -> Config:
  """The config of a cell's run, with the values of a trial.

  Trials are evaluated on val only; final runs also on test.
  """
  fields = {k: v for k, v in config.to_dict().items() if k not in _OWN}
  row = config.rows[cell.row].to_dict()
  own = {k: row[k] for k in ("recipe", "variant", "fusion", "method")}
  one: Config = ConfigDict({**fields, **own, "seed": cell.seed, "seeds": 1})
  one.update(row["changes"])
  one.update_from_flattened_dict(values(config, cell.row, trial))
  if cell.trial is not None:
    one.eval.test = False
  return one


def check(config: Config) -> None:
  """Checks all configs of a table before the first run.

  Raises:
    ValueError: a value is out of range; the message names the row.
  """
  shard, shards = config.shard, config.shards
  if not 0 <= shard < shards:
    raise InputError(
      f"shard must lie in [0, shards), got shard={shard} and shards={shards}"
    )
  for field in ("seeds", "seed"):  # First, as the following lines use them.
    low = 1 if field == "seeds" else 0
    if config[field] < low:
      raise InputError(f"{field} must be at least {low}, got {config[field]!r}")
  last, tuning = config.seed + config.seeds - 1, config.table.tuning_seed
  if config.table.trials > 1 and config.seed <= tuning <= last:
    raise InputError(
      f"seed {tuning} is reserved for tuning and cannot be one of the seeds of "
      f"the final runs, {config.seed} to {last}"
    )
  for row in config.table.rows:
    for trial in range(config.table.trials):
      cell = TableRun(row, last, Path())
      try:
        validation.check(run_config(config, cell, trial))
      except UnsuitableError:
        break  # Its cells will say so; the other rows run.
      except ValueError as error:
        raise InputError(f"row {row!r}: {error}") from error


def results(config: Config, cell: TableRun, trial: int = 0) -> dict | None:
  """The results of a finished cell, ``None`` for any other.

  Raises:
    ValueError: the folder holds a run of another config.
  """
  return runner.finished(run_config(config, cell, trial), cell.folder)


def failure(cell: TableRun) -> dict[str, str] | None:
  """``{"status": .., "reason": ..}`` of a failed cell, else ``None``.

  The status is ``diverged``, ``unsuitable`` or ``error``.
  """
  if not cell.failure.exists():
    return None
  return json.loads(cell.failure.read_text(encoding="utf-8"))
