"""Training steps whose update or gradient is scaled per modality."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax

from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import differentiate
from dmg_jax.types import (
  SHARED,
  Apply,
  Batch,
  Params,
  Problem,
  TrainState,
)


def own_scale(
  problem: Problem, factors: Mapping[str, Any], shared: Any = 1.0
) -> dict[str, Any]:
  """{owner: factor}; a modality's factor applies to encoder, head and gate."""
  owners = set(jax.tree.leaves(problem.owner))
  scale = {o: factors[o.partition("/")[0]] for o in owners - {SHARED}}
  return {**scale, SHARED: shared} if SHARED in owners else scale


def scaled(
  problem: Problem,
  grads: Params,
  factors: Mapping[str, Any],
  axes: Collection[int] = range(32),
) -> Params:
  """Gradients, those of the owners in ``factors`` times their factor.

  Args:
    problem: the model.
    grads: a pytree like the weights.
    factors: {owner: factor}.
    axes: numbers of axes of the tensors that are scaled.
  """

  def change(g, owner):
    if owner not in factors or g.ndim not in axes:
      return g
    return g * factors[owner].astype(g.dtype)

  return jax.tree.map(change, grads, problem.owner)


def plain_step(
  problem: Problem,
  state: TrainState,
  batch: Batch,
  key: Any,
  apply: Apply,
  scale: Mapping[str, Any],
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step on the fused cross-entropy, its update scaled by ``scale``."""

  def loss(outputs, params):
    del params
    value = _terms.cross_entropy(outputs.logits, batch)
    return value, {"cls": value}

  done = differentiate(loss, problem, state, batch, key)
  state = apply(done.state, done.grads, scale)
  rates = {f"rate_{o}": f for o, f in scale.items() if o in problem.modalities}
  return state, {**done.metrics, **rates}
