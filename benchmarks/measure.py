"""Measurements: interleaved timings, and FLOPs and memory of programs."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

Call = Callable[[], Any]

# Saves most of the compile time on a CPU. The optimised program and its cost
# and memory analysis stay the same; only the machine code is slower.
_ANALYSIS_ONLY = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}
# Minimum duration of a timing sample, reached by repeated calls.
_LEAST_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class Spread:
  """Median, minimum and maximum of several numbers."""

  median: float
  min: float
  max: float

  @classmethod
  def of(cls, values: Sequence[float]) -> Spread:
    """The spread of at least one number."""
    return cls(statistics.median(values), min(values), max(values))


@dataclasses.dataclass(frozen=True)
class Entry:
  """One line of the results.

  Attributes:
    benchmark: file of the benchmark.
    case: the model or data set.
    name: what was measured.
    base: name of the entry that the ratios refer to.
    values: raw numbers; names end with the unit (``seconds``, ...).
    ratios: values divided by those of the base, within the same run.
  """

  benchmark: str
  case: str
  name: str
  base: str
  values: dict[str, Any]
  ratios: dict[str, Any]

  def json(self) -> dict[str, Any]:
    """The entry as a dictionary for the JSON file."""
    return dataclasses.asdict(self)


def interleaved(calls: Mapping[str, Call], rounds: int) -> dict[str, list]:
  """Seconds per call: ``rounds`` samples of each, taken in turns.

  Other load on the machine then slows all of them, so that ratios of samples
  from the same round are fair. Every second round runs in reverse order. Timing
  waits for the results; the first two calls of each are not counted.
  """
  counts = {name: _warm(call) for name, call in calls.items()}
  samples: dict[str, list[float]] = {name: [] for name in calls}
  for turn in range(rounds):
    names = list(calls) if turn % 2 == 0 else list(reversed(calls))
    for name in names:
      samples[name].append(_seconds(calls[name], counts[name]))
  return samples


def _warm(call: Call) -> int:
  """Warms up and returns the number of calls per sample."""
  _seconds(call, 1)
  return max(1, round(_LEAST_SECONDS / max(_seconds(call, 1), 1e-9)))


def _seconds(call: Call, count: int) -> float:
  begin = time.perf_counter()
  for _ in range(count):
    result = call()
  jax.block_until_ready(result)
  return (time.perf_counter() - begin) / count


def ratio(top: Sequence[float], bottom: Sequence[float]) -> Spread:
  """Spread of the ratios of samples from the same round."""
  return Spread.of([t / b for t, b in zip(top, bottom, strict=True)])


def compiled(function: Callable, *args: Any, analysis_only: bool = False):
  """``function`` compiled for these arguments.

  Args:
    function: a function, jitted or not.
    *args: arrays or ``jax.ShapeDtypeStruct``.
    analysis_only: compile quickly, for a program that will not be run.
  """
  if not hasattr(function, "lower"):
    function = jax.jit(function)
  fast = analysis_only and jax.default_backend() == "cpu"
  return function.lower(*args).compile(_ANALYSIS_ONLY if fast else None)


def cost(program: Any, loops: bool = False) -> dict[str, float]:
  """FLOPs and bytes of temporary memory of a compiled program.

  FLOPs are given on a CPU only: elsewhere convolutions are library calls, whose
  FLOPs XLA does not count.

  Args:
    program: result of ``compiled``.
    loops: whether the program has relevant loops. XLA counts the body of a loop
      once, so FLOPs are left out then.
  """
  found: dict[str, float] = {}
  if jax.default_backend() == "cpu" and not loops:
    found["flops"] = float(program.cost_analysis()["flops"])
  memory = program.memory_analysis()
  if memory is not None:
    found["temp_bytes"] = float(memory.temp_size_in_bytes)
  return found


def entries(
  benchmark: str,
  case: str,
  base: str,
  samples: Mapping[str, Sequence[float]],
  costs: Mapping[str, Mapping[str, float]] | None = None,
  bases: Mapping[str, str] | None = None,
) -> list[Entry]:
  """An entry for each of ``samples`` and ``costs``, with ratios to the base.

  Args:
    benchmark: name of the benchmark.
    case: the model or data set.
    base: name of the entry that others are divided by.
    samples: {name: seconds}, as ``interleaved`` returns.
    costs: {name: numbers}, which are divided by those of the base.
    bases: {name: another base}.
  """
  costs = costs or {}
  made = []
  for name in dict.fromkeys([*samples, *costs]):
    below = (bases or {}).get(name, base)
    values: dict[str, Any] = dict(costs.get(name, {}))
    ratios: dict[str, Any] = {
      k: v / costs[below][k]
      for k, v in values.items()
      if costs.get(below, {}).get(k)
    }
    if name in samples:
      values["seconds"] = dataclasses.asdict(Spread.of(samples[name]))
      ratios["seconds"] = dataclasses.asdict(
        ratio(samples[name], samples[below])
      )
    made.append(Entry(benchmark, case, name, below, values, ratios))
  return made
