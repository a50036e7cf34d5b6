"""Goals: upper bounds for ratios of entries; README.md explains them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

from benchmarks.measure import Entry

_SMALL, _LARGE = ("openmoji",), ("resnet", "resnet-18")
_MODELS = (*_SMALL, *_LARGE)
_EVEN = ("3 to 300 steps, uniform",)
_BASE = ("resnet-50 + bert-base",)
_CORES = ("1 core", "2 cores")
_NETS = tuple(
  f"{m}, {c}" for m in ("emoji", "digits", "arrays") for c in _CORES
)
_PAIR = tuple(f"resnet-18 pair, {c}" for c in _CORES)


@dataclasses.dataclass(frozen=True)
class Goal:
  """An upper bound for a ratio of an entry.

  Attributes:
    number: number of the goal.
    benchmark: benchmark of the entry.
    name: name of the entry.
    of: the ratio: ``seconds`` (its median), ``flops`` or ``temp_bytes``.
    cpu: bound on a CPU; ``None`` means no goal.
    gpu: bound on a GPU; ``None`` means no goal.
    cases: cases that the goal applies to; empty means all.
  """

  number: int
  benchmark: str
  name: str
  of: str
  cpu: float | None
  gpu: float | None
  cases: tuple[str, ...] = ()


_K5 = "neumann K=5"
_WORKERS = f"stream, {os.cpu_count() or 1} workers"
GOALS = (
  Goal(1, "hypergradient", "hvp", "seconds", 2.9, 2.6, _MODELS),
  Goal(1, "hypergradient", "hvp", "flops", 2.65, None, _MODELS),
  Goal(2, "hypergradient", "one more term", "seconds", 1.8, 1.9, _MODELS),
  Goal(2, "hypergradient", "one more term", "flops", 1.9, None, _MODELS),
  Goal(3, "hypergradient", _K5, "seconds", 11, 10, _MODELS),
  Goal(3, "hypergradient", _K5, "flops", 11.5, None, _MODELS),
  Goal(4, "training", "lb, epoch", "seconds", 1.12, 1.10, _MODELS),
  Goal(4, "training", "lb, epoch", "flops", 1.12, None, _MODELS),
  Goal(7, "loading", "steps, batches from the stream", "seconds", 1.05, 1.05),
  Goal(7, "loading", "cached", "seconds", 0.1, 0.1),
  Goal(9, "hypergradient", f"{_K5}, jvp", "temp_bytes", 2.4, 2.4, _SMALL),
  Goal(9, "hypergradient", f"{_K5}, jvp", "temp_bytes", 2.1, 2.1, _LARGE),
  Goal(9, "hypergradient", _K5, "temp_bytes", 3.8, 3.8, _SMALL),
  Goal(9, "hypergradient", _K5, "temp_bytes", 3.3, 3.3, _LARGE),
  Goal(12, "startup", "start to first step, warm", "seconds", 0.25, 0.2),
  Goal(12, "startup", "save, stall", "seconds", 0.02, 0.01),
  Goal(13, "opening", "opened again", "seconds", 0.1, 0.1, ("100,000 rows",)),
  Goal(14, "freezing", "frozen, cached, step", "seconds", 0.1, 0.1, _BASE),
  Goal(14, "freezing", "frozen, cached, epoch", "seconds", 0.1, 0.1, _BASE),
  *(
    Goal(15, "missing", f"{recipe}, masks", of, 1.02, 1.02, _MODELS)
    for recipe in ("joint", "multitask", "ogm_ge", "lb")
    for of in ("seconds", "flops")
  ),
  Goal(16, "ragged", "ragged, GRU", "seconds", 1.3, 1.3, _EVEN),
  Goal(17, "compare", "ours", "seconds", 1.0, None, _NETS),
  Goal(17, "compare", "ours", "seconds", 1 / 0.9, None, _PAIR),
  Goal(18, "throughput", _WORKERS, "seconds", 1.0, None),
  Goal(19, "throughput", "resident, crops on the device", "seconds", 1.0, None),
  Goal(20, "small", "warm", "seconds", 1.0, 1.0),
)


def judge(entries: Iterable[Entry], platform: str) -> list[dict[str, Any]]:
  """Value and bound of each goal that has an entry, and whether it is met."""
  found = []
  for entry in entries:
    for goal in GOALS:
      bound = goal.cpu if platform == "cpu" else goal.gpu
      value = entry.ratios.get(goal.of)
      same = (goal.benchmark, goal.name) == (entry.benchmark, entry.name)
      here = not goal.cases or entry.case in goal.cases
      if not (same and here) or bound is None or value is None:
        continue
      value = value["median"] if isinstance(value, dict) else value
      found.append(
        {
          "goal": goal.number,
          "case": entry.case,
          "name": entry.name,
          "ratio": goal.of,
          "value": value,
          "bound": bound,
          "met": value <= bound,
        }
      )
  return sorted(found, key=lambda line: line["goal"])
