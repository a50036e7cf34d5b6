"""Chooses the best trial of a row on val."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from dmg_jax.evaluation import selection
from dmg_jax.tables import cells
from dmg_jax.training.experiment import Config


class Chosen(NamedTuple):
  """The result of tuning a row.

  Attributes:
    trial: number of the best trial; 0 without tuning or if all failed.
    values: the fields it sets, ``{}`` for the defaults.
    tried: for each trial {"values", "accuracy", "loss"} on val and the score
      of ``train.select_by``, or {"values", "status", "reason"} if it failed.
  """

  trial: int
  values: dict[str, Any]
  tried: list[dict[str, Any]]


def choose(config: Config, workdir: Path, row: str) -> Chosen | None:
  """The choice for a row; ``None`` while trials are missing.

  The trial that is best on val by the fused score ``train.select_by`` wins;
  ties go to the lowest loss on val, then to the first trial. No trial uses
  test.
  """
  tried, score = [], config.train.select_by
  shown = dict.fromkeys(("accuracy", score, "loss"))
  for cell in cells.trials(config, workdir, row):
    assert cell.trial is not None
    entry = {"values": cells.values(config, row, cell.trial)}
    found = cells.results(config, cell, cell.trial)
    failed = cells.failure(cell) if found is None else None
    if found is not None:
      fused = found["val"]["fused"]
      entry |= {k: float(fused[k]) for k in shown}
    elif failed is not None:
      entry |= failed
    else:
      return None
    tried.append(entry)
  good = [i for i, x in enumerate(tried) if "accuracy" in x]
  best = min(good, key=lambda i: _rank(tried[i], score), default=0)
  return Chosen(best, cells.values(config, row, best), tried)


def _rank(entry: dict[str, Any], score: str) -> tuple[float, float]:
  """Sort key of a trial: smaller is better, NaN comes last."""
  key = (-selection.goodness(score, entry[score]), entry["loss"])
  a, b = (math.inf if math.isnan(x) else x for x in key)
  return a, b
