"""The outer level of methods that learn any number of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dmg_jax import trees
from dmg_jax.bilevel import (
  HypergradientInfo,
  Identity,
  Iterate,
  Solver,
  Status,
  hypergradient,
  loops,
  tangent_steps,
  zero_tangent,
)
from dmg_jax.methods.lb import heldout_loss
from dmg_jax.types import Apply, Batch, Problem, TrainState

# ``(outputs, params, batch, hyper) -> (scalar, terms)``
Total = Callable[..., tuple[Any, Any]]


def implicit(
  problem: Problem,
  total: Total,
  solver: Solver,
  damping: float,
  state: TrainState,
  hyper: Any,
  inner: Batch,
  outer: Batch,
  key: Any,
) -> tuple[Any, HypergradientInfo]:
  """The hypergradient of the held-out loss, by one solve; NaN if it broke."""
  separate = loops.separate(trees.size(state.params))

  def inner_loss(params, hyper):
    outputs, _ = problem.run(params, state.stats, inner, key, True)
    return total(outputs, params, inner, hyper)[0]

  def outer_loss(params, hyper):
    del hyper
    at_once = inner.labels.size
    return heldout_loss(problem, params, state.stats, outer, at_once, separate)

  gradient, info = hypergradient(
    inner_loss,
    outer_loss,
    state.params,
    hyper,
    solver,
    damping=damping,
    separate=separate,
  )
  # Zero if a product was not finite: NaN instead, so that nothing moves.
  broken = info.status == Status.NONFINITE
  return jax.tree.map(lambda g: jnp.where(broken, jnp.nan, g), gradient), info


def told(info: HypergradientInfo, solver: Solver) -> dict[str, Any]:
  """Diagnostics of a solve, as metrics."""
  names = ("lambda_max", "curvature", "cosine", "status", "residual")
  found = {name: getattr(info, name) for name in names}
  if isinstance(solver, Identity):  # It makes no product: not known.
    del found["residual"]
  return found


def tangents(state: TrainState, hyper: Any) -> Any:
  """Zero tangents of weights and optimiser, one for each hyper-parameter."""
  count = len(jax.tree.leaves(hyper))
  zero = zero_tangent(Iterate(state.params, state.opt_state))
  return jax.tree.map(lambda t: jnp.zeros((count, *t.shape), t.dtype), zero)


def step_with_tangents(
  problem: Problem,
  total: Total,
  state: TrainState,
  tangents: Any,
  hyper: Any,
  batch: Batch,
  key: Any,
  apply: Apply,
) -> tuple[TrainState, Any, dict[str, Any]]:
  """One step of θ, its tangents carried along: state, tangents, metrics."""
  k_forward, _ = jax.random.split(key)
  leaves, structure = jax.tree.flatten(hyper)

  def loss(params, leaves):
    outputs, stats = problem.run(params, state.stats, batch, k_forward, True)
    hyper = jax.tree.unflatten(structure, leaves)
    value, terms = total(outputs, params, batch, hyper)
    return value, (stats, {"loss": value, **terms})

  def update(iterate, leaves):
    grads, aux = jax.grad(loss, has_aux=True)(iterate.params, leaves)
    here = state.replace(params=iterate.params, opt_state=iterate.opt_state)
    new = apply(here, grads)
    return Iterate(new.params, new.opt_state), aux

  basis = jax.tree.map(
    lambda row, x: row.astype(x.dtype), [*jnp.eye(len(leaves))], leaves
  )
  now = Iterate(state.params, state.opt_state)
  (new, (stats, metrics)), (tangents, _) = tangent_steps(
    update, now, tangents, leaves, basis
  )
  state = state.replace(params=new.params, opt_state=new.opt_state, stats=stats)
  return state, tangents, metrics


def along(
  problem: Problem, state: TrainState, tangents: Any, hyper: Any, outer: Batch,
  at_once: int,
) -> Any:  # fmt: skip
  """``⟨∇ held-out loss, dθ/dh⟩`` for each hyper-parameter h, like ``hyper``."""
  separate = loops.separate(trees.size(state.params))
  slope = jax.grad(
    lambda params: heldout_loss(
      problem, params, state.stats, outer, at_once, separate
    )
  )(state.params)
  each = jax.vmap(lambda t: trees.vdot(slope, t))(tangents.params)
  structure = jax.tree.structure(hyper)
  return jax.tree.unflatten(structure, list(each))
