"""The cells of a table: what each of them is a run of, and where it lies.

A table's config is that of its data set with ``rows`` in place of recipe,
fusion and method. A cell's config is that of an ordinary run, so a cell is one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from dmg_jax.errors import InputError
from dmg_jax.training import runner, validation
from dmg_jax.training.experiment import Config

# Of the table alone; all other fields are common to its runs.
_OWN = ("table", "rows", "shard", "shards", "variant")


class Cell(NamedTuple):
  """One run of a table.

  Attributes:
    row: its name.
    seed: of the run.
    folder: of the run.
    trial: number of the trial, ``None`` for a run that counts.
  """

  row: str
  seed: int
  folder: Path
  trial: int | None = None

  @property
  def failure(self) -> Path:
    """Where it is noted that this run failed, and why."""
    return self.folder.with_name(f"{self.folder.name}_failure.json")

  def __str__(self) -> str:
    what = f"seed {self.seed}" if self.trial is None else f"trial {self.trial}"
    return f"{self.row}, {what}"


def finals(config: Config, workdir: Path) -> list[Cell]:
  """The runs that count: all rows of the first seed, then of the next."""
  return [
    Cell(row, seed, workdir / row / f"seed_{seed}")
    for seed in range(config.seed, config.seed + config.seeds)
    for row in config.table.rows
  ]


def trials(config: Config, workdir: Path, row: str) -> list[Cell]:
  """The runs that choose a row's values; none where there is nothing to choose.

  All are of one seed, which is not one of those that count.
  """
  if config.table.trials < 2:
    return []
  seed = config.table.tuning_seed
  return [
    Cell(row, seed, workdir / row / f"trial_{i}", trial=i)
    for i in range(config.table.trials)
  ]


def values(config: Config, row: str, trial: int) -> dict[str, Any]:
  """What a trial sets, ``{"optimiser.learning_rate": .., "method.x": ..}``."""
  if trial == 0:
    return {}
  drawn = config.rows[row].trials[f"trial_{trial}"]
  rate = config.optimiser.learning_rate * drawn.learning_rate_factor
  own = {f"method.{k}": v for k, v in sorted(drawn.method.items())}
  return {"optimiser.learning_rate": float(f"{rate:.3g}"), **own}


def run_config(config: Config, cell: Cell, trial: int = 0) -> Config:
  """The config of a cell's run, with the values of a trial.

  A run that chooses ends on val; test is for those that count.
  """
  fields = {k: v for k, v in config.to_dict().items() if k not in _OWN}
  row = config.rows[cell.row].to_dict()
  own = {k: row[k] for k in ("recipe", "variant", "fusion", "method")}
  one: Config = ConfigDict({**fields, **own, "seed": cell.seed, "seeds": 1})
  one.update_from_flattened_dict(values(config, cell.row, trial))
  if cell.trial is not None:
    one.eval.test = False
  return one


def check(config: Config) -> None:
  """What can be known to be wrong before anything is done.

  Raises:
    ValueError: a value out of its range, with the row it is of.
  """
  shard, shards = config.shard, config.shards
  if not 0 <= shard < shards:
    raise InputError(
      f"shard must lie in [0, shards), got shard={shard} and shards={shards}"
    )
  for field in ("seeds", "seed"):  # Before what is made of them.
    low = 1 if field == "seeds" else 0
    if config[field] < low:
      raise InputError(f"{field} must be at least {low}, got {config[field]!r}")
  last, tuning = config.seed + config.seeds - 1, config.table.tuning_seed
  if config.table.trials > 1 and config.seed <= tuning <= last:
    raise InputError(
      f"seed {tuning} is for tuning and cannot be one of the seeds that count, "
      f"{config.seed} to {last}"
    )
  for row in config.table.rows:
    for trial in range(config.table.trials):
      cell = Cell(row, last, Path())
      try:
        validation.check(run_config(config, cell, trial))
      except ValueError as error:
        raise InputError(f"row {row!r}: {error}") from error


def results(config: Config, cell: Cell, trial: int = 0) -> dict | None:
  """Of a finished cell, else ``None``.

  Raises:
    ValueError: the folder holds a run of another config.
  """
  return runner.finished(run_config(config, cell, trial), cell.folder)


def failure(cell: Cell) -> dict[str, str] | None:
  """``{"status": "diverged", "unsuitable" or "error", "reason": ..}``."""
  if not cell.failure.exists():
    return None
  return json.loads(cell.failure.read_text(encoding="utf-8"))
