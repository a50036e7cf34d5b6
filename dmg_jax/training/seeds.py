"""Runs that differ in their seeds: at once, or one after another.

At once means one compiled step for all of them (``jax.vmap``): many small
products become few large ones, but a convolution becomes one in groups, which
a CPU in particular computes slowly. One after another means the compiled steps
of a single run, used again by the next. ``vmap_seeds=auto`` measures a step of
both kinds, once a work directory, takes the first if it saves a fifth of the
time, and keeps what it found in ``seeds.json``; a run that goes on does so as
it began.

A replica among others is the run of its seed alone up to rounding: XLA orders
the sums of batched operations otherwise.
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

from dmg_jax.tracking.logging import write_json
from dmg_jax.training import checkpoint
from dmg_jax.training.experiment import Config, Setup
from dmg_jax.training.programs import Programs

FILE = "seeds.json"
# What at once must take of the time of one after another to be chosen: less is
# not worth giving up exactly equal results.
GAIN = 0.8
_TIMES = 3  # A step is measured; the fastest counts.


class Job(NamedTuple):
  """A run to be done: its config, of one seed, and its folder."""

  config: Config
  folder: Path


@dataclasses.dataclass(frozen=True)
class Choice:
  """Whether runs train at once.

  Attributes:
    vmap: the choice.
    measured: what it rests on, ``{}`` where nothing was measured.
    programs: compiled so far, by the number of runs at once.
  """

  vmap: bool
  measured: dict[str, Any] = dataclasses.field(default_factory=dict)
  programs: dict[int, Programs] = dataclasses.field(default_factory=dict)


def choose(setup: Setup, count: int, root: Path) -> Choice:
  """Whether ``count`` runs train at once, as configured or as measured.

  Args:
    setup: of one of the runs.
    count: their number.
    root: the work directory that an earlier choice may lie in.
  """
  wanted = setup.config.vmap_seeds
  # Several processes would have to agree on what each of them measures.
  if count == 1 or wanted == "off" or jax.process_count() > 1:
    return Choice(False)
  if wanted == "on":
    return Choice(True)
  path = root / FILE
  if path.exists():
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Choice(bool(stored["vmap"]), stored)
  return measure(setup, count)


def measure(setup: Setup, count: int) -> Choice:
  """Times a step of ``count`` runs at once against as many single ones."""
  alone, single = _step_seconds(setup, 1)
  try:
    at_once, several = _step_seconds(setup, count)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
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


def remember(choice: Choice, root: Path) -> None:
  """Keeps what was measured; nothing is written twice."""
  if choice.measured and not (root / FILE).exists():
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / FILE, choice.measured)


def describe(choice: Choice, count: int) -> str:
  """The choice in a few words."""
  how = "at once" if choice.vmap else "one after another"
  if not choice.measured:
    return f"{count} seeds {how}"
  times = (
    choice.measured["step_seconds_at_once"],
    choice.measured["step_seconds_one_after_another"],
  )
  shown = " against ".join(f"{1000 * float(t):.3g} ms" for t in times)
  return f"{count} seeds {how}: a step of all takes {shown}"


def group(jobs: Sequence[Job]) -> tuple[list[Job], int]:
  """The jobs that can go on together, and the step they go on from.

  That is the least step that one of them has come to. Where a process was
  killed while some had saved and others not, those that were quicker still
  have the checkpoint before.
  """
  saved = {job.folder: checkpoint.saved(job.folder) for job in jobs}
  step = min(max(s, default=0) for s in saved.values())

  def joins(job: Job) -> bool:
    steps = saved[job.folder]
    return step in steps or (step == 0 and len(steps) <= 1)

  return [job for job in jobs if joins(job)], step


def _step_seconds(setup: Setup, count: int) -> tuple[float, Programs]:
  """Of a compiled training step of ``count`` runs; and the programs."""
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
