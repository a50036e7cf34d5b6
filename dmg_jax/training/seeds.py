"""Runs that differ in their seeds: one after another, or at once.

One after another (``vmap_seeds=off``, the default) reuses the compiled steps of
a single run, and each seed gives the same bits as if it were run alone. At once
(``on``) is one compiled step for all of them (``jax.vmap``): many small
products become few large ones, but a convolution becomes a grouped one, which
is slow on CPU in particular. Each seed then equals its run alone up to rounding
only, because XLA sums batched operations in another order.

``auto`` decides by the compiled step and the kind of device, and by no clock,
so that the same command gives the same bits every time. At once trains

* on an accelerator: what has no convolution;
* on a CPU: what has neither a convolution nor a loop over time, and takes no
  more than ``SMALL`` operations a step. There it is the overhead of a step that
  is saved; larger products fill the cores by themselves. With three small
  encoders of arrays and words a step of four seeds took .5 to .6 of four single
  ones, with layers of 1,024 features 1.2 times as long, with a transformer 2.

Either way all runs have to fit into the memory, by the compiler's own account.

What was chosen is kept in ``seeds.json``: a work directory goes on as it began.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from data_pipelines.disk.faults import writing
from dmg_jax import processes
from dmg_jax.tracking.logging import write_json
from dmg_jax.training import checkpoint
from dmg_jax.training.experiment import Config, Setup
from dmg_jax.training.programs import Programs

FILE = "seeds.json"
SMALL = 5e7  # Floating point operations of a step of a single run, on a CPU.
ROOM = 0.8  # Share of the memory that runs at once may take.
_CONVOLUTION, _LOOPS = "conv_general_dilated", ("scan", "while")


class Job(NamedTuple):
  """One run: its config, with a single seed, and its folder."""

  config: Config
  folder: Path


@dataclasses.dataclass(frozen=True)
class Choice:
  """Whether runs train at once.

  Attributes:
    vmap: whether they do.
    why: what ``auto`` went by, ``{}`` without it. Older runs hold timings.
    programs: compiled so far, by the number of runs at once.
  """

  vmap: bool
  why: dict[str, Any] = dataclasses.field(default_factory=dict)
  programs: dict[int, Programs] = dataclasses.field(default_factory=dict)


def choose(setup: Setup, count: int, root: Path) -> Choice:
  """Whether ``count`` runs train at once: as they began, or as configured.

  Args:
    setup: of one of the runs.
    count: their number.
    root: their work directory, which may hold an earlier choice.
  """
  # Runs at once are not shared by several processes.
  if count == 1 or processes.several():
    return Choice(False)
  path = root / FILE
  if path.exists():
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Choice(bool(stored["vmap"]), stored)
  wanted = setup.config.vmap_seeds
  return decide(setup, count) if wanted == "auto" else Choice(wanted == "on")


def decide(setup: Setup, count: int) -> Choice:
  """Whether ``count`` runs train at once by ``auto``, see the module."""
  device = jax.devices()[0]
  why: dict[str, Any] = {"seeds": count, "device": device.device_kind}
  traced = _traced(setup, 1)
  used = set(_primitives(traced.jaxpr.jaxpr))
  if _CONVOLUTION in used:
    return Choice(False, {**why, "vmap": False, "reason": "convolutions"})
  if device.platform == "cpu":
    flops = float((traced.lower().cost_analysis() or {}).get("flops", 0))
    why["flops"] = flops
    if used & {*_LOOPS}:
      return Choice(False, {**why, "vmap": False, "reason": "loops on a CPU"})
    if flops > SMALL:
      large = f"{flops:.2g} operations a step"
      return Choice(False, {**why, "vmap": False, "reason": large})
  why["bytes"], why["memory"] = _bytes(setup, count), _memory(device)
  fits = why["bytes"] <= ROOM * why["memory"]
  reason = "matrix products" if fits else "too little memory for all"
  return Choice(fits, {**why, "vmap": fits, "reason": reason})


def remember(choice: Choice, count: int, root: Path) -> None:
  """Keeps the choice for ``count`` runs; the first one stays."""
  if count > 1 and not (root / FILE).exists():
    kept = choice.why or {"vmap": choice.vmap, "seeds": count}
    with writing(root, FILE, "--workdir"):
      root.mkdir(parents=True, exist_ok=True)
    write_json(root / FILE, kept, "--workdir")


def describe(choice: Choice, count: int) -> str:
  """The choice in a few words."""
  how = "at once" if choice.vmap else "one after another"
  reason = choice.why.get("reason")
  return f"{count} seeds {how}" + (f": {reason}" if reason else "")


def group(jobs: Sequence[Job]) -> tuple[list[Job], int]:
  """The jobs that can continue together, and the step they continue from.

  That is the earliest of their last checkpoints. If a process was killed when
  only some had saved, those still have the checkpoint before, too.
  """
  found = processes.decided(
    lambda: [sorted(checkpoint.saved(job.folder)) for job in jobs]
  )
  step = min(max(s, default=0) for s in found)

  def joins(steps: list[int]) -> bool:
    return step in steps or (step == 0 and len(steps) <= 1)

  return [j for j, s in zip(jobs, found, strict=True) if joins(s)], step


def _traced(setup: Setup, count: int) -> Any:
  """The training step of ``count`` runs, traced on shapes."""
  programs = Programs(setup, count)
  first = setup.config.seed
  setups = [setup.with_seed(first + i, count) for i in range(count)]
  state = programs.like([s.fresh() for s in setups])
  batch = setup.loader("train", setup.batch_size).batch(0)
  placed = programs.place([batch] * count)
  return programs.train.trace(state, placed, programs.seeds(setups))


def _primitives(program: Any) -> Iterator[str]:
  """Names of all operations, those of inner programs too."""
  for equation in program.eqns:
    yield equation.primitive.name
    for inner in jax.tree.leaves(
      list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
    ):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        yield from _primitives(inner)


def _bytes(setup: Setup, count: int) -> int:
  """What a step of ``count`` runs at once needs, by the compiler."""
  found = _traced(setup, count).lower().compile().memory_analysis()
  if found is None:  # Not every backend tells.
    return 0
  parts = (
    found.argument_size_in_bytes,
    found.output_size_in_bytes,
    found.temp_size_in_bytes,
    found.generated_code_size_in_bytes,
  )
  return sum(parts) - found.alias_size_in_bytes


def _memory(device: Any) -> int:
  """Bytes that a device, or the machine of a CPU, has in all."""
  if device.platform != "cpu":
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit", sys.maxsize)
  if not hasattr(os, "sysconf"):
    return sys.maxsize
  return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
