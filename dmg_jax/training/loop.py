"""The training loop.

It is Algorithm 1 of the paper: ``inner_iters`` steps of the method, then one
outer step if it has an outer level. Batches are pure functions of seed and
step, and a checkpoint holds everything else, so a run that was stopped anywhere
and resumed ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from dmg_jax import losses, processes
from dmg_jax.errors import DivergedError, InputError
from dmg_jax.evaluation import contributions
from dmg_jax.evaluation.metrics import Evaluation
from dmg_jax.tracking import compilation
from dmg_jax.tracking.logging import Console
from dmg_jax.training import steps
from dmg_jax.training.checkpoint import EVERY
from dmg_jax.training.experiment import Setup
from dmg_jax.training.programs import Programs
from dmg_jax.training.replica import Replica
from dmg_jax.types import Batch, Method, TrainState

__all__ = ["DivergedError", "EpochData", "Stop", "Trainer"]

Values = list[dict[str, float]]  # One dictionary for each run.


class Stop:
  """Set by SIGTERM or Ctrl-C; the loop then saves and returns.

  Only the main thread gets signals; in another one it is never set. Of several
  processes, all stop in the same step if any of them was told to.
  """

  def __init__(self):
    self.signal: int | None = None
    self._any = processes.AnyOf()
    self.agreed = False  # What ``now`` said last.

  def now(self) -> bool:
    """Whether to stop here. All processes must ask at the same points."""
    # It stays so: with several processes, an answer is that of the call before.
    self.agreed = self._any(self.signal is not None) or self.agreed
    return self.agreed

  def __enter__(self):
    main = threading.current_thread() is threading.main_thread()
    self._old = {
      s: signal.signal(s, self._set)
      for s in ((signal.SIGTERM, signal.SIGINT) if main else ())
    }
    return self

  def _set(self, number, frame):
    del frame
    self.signal = number

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)


class EpochData:
  """``types.Data``: what methods can read between epochs."""

  def __init__(self, setup: Setup, steps_per_epoch: int):
    self.epochs = setup.config.train.epochs
    self.steps_per_epoch = steps_per_epoch
    self._setup = setup

  def batches(self, split: str) -> Iterator[Batch]:
    """One pass in fixed order; ``test`` is not for methods."""
    if split not in ("train", "outer", "val"):
      raise InputError(f"a method may read train, outer and val, not {split}")
    weights = self._setup.class_weights
    for batch in self._setup.batches(split):
      yield losses.with_class_weights(batch, weights, relative=False)


class Trainer:
  """Runs in progress that differ in their seeds: one, or several at once.

  Wrong configurations fail in the constructor; only ``open`` creates files.
  States are those of all runs, as ``Programs.pack`` makes them.

  Args:
    setups: of the runs.
    console: shows the progress.
    programs: compiled before for as many runs at once, if there are any.
  """

  def __init__(
    self,
    setups: Sequence[Setup],
    console: Console,
    programs: Programs | None = None,
  ):
    self.setup, self.console = setups[0], console
    config, method = self.setup.config, self.setup.method
    self.programs = programs or Programs(self.setup, len(setups))
    self.replicas = [Replica(s) for s in setups]
    self.per_epoch = self.replicas[0].per_epoch
    self.epochs = method.length(
      config.train.epochs, len(self.setup.problem.modalities)
    )
    self.total = self.epochs * self.per_epoch
    self.data = EpochData(self.setup, self.per_epoch)
    self.outer_every = method.inner_iters or self.per_epoch
    self.seeds = self.programs.seeds(setups)
    self.timing: dict[str, float] = {}
    self._written = -math.inf  # When states were written last.
    self._fresh = [s.fresh() for s in setups]
    compilation.watch()
    self._trace()

  def _trace(self) -> None:
    """Traces the steps, so that errors in them come before any file."""
    state = self.programs.like(self._fresh)
    batches = [r.loader.batch(0) for r in self.replicas]
    batch = self.programs.place(batches)
    jax.eval_shape(self.programs.train, state, batch, self.seeds)
    if self.programs.outer is not None:
      hyper = self.hyper_batches(batches, 0)
      jax.eval_shape(self.programs.outer, state, *hyper, self.seeds)

  def open(self, workdirs: Sequence[Path], step: int) -> TrainState:
    """The state to begin with; once, before ``run``.

    Args:
      workdirs: of the runs.
      step: of checkpoints that all runs have, or 0.
    """
    beside, self.step = len(self.replicas) - 1, step
    for replica, workdir in zip(self.replicas, workdirs, strict=True):
      replica.open(workdir, self.console, beside)
    fresh, self._fresh = self._fresh, []
    return self.programs.pack(
      [r.start(step, f) for r, f in zip(self.replicas, fresh, strict=True)]
    )

  def best(self, state: TrainState) -> TrainState:
    """Each run's best state on val so far."""
    states = self.programs.unpack(state)
    return self.programs.pack(
      [r.best(s) for r, s in zip(self.replicas, states, strict=True)]
    )

  def finish(self) -> None:
    """Removes checkpoints that only runs that go on need."""
    for replica in self.replicas:
      replica.checkpoints.finish()

  def close(self) -> None:
    """Waits for checkpoints, closes files."""
    with contextlib.ExitStack() as rest:
      for replica in reversed(self.replicas):
        rest.callback(replica.close)

  def run(self, state: TrainState, stop: Stop) -> TrainState:
    """Trains to the end, or until ``stop`` is set; saves either way.

    Raises:
      DivergedError: with the step and the term; nothing bad has been saved.
    """
    begin, first = time.monotonic(), self.step
    streams = [r.loader.stream(first) for r in self.replicas]
    try:
      while self.step < self.total and not stop.now():
        state = self._epoch(state, streams, stop)
    finally:
      for stream in streams:
        stream.close()
    if first < self.step < self.total:
      self._save(state)
    self.timing["train_seconds"] = time.monotonic() - begin
    self.timing["train_steps"] = self.step - first
    return state

  def _epoch(self, state, streams, stop):
    """From here to the end of the epoch."""
    epoch = self.step // self.per_epoch
    if self.step % self.per_epoch == 0:
      state = self._between_epochs(state, epoch)
    streams = self._ordered(state) or streams
    pending: tuple[int, int, Mapping[str, Any]] | None = None
    while (first := self.step) < (epoch + 1) * self.per_epoch:
      self.step = done = self._until()
      batches = [[next(s) for s in streams] for _ in range(first, done)]
      state, metrics = self.programs.advance(state, batches, self.seeds)
      self._tell_compiled()
      # One call late, so that the device is never waited for.
      self._record(pending)
      pending = first, done, metrics
      if self.programs.outer and done % self.outer_every == 0:
        self._record(pending)
        pending = None
        state = self._outer(state, batches[-1], done)
      if self._save_here(done, stop):
        self._record(pending)
        pending = None
        self._save(state)
        if stop.agreed:
          return state
    self._record(pending)
    return self._end_epoch(state, epoch)

  def _until(self) -> int:
    """The step after which the host is needed: the end of the next call."""
    stops = [self.per_epoch, self.setup.config.train.checkpoint_steps]
    if self.programs.outer is not None:
      stops.append(self.outer_every)
    ends = [(self.step // every + 1) * every for every in stops if every]
    return min(self.step + self.programs.per_call, *ends)

  def _tell_compiled(self) -> None:
    """Says what was compiled for the last step, or the epoch before."""
    line = compilation.news()
    if line:
      self.console.note(line)

  def own(self, state: TrainState) -> Iterator[tuple[Replica, TrainState]]:
    """Each run with its state."""
    return zip(self.replicas, self.programs.unpack(state), strict=True)

  def _between_epochs(self, state, epoch):
    """The method's hook, run by run."""
    problem, method = self.setup.problem, self.setup.method
    if method.between_epochs is Method.between_epochs:
      return state  # The default, which changes nothing.
    return self.programs.pack(
      [
        steps.between_epochs(problem, method, s, self.data, epoch)
        for s in self.programs.unpack(state)
      ]
    )

  def _ordered(self, state):
    """The rest of the epoch in the method's own order, if it has one."""
    if self.setup.method.order is None:
      return None
    return [r.ordered(own, self.step) for r, own in self.own(state)]

  def _save_here(self, step: int, stop: Stop) -> bool:
    """In mid-epoch only: the end of an epoch is saved with its metrics."""
    every = self.setup.config.train.checkpoint_steps
    due = stop.now() or (every > 0 and step % every == 0)
    return due and step % self.per_epoch != 0

  def _save(self, state: TrainState) -> None:
    """As the last state, unless its step has been saved."""
    self._written = time.monotonic()
    for replica, own in self.own(state):
      replica.checkpoints.save(own, None)

  def _due(self) -> bool:
    """Whether the end of this epoch is written, whatever its metrics.

    It is so for all runs or none: they resume from a step that all have. And
    several processes would have to agree on the time.
    """
    now = time.monotonic()
    due = self.step == self.total or processes.several()
    if due or now - self._written >= EVERY:
      self._written = now
      return True
    return False

  def hyper_batches(
    self, batches: Sequence[Batch], number: int
  ) -> tuple[Batch, Batch]:
    """Inner and outer batches of an outer step, on the devices.

    Args:
      batches: of training, of each run.
      number: of the outer step.
    """
    outer = self.programs.place([r.outer_batch(number) for r in self.replicas])
    if processes.several():
      return self.programs.inner(self.programs.place(batches)), outer
    inner = [
      r.inner_batch(b) for r, b in zip(self.replicas, batches, strict=True)
    ]
    return self.programs.place(inner), outer

  def _outer(self, state, batches, step):
    assert self.programs.outer is not None
    number = step // self.outer_every - 1
    hyper = self.hyper_batches(batches, number)
    state, metrics = self.programs.outer(state, *hyper, self.seeds)
    values = self._checked(step, self.programs.scalars(metrics))
    for replica, own in zip(self.replicas, values, strict=True):
      if replica.skipped(step, own, self.console):
        own["skipped"] = 1.0
    self._write(step, "outer", values)
    return state

  def _record(self, pending):
    """The steps of a call, of which the log has every so many."""
    if pending is None:
      return
    first, done, metrics = pending
    every = self.setup.config.train.log_steps
    told = self.programs.scalars_of(metrics, done - first)
    for step, values in enumerate(told, first + 1):
      self._checked(step, values)
      shown = _mean(values)
      for name in [k for k in shown if self.setup.method.is_diagnostic(k)]:
        del shown[name]
      self.console.advance(step, shown)
      if step % self.per_epoch == 0 or step % every == 0:
        self._write(step, "train", values)

  def _write(self, step: int, split: str, values: Values):
    for replica, own in zip(self.replicas, values, strict=True):
      replica.write(step, split, own)

  def _checked(self, step: int, values: Values) -> Values:
    for replica, own in zip(self.replicas, values, strict=True):
      replica.check_finite(step, own)
    return values

  def _end_epoch(self, state, epoch):
    val = [e.flat() for e in self.evaluate(state, "val")]
    self._checked(self.step, [{"val loss": v["fused/loss"]} for v in val])
    self._write(self.step, "val", val)
    self.console.epoch(epoch + 1, _mean(val))
    after, due = [], self._due()
    for (replica, own), found in zip(self.own(state), val, strict=True):
      ready = self.setup.method.ready(processes.gather(own.method))
      if ready:
        own = replica.watch(own, found["fused/loss"], self.console)
      replica.checkpoints.offer(own, found if ready else None, due)
      after.append(own)
    return state if self.setup.plateau is None else self.programs.pack(after)

  def evaluate(self, state: TrainState, split: str) -> list[Evaluation]:
    """All metrics of a split, of each run."""
    return self.programs.evaluate(state, self.setup.batches(split))

  def evaluate_with_shares(
    self, state: TrainState, split: str
  ) -> tuple[list[Evaluation], list[dict[str, Any]]]:
    """``evaluate``, and what each modality contributes, of each run."""
    guess = contributions.most_frequent(self.setup.dataset)
    batches = self.setup.batches(split)
    return self.programs.evaluate_with_shares(state, batches, guess)


def _mean(values: Values) -> dict[str, float]:
  """Over runs, of what all of them have."""
  common = [k for k in values[0] if all(k in v for v in values)]
  return {k: sum(v[k] for v in values) / len(values) for k in common}
