"""The training loop.

It is Algorithm 1 of the paper: ``inner_iters`` steps of the method, then
one outer step if it has an outer level. Batches are pure functions of (seed,
step) and a checkpoint holds all the rest, so a run that was stopped anywhere
ends with the same bits as one that never was.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from dmg_jax import steps
from dmg_jax.assemble import Setup
from dmg_jax.checkpoint import Checkpoints
from dmg_jax.evaluate import evaluate, make_eval_step
from dmg_jax.logging import Console, MetricsFile
from dmg_jax.tracking import Tracking
from dmg_jax.types import Batch, Metrics, TrainState


class DivergedError(RuntimeError):
  """A loss term or the weights became NaN or infinite."""


class Stop:
  """Set by SIGTERM or Ctrl-C; the loop then saves and returns."""

  def __init__(self):
    self.signal: int | None = None

  def __enter__(self):
    self._old = {
      s: signal.signal(s, self._set) for s in (signal.SIGTERM, signal.SIGINT)
    }
    return self

  def _set(self, number, frame):
    del frame
    self.signal = number

  def __exit__(self, *_):
    for number, handler in self._old.items():
      signal.signal(number, handler)


class EpochData:
  """What ``types.Data`` promises to methods between epochs."""

  def __init__(self, setup: Setup, steps_per_epoch: int):
    self.epochs = setup.config.train.epochs
    self.steps_per_epoch = steps_per_epoch
    self._setup = setup

  def batches(self, split: str) -> Iterator[Batch]:
    """One pass in fixed order; ``test`` is not for methods."""
    if split not in ("train", "outer", "val"):
      raise ValueError(f"a method may read train, outer and val, not {split}")
    return self._setup.batches(split)


class Trainer:
  """A run in progress: the compiled steps and where their results go.

  What cannot work fails in the constructor; only ``open`` makes files.
  """

  def __init__(self, setup: Setup, console: Console):
    config, method = setup.config, setup.method
    self.setup, self.console = setup, console
    self.loader = setup.loader("train", setup.batch_size, train=True)
    self.per_epoch = self.loader.steps_per_epoch
    self.epochs = method.length(
      config.train.epochs, len(setup.problem.modalities)
    )
    self.total = self.epochs * self.per_epoch
    self.data = EpochData(setup, self.per_epoch)
    self.train_step = steps.make_train_step(
      setup.problem, method, setup.apply, config.seed
    )
    self.outer_step = None
    if method.outer_step is not None:
      self.outer_every = method.inner_iters or self.per_epoch
      self.outer_loader = setup.loader(
        method.outer_split, setup.outer_batch_size, train=True
      )
      self.outer_step = steps.make_outer_step(
        setup.problem,
        method,
        config.seed,
        parts=steps.in_parts(sum(setup.parameters.values())),
      )
    self.eval_step = make_eval_step(setup.problem, method)
    self.timing: dict[str, float] = {}
    self._fresh = setup.fresh()
    self._trace(self._fresh)

  def _trace(self, state: TrainState) -> None:
    """Traces what is compiled later, which takes no time away from then."""
    batch = self.loader.batch(0)
    jax.eval_shape(self.train_step, state, self.setup.place(batch))
    if self.outer_step is not None:
      jax.eval_shape(self.outer_step, state, *self._hyper_batches(batch, 0))

  def open(self, workdir: Path) -> TrainState:
    """The last checkpoint's state, or a fresh one; once, before ``run``."""
    kept = [e * self.per_epoch for e in self.setup.config.train.keep]
    self.checkpoints = Checkpoints(workdir, kept)
    self.log = MetricsFile(workdir)
    config, tells = self.setup.config, jax.process_index() == 0
    self.tracking = Tracking(
      config.track if tells else "",
      workdir,
      config.to_dict(),
      self.console.note,
    )
    state, self._fresh = self._fresh, None
    assert state is not None
    last = self.checkpoints.last()
    if last is not None:
      state = self.checkpoints.restore(last, state)
    self.log.truncate_after(int(state.step))
    return state

  def best(self, state: TrainState) -> TrainState:
    """The best state on val so far; ``state`` gives shapes and placement."""
    step = self.checkpoints.best()
    return state if step is None else self.checkpoints.restore(step, state)

  def close(self) -> None:
    """Waits for checkpoints, closes files."""
    self.checkpoints.close()
    self.log.close()
    self.tracking.close()

  def run(self, state: TrainState, stop: Stop) -> TrainState:
    """Trains to the end, or until ``stop`` is set; saves either way.

    Raises:
      DivergedError: with the step and the term; nothing bad has been saved.
    """
    begin, first = time.monotonic(), int(state.step)
    step, stream = first, self.loader.stream(first)
    try:
      while step < self.total and stop.signal is None:
        state = self._epoch(state, step, stream, stop)
        step = int(state.step)
    finally:
      stream.close()
    self.timing["train_seconds"] = time.monotonic() - begin
    self.timing["train_steps"] = step - first
    return state

  def _epoch(self, state, step, stream, stop):
    """From ``step`` to the end of its epoch."""
    epoch = step // self.per_epoch
    if step % self.per_epoch == 0:
      state = steps.between_epochs(
        self.setup.problem, self.setup.method, state, self.data, epoch
      )
    stream = self._ordered(state, step) or stream
    pending: tuple[int, Metrics] | None = None
    for done in range(step + 1, (epoch + 1) * self.per_epoch + 1):
      batch = next(stream)
      state, metrics = self.train_step(state, self.setup.place(batch))
      # One step late, so that the device is never waited for.
      self._record(pending)
      pending = done, metrics
      if self.outer_step and done % self.outer_every == 0:
        state = self._outer(state, batch, done)
      if self._save_here(done, stop):
        self._record(pending)
        pending = None
        self.checkpoints.save(state, None)
        if stop.signal is not None:
          return state
    self._record(pending, last=True)
    return self._end_epoch(state, epoch)

  def _ordered(self, state, step):
    """The rest of the epoch in the method's own order, if it has one."""
    epoch, within = divmod(step, self.per_epoch)
    order = steps.order(
      self.setup.problem,
      self.setup.method,
      state,
      self.setup.config.seed,
      epoch,
    )
    return None if order is None else self.loader.ordered(order, epoch, within)

  def _save_here(self, step: int, stop: Stop) -> bool:
    """In mid-epoch only: the end of an epoch is saved with its metrics."""
    every = self.setup.config.train.checkpoint_steps
    due = stop.signal is not None or (every > 0 and step % every == 0)
    return due and step % self.per_epoch != 0

  def _hyper_batches(self, batch: Batch, number: int) -> tuple[Batch, Batch]:
    """Inner and outer batch of an outer step, both of the outer's size."""
    outer = self.outer_loader.batch(number)
    inner = jax.tree.map(lambda x: x[: outer.labels.size], batch)
    return self.setup.place(inner), self.setup.place(outer)

  def _outer(self, state, batch, step):
    assert self.outer_step is not None
    hyper = self._hyper_batches(batch, step // self.outer_every - 1)
    state, metrics = self.outer_step(state, *hyper)
    values = self._finite(step, metrics)
    self._write(step, "outer", values)
    return state

  def _record(self, pending, last: bool = False):
    if pending is None:
      return
    step, metrics = pending
    values = self._finite(step, metrics)
    self.console.advance(step, values)
    if last or step % self.setup.config.train.log_steps == 0:
      self._write(step, "train", values)

  def _write(self, step: int, split: str, values: dict[str, float]):
    epoch = (step - 1) // self.per_epoch + 1
    line = {"step": step, "epoch": epoch, "split": split}
    self.log.write({**line, **values})
    tagged = {f"{split}/{name}": v for name, v in values.items()}
    self.tracking.log({"epoch": epoch, **tagged}, step)

  def _finite(self, step: int, metrics: Mapping[str, Any]) -> dict[str, float]:
    values = {k: float(v) for k, v in jax.device_get(metrics).items()}
    bad = [k for k, v in values.items() if not math.isfinite(v)]
    if bad:
      terms = [k for k in bad if k != "loss"] or bad
      last = self.checkpoints.last()
      kept = f"step {last} is kept" if last else "none had been saved yet"
      raise DivergedError(
        f"{terms[0]} is {values[terms[0]]} at step {step}: training diverged. "
        f"Lower optimiser.learning_rate or set optimiser.clip_norm. Last good "
        f"checkpoint: {kept}."
      )
    return values

  def _end_epoch(self, state, epoch):
    val = self.evaluate(state, "val").flat()
    step = int(state.step)
    self._finite(step, {"val loss": val["fused/loss"]})
    self._write(step, "val", val)
    self.console.epoch(epoch + 1, val)
    ready = self.setup.method.ready(jax.device_get(state.method))
    if ready and self.setup.plateau is not None:
      state = self._watch(self.setup.plateau, state, val["fused/loss"])
    self.checkpoints.save(state, val if ready else None)
    return state

  def _watch(self, plateau, state, loss):
    """The state with the learning rate lowered if the loss has settled."""
    before = float(state.plateau.scale)
    state = plateau.observe(state, loss)
    scale = float(state.plateau.scale)
    if scale < before:
      self.console.note(
        f"learning rate times {scale:g} from here: the loss on val has settled"
      )
    return state

  def evaluate(self, state: TrainState, split: str):
    """All metrics of a split (see ``evaluate.Evaluation``)."""
    return evaluate(self.eval_step, state, self.setup.batches(split))
