"""Which of a row's trials won, by val alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from dmg_jax.tables import cells
from dmg_jax.training.experiment import Config


class Choice(NamedTuple):
  """A row's trials once all have ended.

  Attributes:
    trial: number of the best one; 0 if there was nothing to choose or all
      failed.
    values: what it sets, ``{}`` for the defaults.
    tried: {"values", "accuracy", "loss"} on val of each trial, or {"values",
      "status", "reason"} of one that failed.
  """

  trial: int
  values: dict[str, Any]
  tried: list[dict[str, Any]]


def choose(config: Config, workdir: Path, row: str) -> Choice | None:
  """The choice for a row, ``None`` while trials are missing.

  The trial of the highest fused accuracy on val wins; of equals that of the
  lowest loss, then the first. No trial has read test.
  """
  tried = []
  for cell in cells.trials(config, workdir, row):
    assert cell.trial is not None
    entry = {"values": cells.values(config, row, cell.trial)}
    found = cells.results(config, cell, cell.trial)
    failed = cells.failure(cell) if found is None else None
    if found is not None:
      fused = found["val"]["fused"]
      entry |= {k: float(fused[k]) for k in ("accuracy", "loss")}
    elif failed is not None:
      entry |= failed
    else:
      return None
    tried.append(entry)
  good = [i for i, x in enumerate(tried) if "accuracy" in x]
  best = min(good, key=lambda i: _rank(tried[i]), default=0)
  return Choice(best, cells.values(config, row, best), tried)


def _rank(entry: dict[str, Any]) -> tuple[float, float]:
  """Smaller is better; what is NaN is last."""
  key = (-entry["accuracy"], entry["loss"])
  a, b = (math.inf if math.isnan(x) else x for x in key)
  return a, b
