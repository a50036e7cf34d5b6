"""Checkpoints: the last state, the best on val, and those asked for, by Orbax.

They are written in the background. A step is committed by an atomic rename, so
a process killed at any moment leaves whole checkpoints only; what was
half-written is removed at the next start.

Where epochs take less than ``EVERY`` seconds, those that are not the best so
far are not all written: a killed process loses that much time at most, and no
state that counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from dmg_jax.types import TrainState

METRIC = "fused/accuracy"
FOLDER = "checkpoints"
EVERY = 10.0  # seconds


def saved(workdir: Path) -> set[int]:
  """Steps of the whole checkpoints of a run; none if there is no folder."""
  folder = Path(workdir) / FOLDER
  if not folder.is_dir():
    return set()
  return {int(p.name) for p in folder.iterdir() if p.name.isdigit()}


class Checkpoints:
  """The checkpoints of one run, in ``<workdir>/checkpoints``."""

  def __init__(self, workdir: Path, latest: int = 1, keep: Iterable[int] = ()):
    """Opens (or makes) the folder; leftovers of a killed process go.

    Args:
      workdir: of the run.
      latest: how many of the last states are kept. Runs that train together
        need two: a process may be killed when only some have saved.
      keep: steps whose checkpoints stay, beside the last and the best.
    """
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(latest),
        checkpoint_managers.BestN(
          get_metric_fn=lambda metrics: metrics[METRIC],
          n=1,
          keep_checkpoints_without_metrics=False,
        ),
        checkpoint_managers.CustomSteps(tuple(keep)),
      ]
    )
    self._manager = ocp.CheckpointManager(
      (Path(workdir) / FOLDER).absolute(),
      options=ocp.CheckpointManagerOptions(
        best_fn=lambda metrics: metrics[METRIC],  # Without it, none is kept.
        preservation_policy=policy,
        cleanup_tmp_directories=True,
      ),
    )
    self._latest, self._keep = latest, frozenset(keep)
    best = self._best_saved()
    self._best = 0.0 if best is None else best[0]
    self._time = time.monotonic() - EVERY

  def wanted(self, state: TrainState, val: dict[str, float] | None) -> bool:
    """Whether a state at the end of an epoch is worth writing.

    One of several runs that train together writes all: they resume from a step
    that all of them have.
    """
    best = val is not None and val[METRIC] >= self._best
    due = time.monotonic() - self._time >= EVERY
    return best or due or self._latest > 1 or int(state.step) in self._keep

  def save(self, state: TrainState, val: dict[str, float] | None) -> None:
    """Writes the state in the background; ``val`` are its metrics on val.

    A checkpoint without metrics (in mid-epoch) is kept as the last only.
    """
    step = int(state.step)
    if step in self._manager.all_steps():
      return
    metrics = None if val is None else {METRIC: float(val[METRIC])}
    self._best = max(self._best, (metrics or {METRIC: 0.0})[METRIC])
    self._time = time.monotonic()
    args = ocp.args.StandardSave(state)
    # A run may have gone back to a step before its last, see ``latest``.
    late = step < (self.last() or 0)
    self._manager.save(step, args=args, metrics=metrics, force=late)

  def steps(self) -> list[int]:
    """Steps of all checkpoints that are there, ascending."""
    return sorted(self._manager.all_steps())

  def last(self) -> int | None:
    """Step of the last checkpoint, ``None`` before the first."""
    return self._manager.latest_step()

  def best(self) -> int | None:
    """Step of the best on val, the later one of equals."""
    best = self._best_saved()
    return None if best is None else best[1]

  def _best_saved(self) -> tuple[float, int] | None:
    """Score and step."""
    self._manager.wait_until_finished()  # Metrics are read from the disk.
    scores = []
    for step in self._manager.all_steps():
      metrics = self._manager.metrics(step)
      if metrics:
        scores.append((metrics[METRIC], step))
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
      raise ValueError(
        f"checkpoint {step} in {self._manager.directory} does not fit the "
        f"configured model: {error}"
      ) from error

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()
