"""Runs that differ in their seeds: one after another, or at once.

One after another (``vmap_seeds=off``, the default) reuses the compiled steps of
a single run, and each seed gives the same bits as if it were run alone. At once
(``on``) is one compiled step for all of them (``jax.vmap``): many small
products become few large ones, but a convolution becomes a grouped one, which
is slow on CPU in particular. Each seed then equals its run alone up to rounding
only, because XLA sums batched operations in another order.

``auto`` times a step of both kinds and trains at once if that saves a fifth of
the time. So its results depend, in their last bits, on how busy the machine is.

What was chosen is kept in ``seeds.json``: a work directory goes on as it began.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from data_pipelines.disk.faults import writing
from dmg_jax import processes
from dmg_jax.errors import out_of_memory
from dmg_jax.tracking.logging import write_json
from dmg_jax.training import checkpoint
from dmg_jax.training.experiment import Config, Setup
from dmg_jax.training.programs import Programs

FILE = "seeds.json"
# ``auto`` trains at once if that takes less than this share of the time.
GAIN = 0.8
_TIMES = 3  # Steps that are timed; the fastest counts.


class Job(NamedTuple):
  """One run: its config, with a single seed, and its folder."""

  config: Config
  folder: Path


@dataclasses.dataclass(frozen=True)
class Choice:
  """Whether runs train at once.

  Attributes:
    vmap: whether they do.
    measured: the timings behind it, ``{}`` if nothing was measured.
    programs: compiled so far, by the number of runs at once.
  """

  vmap: bool
  measured: dict[str, Any] = dataclasses.field(default_factory=dict)
  programs: dict[int, Programs] = dataclasses.field(default_factory=dict)


def choose(setup: Setup, count: int, root: Path) -> Choice:
  """Whether ``count`` runs train at once: as they began, or as configured.

  Args:
    setup: of one of the runs.
    count: their number.
    root: their work directory, which may hold an earlier choice.
  """
  # Several processes would have to agree on what each of them measures.
  if count == 1 or processes.several():
    return Choice(False)
  path = root / FILE
  if path.exists():
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Choice(bool(stored["vmap"]), stored)
  wanted = setup.config.vmap_seeds
  return measure(setup, count) if wanted == "auto" else Choice(wanted == "on")


def measure(setup: Setup, count: int) -> Choice:
  """Times a step of ``count`` runs at once and ``count`` single steps."""
  alone, single = _step_seconds(setup, 1)
  try:
    at_once, several = _step_seconds(setup, count)
  except jax.errors.JaxRuntimeError as error:
    if not out_of_memory(error):
      raise
    at_once, several = math.inf, single
  vmap = at_once < GAIN * count * alone
  measured = {
    "vmap": vmap,
    "seeds": count,
    "step_seconds_at_once": at_once,
    "step_seconds_one_after_another": count * alone,
    "device": jax.devices()[0].device_kind,
  }
  programs = {count: several} if vmap else {1: single}
  return Choice(vmap, measured, programs)


def remember(choice: Choice, count: int, root: Path) -> None:
  """Keeps the choice for ``count`` runs; the first one stays."""
  if count > 1 and not (root / FILE).exists():
    kept = choice.measured or {"vmap": choice.vmap, "seeds": count}
    with writing(root, FILE, "--workdir"):
      root.mkdir(parents=True, exist_ok=True)
    write_json(root / FILE, kept, "--workdir")


def describe(choice: Choice, count: int) -> str:
  """The choice in a few words."""
  how = "at once" if choice.vmap else "one after another"
  if "step_seconds_at_once" not in choice.measured:
    return f"{count} seeds {how}"
  times = (
    choice.measured["step_seconds_at_once"],
    choice.measured["step_seconds_one_after_another"],
  )
  shown = " against ".join(f"{1000 * float(t):.3g} ms" for t in times)
  return f"{count} seeds {how}: a step of all takes {shown}"


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


def _step_seconds(setup: Setup, count: int) -> tuple[float, Programs]:
  """Seconds of a compiled training step of ``count`` runs; the programs."""
  programs = Programs(setup, count)
  first = setup.config.seed
  setups = [setup.with_seed(first + i, count) for i in range(count)]
  state = programs.pack([s.fresh() for s in setups])
  batch = setup.loader("train", setup.batch_size).batch(0)
  batch, seeds = programs.place([batch] * count), programs.seeds(setups)
  state, _ = jax.block_until_ready(programs.train(state, batch, seeds))
  took = []
  for _ in range(_TIMES):
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(programs.train(state, batch, seeds))
    took.append(time.perf_counter() - begin)
  return min(took), programs
