"""Checkpoints with Orbax: the last states, the best on val, and chosen epochs.

They are written in the background. A checkpoint is committed by an atomic
rename, so a process killed at any moment leaves only whole ones; half-written
files are removed at the next start. Each holds the checksums of its files,
which are on the disk before the rename: after a power cut, or with a bad disk,
a damaged one is found and never trained on, see ``damage``.

If epochs take less than ``EVERY`` seconds, not every one is written: the best
so far is held in memory until the next write. A killed process loses that much
time at most; the run resumes from the last checkpoint and ends the same.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from data_pipelines.disk import checksums
from data_pipelines.disk.faults import writing
from dmg_jax import processes
from dmg_jax.errors import DamagedError, InputError
from dmg_jax.evaluation import selection
from dmg_jax.training.checkpoint.damage import (
  ASIDE,
  FOLDER,
  arrays,
  check_metrics,
  damaged,
  mend,
  problem,
  saved,
)
from dmg_jax.types import TrainState

__all__ = [
  "EVERY",
  "FOLDER",
  "LATEST",
  "METRIC",
  "Checkpoints",
  "arrays",
  "damaged",
  "mend",
  "problem",
  "saved",
]

METRIC = selection.key(selection.DEFAULT)
EVERY = 10.0  # seconds
# A run that goes on has another to fall back to if its last is damaged.
LATEST = 2
_HALF = "*.orbax-checkpoint-tmp"
# Orbax writes them when all else has been written.
_LATE = ("_CHECKPOINT_METADATA", "commit_success.txt")


class Checkpoints:
  """The checkpoints of one run, in ``<workdir>/checkpoints``."""

  def __init__(
    self,
    workdir: Path,
    latest: int = LATEST,
    keep: Iterable[int] = (),
    score: str = selection.DEFAULT,
    readonly: bool = False,
  ):
    """Opens or creates the folder; removes leftovers of a killed process.

    Args:
      workdir: of the run.
      latest: how many of the last states are kept until ``finish``. Runs that
        train together need three: a process may be killed when only some have
        written, and those also have the best state that was held in memory.
      keep: steps whose checkpoints are kept, in addition to the last and best.
      score: by which one is the best, see ``selection``.
      readonly: nothing is written or removed: another process may be training.

    Raises:
      DamagedError: which one is the best cannot be told.
      WriteError: the folder cannot be written to, here and in what writes.
    """
    self._score, self._metric = score, selection.key(score)
    self._folder = (Path(workdir) / FOLDER).absolute()
    self._keep, self._failed = frozenset(keep), False
    check_metrics(self._folder)
    with self._writing():
      if not readonly:  # Orbax would remove them at some time later.
        processes.by_first(self._remove_half_written)
      self._manager = self._opened(latest, readonly)
    self._held: tuple[TrainState, dict[str, float]] | None = None
    best = self._best_saved()
    self._best = -math.inf if best is None else best[0]

  def _opened(self, latest: int, readonly: bool) -> ocp.CheckpointManager:
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(latest),
        checkpoint_managers.BestN(
          get_metric_fn=self._goodness,
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
        checkpoint_managers.CustomSteps(tuple(self._keep)),
      ]
    )
    return ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        best_fn=self._goodness,  # Without it, none is kept.
        preservation_policy=policy,
        create=not readonly,
        async_options=ocp.AsyncOptions(
          post_finalization_callback=self._add_checksums
        ),
      ),
    )

  def _remove_half_written(self) -> None:
    for path in self._folder.glob(_HALF):
      shutil.rmtree(path)

  def _add_checksums(self) -> None:
    """Of the checkpoint that is whole now and is about to get its name."""
    for path in self._folder.glob(_HALF) if processes.first() else ():
      checksums.write(path, _LATE)

  @contextlib.contextmanager
  def _writing(self):
    try:
      with writing(self._folder, "checkpoints", "--workdir"):
        yield
    except Exception:
      self._failed = True
      raise

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
    with self._writing():
      os.stat(self._folder)  # Orbax would make another folder.
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
    with self._writing():
      # Metrics are read from the disk.
      self._manager.wait_until_finished()
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
      DamagedError: its files are not as they were written.
      ValueError: the checkpoint does not fit the model.
    """
    path = self._folder / str(step)
    why = checksums.problem(path) if checksums.known(path) else None
    if why is not None:
      raise DamagedError(damaged(path, why))
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

  def finish(self) -> None:
    """Removes what only a run that goes on needs.

    The last, the best and those to keep stay.
    """
    kept = {*self._keep, self.last(), self.best()}
    with self._writing():
      for step in [s for s in self.steps() if s not in kept]:
        self._manager.delete(step)
      for path in self._folder.glob(f"{ASIDE}*") if processes.first() else ():
        shutil.rmtree(path)

  def close(self) -> None:
    """Waits until everything is on disk; after a failure, only closes."""
    try:
      if not self._failed:
        self._write_held()
        with self._writing():
          self._manager.wait_until_finished()
    finally:
      # It was said what is wrong; closing says it again.
      with contextlib.suppress(Exception):
        self._manager.close()
      for path in self._folder.glob(_HALF) if self._failed else ():
        shutil.rmtree(path, ignore_errors=True)
