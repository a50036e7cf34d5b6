"""Checkpoints with Orbax: the last state, the best on val, and chosen epochs.

They are written in the background. A checkpoint is committed by an atomic
rename, so a process killed at any moment leaves only whole ones; half-written
files are removed at the next start.

If epochs take less than ``EVERY`` seconds, not every one is written: the best
so far is held in memory until the next write. A killed process loses that much
time at most; the run resumes from the last checkpoint and ends the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from dmg_jax import processes
from dmg_jax.errors import InputError
from dmg_jax.evaluation import selection
from dmg_jax.types import TrainState

METRIC = selection.key(selection.DEFAULT)
FOLDER = "checkpoints"
EVERY = 10.0  # seconds


def saved(workdir: Path) -> set[int]:
  """Steps of a run's complete checkpoints; empty without a folder."""
  folder = Path(workdir) / FOLDER
  if not folder.is_dir():
    return set()
  return {int(p.name) for p in folder.iterdir() if p.name.isdigit()}


class Checkpoints:
  """The checkpoints of one run, in ``<workdir>/checkpoints``."""

  def __init__(
    self,
    workdir: Path,
    latest: int = 1,
    keep: Iterable[int] = (),
    score: str = selection.DEFAULT,
  ):
    """Opens or creates the folder; removes leftovers of a killed process.

    Args:
      workdir: of the run.
      latest: how many of the last states are kept. Runs that train together
        need three: a process may be killed when only some have written, and
        those also have the best state that was held in memory.
      keep: steps whose checkpoints are kept, in addition to the last and best.
      score: by which one is the best, see ``selection``.
    """
    self._score, self._metric = score, selection.key(score)
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(latest),
        checkpoint_managers.BestN(
          get_metric_fn=self._goodness,
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
        checkpoint_managers.CustomSteps(tuple(keep)),
      ]
    )
    self._manager = ocp.CheckpointManager(
      (Path(workdir) / FOLDER).absolute(),
      options=ocp.CheckpointManagerOptions(
        best_fn=self._goodness,  # Without it, none is kept.
        preservation_policy=policy,
        cleanup_tmp_directories=True,
      ),
    )
    self._keep = frozenset(keep)
    self._held: tuple[TrainState, dict[str, float]] | None = None
    best = self._best_saved()
    self._best = -math.inf if best is None else best[0]

  def _goodness(self, metrics: Mapping[str, float]) -> float:
    return selection.goodness(self._score, metrics[self._metric])

  def offer(
    self, state: TrainState, val: dict[str, float] | None, due: bool
  ) -> None:
    """Takes the state at the end of an epoch and its metrics on val.

    It is written if it is ``due`` or its step is one to keep. Otherwise the
    best state so far is held in memory until the next write, or the end.
    """
    if due or int(state.step) in self._keep:
      self.save(state, val)
    elif val is not None and self._goodness(val) >= self._best:
      self._best = self._goodness(val)
      # Copies: the next step takes the arrays.
      self._held = jax.tree.map(np.array, jax.device_get(state)), val

  def save(self, state: TrainState, val: dict[str, float] | None) -> None:
    """Writes the state in the background, after the one that is held.

    A checkpoint without metrics (in mid-epoch) is kept as the last only.
    """
    self._write_held()
    self._write(state, val)

  def _write_held(self) -> None:
    if self._held is not None:
      held, self._held = self._held, None
      self._write(*held)

  def _write(self, state: TrainState, val: dict[str, float] | None) -> None:
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    metrics = None
    if val is not None:
      metrics = {self._metric: float(val[self._metric])}
      self._best = max(self._best, self._goodness(metrics))
    args = ocp.args.StandardSave(state)
    # A run may have gone back to a step before its last, see ``latest``.
    late = step < (self._manager.latest_step() or 0)
    self._manager.save(step, args=args, metrics=metrics, force=late)

  def steps(self) -> list[int]:
    """Steps of all checkpoints that are there, ascending."""
    return sorted(self._manager.all_steps())

  def last(self) -> int | None:
    """Step of the last checkpoint, ``None`` before the first.

    What is held is written first.
    """
    self._write_held()
    return self._manager.latest_step()

  def best(self) -> int | None:
    """Step of the best on val, the later one of equals."""
    best = self._best_saved()
    return None if best is None else best[1]

  def _best_saved(self) -> tuple[float, int] | None:
    """Goodness and step."""
    self._write_held()
    self._manager.wait_until_finished()  # Metrics are read from the disk.
    found = processes.decided(self._scores)
    return (found[0], found[1]) if found else None

  def _scores(self) -> tuple[float, int] | None:
    """The best goodness on the disk and its step."""
    scores = []
    for step in self._manager.all_steps():
      metrics = self._manager.metrics(step)
      if metrics:
        scores.append((self._goodness(metrics), step))
    return max(scores) if scores else None

  def restore(self, step: int, like: TrainState) -> TrainState:
    """The state of a step, with shapes, dtypes and placement of ``like``.

    Raises:
      ValueError: the checkpoint does not fit the model.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
    try:
      args: Any = ocp.args.StandardRestore(abstract)
      return cast(TrainState, self._manager.restore(step, args=args))
    except (ValueError, KeyError, TypeError) as error:
      raise InputError(
        f"checkpoint {step} in {self._manager.directory} does not fit the "
        "configured model; give the config and the version of dmg_jax that "
        f"wrote it, or another workdir: {error}"
      ) from error

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._write_held()
    self._manager.wait_until_finished()
    self._manager.close()
