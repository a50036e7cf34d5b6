"""The compiled steps of runs that differ only in their seeds.

One run at a time, or several in one step: ``jax.vmap`` over an axis of
replicas in front of every array of their states.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax.bilevel import loops
from dmg_jax.evaluation import contributions
from dmg_jax.evaluation.metrics import (
  Evaluation,
  evaluate,
  evaluate_several,
  make_eval_step,
)
from dmg_jax.training import sharding, steps
from dmg_jax.training.experiment import Setup
from dmg_jax.training.inputs import accumulate
from dmg_jax.types import Batch, Problem, TrainState


class Programs:
  """The compiled steps of ``count`` runs at once.

  ``pack`` joins the states of all runs into one and ``unpack`` separates them;
  with a single run both leave its state as it is.

  Args:
    setup: of any of the runs.
    count: how many run at once.

  Attributes:
    problem: what the steps are compiled for.
  """

  def __init__(self, setup: Setup, count: int = 1):
    self.problem, method = setup.problem, setup.method
    self.count, several = count, count > 1
    self._mesh, self._how = setup.mesh, setup.config.sharding
    whole = sharding.gathered(self.problem, setup.mesh, self._how)
    problem = in_parts(whole, setup)
    self._place = sharding.make_place(setup.mesh, int(several))
    objective: Any = {
      "weights": setup.class_weights,
      "modality_dropout": setup.config.train.modality_dropout,
      "keep": functools.partial(
        sharding.keep, mesh=setup.mesh, how=self._how, several=several
      ),
    }
    self.train = steps.make_train_step(
      problem, method, setup.apply, several, **objective
    )
    self.per_call, self._steps = setup.config.train.steps_per_execution, None
    if self.per_call > 1:
      self._steps = steps.make_train_steps(self.train, self.per_call)
      self._place_all = sharding.make_place(setup.mesh, int(several) + 1)
    self.outer = None
    if method.outer_step is not None:
      parts = loops.separate(setup.trained)
      self.outer = steps.make_outer_step(
        problem, method, parts, several, **objective
      )
      # Of a batch on the devices; ``several`` runs have one process.
      self.inner = sharding.make_part(setup.mesh, setup.inner_batch_size)
    self.eval = make_eval_step(whole, method, several)
    self._subsets = contributions.make_step(whole, method, several)

  def seeds(self, setups: Sequence[Setup]) -> Any:
    """The runs' seeds, as the steps take them."""
    seeds = np.array([s.config.seed for s in setups], np.int32)
    return seeds if self.count > 1 else seeds[0]

  def pack(self, states: Sequence[TrainState]) -> TrainState:
    """The runs' states as one; they are not to be used any more."""
    if self.count == 1:
      return states[0]
    return sharding.put(self._mesh, _stack(*states), self._how, several=True)

  def like(self, states: Sequence[TrainState]) -> TrainState:
    """What ``pack`` makes, or its shapes: to trace steps with."""
    # A single state as it is: the first step then finds its own trace.
    return jax.eval_shape(_stack, *states) if self.count > 1 else states[0]

  def unpack(self, state: TrainState) -> list[TrainState]:
    """The states of the runs."""
    if self.count == 1:
      return [state]
    return [
      sharding.put(self._mesh, one, self._how)
      for one in _rows(state, self.count)
    ]

  def place(self, batches: Sequence[Batch]) -> Batch:
    """The runs' batches as one, on the devices."""
    return self._place(self._joined(batches))

  def _joined(self, batches: Sequence[Batch]) -> Batch:
    if self.count == 1:
      return batches[0]
    return jax.tree.map(_together, *batches)

  def advance(
    self, state: TrainState, batches: Sequence[Sequence[Batch]], seeds: Any
  ) -> tuple[TrainState, Mapping[str, Any]]:
    """Trains for some steps, in one call of the device.

    Args:
      state: of all runs; donated.
      batches: for each step, at most ``per_call``, the runs' batches.
      seeds: as ``seeds`` makes them.

    Returns:
      The state, and metrics for ``scalars_of``.
    """
    if self._steps is None:
      (own,) = batches
      return self.train(state, self.place(own), seeds)
    count, size = np.int32(len(batches)), self.per_call
    # Those behind are not looked at.
    filled = [*batches, *[batches[-1]] * (size - len(batches))]
    joined = jax.tree.map(_together, *[self._joined(own) for own in filled])
    return self._steps(state, self._place_all(joined), count, seeds)

  def scalars_of(
    self, metrics: Mapping[str, Any], count: int
  ) -> list[list[dict[str, float]]]:
    """For each of ``count`` steps of ``advance``, each run's metrics."""
    if self._steps is None:
      return [self.scalars(metrics)]
    found = jax.device_get(metrics)
    return [
      self.scalars({k: v[i] for k, v in found.items()}) for i in range(count)
    ]

  def scalars(self, metrics: Mapping[str, Any]) -> list[dict[str, float]]:
    """Each run's metrics, on the host."""
    found = jax.device_get(metrics)
    if self.count == 1:
      return [{k: float(v) for k, v in found.items()}]
    return [
      {k: float(v[i]) for k, v in found.items()} for i in range(self.count)
    ]

  def evaluate(
    self, state: TrainState, batches: Iterable[Batch]
  ) -> list[Evaluation]:
    """All metrics of each run on the same batches."""
    if self.count == 1:
      return [evaluate(self.eval, state, batches)]
    return evaluate_several(self.eval, state, batches, self.count)

  def evaluate_with_shares(
    self, state: TrainState, batches: Iterable[Batch], guess: int
  ) -> tuple[list[Evaluation], list[dict[str, Any]]]:
    """``evaluate``, and what each modality contributes, from the same pass.

    ``guess`` is the most frequent class of train.
    """
    names = self.problem.modalities
    watch = contributions.Watch(self._subsets, state, names, guess)
    found = self.evaluate(state, watch.through(batches))
    seen = watch.outcomes()
    right = seen.right if self.count > 1 else seen.right[None]
    return found, [
      contributions.measures(seen._replace(right=own), names) for own in right
    ]


def in_parts(problem: Problem, setup: Setup) -> Problem:
  """The problem as steps of training see it, see ``accumulate``."""
  parts = setup.config.train.accumulate
  if parts == 1:
    return problem
  return accumulate.in_parts(problem, setup.batch_size // parts)


def _together(*x: Any) -> Any:
  """Arrays of the host stacked there, those of a device there."""
  return (jnp if isinstance(x[0], jax.Array) else np).stack(x)


@jax.jit
def _stack(*states: TrainState) -> TrainState:
  return jax.tree.map(lambda *x: jnp.stack(x), *states)


@functools.partial(jax.jit, static_argnums=1)
def _rows(state: TrainState, count: int) -> list[TrainState]:
  return [jax.tree.map(lambda x: x[i], state) for i in range(count)]  # noqa: B023
