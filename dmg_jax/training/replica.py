"""One of the runs that are trained together: its batches and its files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from data_pipelines.load.loader import Loader
from dmg_jax import processes
from dmg_jax.errors import DivergedError
from dmg_jax.tracking.logging import Console, MetricsFile
from dmg_jax.tracking.trackers import Tracking
from dmg_jax.training import resident, steps
from dmg_jax.training.checkpoint import LATEST, Checkpoints
from dmg_jax.training.experiment import Setup
from dmg_jax.types import Batch, TrainState

# A mean loss beyond it is as bad as NaN: no step brings such weights back.
LARGEST = 1e12
_LOSSES = ("loss", "val loss")


class Replica:
  """What each run has for itself, whether it trains alone or with others.

  Nothing is written to disk before ``open``.
  """

  def __init__(self, setup: Setup):
    method = setup.method
    self.setup = setup
    self.loader = setup.loader(
      "train",
      setup.batch_size,
      shuffle=True,
      chances=setup.chances,
      augment=True,
    )
    self.per_epoch = self.loader.steps_per_epoch
    self.outer_loader: Loader | resident.Resident | None = None
    if method.outer_step is not None:
      # Not augmented: the outer loss is that of test time.
      self.outer_loader = setup.loader(
        method.outer_split, setup.outer_batch_size, shuffle=True
      )

  def open(self, workdir: Path, console: Console, beside: int = 0) -> None:
    """Opens the run's files; ``beside`` other runs train with it."""
    config, first = self.setup.config, processes.first()
    self.workdir, self._several = workdir, beside > 0
    kept = [epoch * self.per_epoch for epoch in config.train.keep]
    self.checkpoints = Checkpoints(
      workdir, 3 if beside else LATEST, kept, config.train.select_by
    )
    self.log = MetricsFile(workdir) if first else None
    self.tracking = Tracking(
      config.track if first else "", workdir, config.to_dict(), console.note
    )

  def start(self, step: int, fresh: TrainState) -> TrainState:
    """The state of a checkpoint, or of step 0 the fresh one."""
    if self.log is not None:
      self.log.truncate_after(step)
    return self.checkpoints.restore(step, fresh) if step else fresh

  def best(self, state: TrainState) -> TrainState:
    """The best state on val so far; ``state`` gives shapes and placement."""
    step = self.checkpoints.best()
    return state if step is None else self.checkpoints.restore(step, state)

  def close(self) -> None:
    """Waits for checkpoints, closes files; all of them, if one fails, too."""
    with contextlib.ExitStack() as rest:
      for part in (self.tracking, self.log, self.checkpoints):
        if part is not None:
          rest.callback(part.close)

  def ordered(self, state: TrainState, step: int):
    """The rest of the epoch in the method's own order."""
    epoch, within = divmod(step, self.per_epoch)
    seed = self.setup.config.seed
    order = steps.order(
      self.setup.problem, self.setup.method, state, seed, epoch
    )
    assert order is not None
    return self.loader.ordered(order, epoch, within)

  def inner_batch(self, batch: Batch) -> Batch:
    """Inner batch of an outer step: the first samples of a training batch."""
    return jax.tree.map(lambda x: x[: self.setup.inner_batch_size], batch)

  def outer_batch(self, number: int) -> Batch:
    """Outer batch of an outer step, this process's part."""
    assert self.outer_loader is not None
    return self.outer_loader.batch(number)

  def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
    """Writes a line of the log, in the first process."""
    if self.log is None:
      return
    epoch = (step - 1) // self.per_epoch + 1
    line = {"step": step, "epoch": epoch, "split": split}
    self.log.write({**line, **values})
    tagged = {f"{split}/{name}": v for name, v in values.items()}
    self.tracking.log({"epoch": epoch, **tagged}, step)

  def check_finite(self, step: int, values: Mapping[str, float]) -> None:
    """Stops at the first loss or weight that is NaN or infinite.

    A finite loss beyond ``LARGEST`` counts as infinite.

    Raises:
      DivergedError: with the step and the term; nothing bad has been saved.
    """
    method = self.setup.method
    bad = [k for k in _not_finite(values) if not method.is_diagnostic(k)]
    bad = bad or [k for k in _LOSSES if values.get(k, 0.0) > LARGEST]
    if not bad:
      return
    terms = [k for k in bad if k != "loss"] or bad
    last = self.checkpoints.last()
    kept = f"step {last} is kept" if last else "none had been saved yet"
    which = f"seed {self.setup.config.seed}: " if self._several else ""
    raise DivergedError(
      f"{which}{terms[0]} is {values[terms[0]]:.6g} at step {step}: training "
      "diverged. Lower optimiser.learning_rate or set optimiser.clip_norm. "
      f"Last good checkpoint: {kept}.",
      self.workdir,
    )

  def skipped(
    self, step: int, values: Mapping[str, float], console: Console
  ) -> bool:
    """Whether an outer step changed nothing; then it says so.

    Args:
      step: of training, for the message.
      values: metrics of the outer step.
      console: for the warning.
    """
    bad = _not_finite(values)
    if not bad:
      return False
    skipped = "hypergradient" in bad
    kept = f"; α stays {values['alpha']:.3g}" if "alpha" in values else ""
    which = f"seed {self.setup.config.seed}: " if self._several else ""
    console.note(
      f"warning: {which}step {step}: {', '.join(bad)} not finite"
      + (kept if skipped else "")
    )
    return skipped

  def watch(self, state: TrainState, loss: float, console: Console):
    """The state with the learning rate lowered if the loss has settled."""
    plateau = self.setup.plateau
    if plateau is None:
      return state
    before = float(np.asarray(state.plateau.scale))
    state = plateau.observe(state, loss)
    scale = float(np.asarray(state.plateau.scale))
    if scale < before:
      which = f"seed {self.setup.config.seed}: " if self._several else ""
      console.note(
        f"{which}learning rate times {scale:g} from here on: the loss on val "
        "no longer falls"
      )
    return state


def _not_finite(values: Mapping[str, float]) -> list[str]:
  return [k for k, v in values.items() if not math.isfinite(v)]
