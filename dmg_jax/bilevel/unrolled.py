"""Hypergradients without an inverse: differentiate the training steps.

An *update* is any pure function ``(state, hyper) -> state``, one step of any
optimiser; with fresh data ``(state, hyper, batch) -> state``. The state is any
pytree: float leaves carry derivatives, the others (step counters, keys) do not.
A tangent is a pytree like the state with ``d leaf / d hyper`` in the float
leaves and zeros in the others, so that it can be carried through ``jit`` and
loops, and saved, like the state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from dmg_jax.bilevel import loops
from dmg_jax.bilevel.curvature import Inner, batch_count, pick_batch
from dmg_jax.errors import InputError

State = Any
Update = Callable[..., State]
Outer = Callable[[PyTree, PyTree], Float[Array, ""]]


class Iterate(NamedTuple):
  """Parameters and the state of their optax optimiser; also their tangent."""

  params: PyTree
  opt_state: PyTree


Tangent = Iterate


def optax_update(
  inner: Inner, optimizer: optax.GradientTransformation
) -> Update:
  """One step of an optax optimiser on ``inner`` as an update of an Iterate.

  .. math:: (θ, s) ← step(θ, s, ∇_θ inner(θ, hyper))

  Args:
    inner: ``(params, hyper) -> scalar``, or ``(params, hyper, batch)``.
    optimizer: any optax transformation.

  Returns:
    ``(iterate, hyper, *batch) -> iterate``; start from
    ``Iterate(params, optimizer.init(params))``.
  """

  def update(state: Iterate, hyper: PyTree, *batch: Any) -> Iterate:
    grads = jax.grad(inner)(state.params, hyper, *batch)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return Iterate(optax.apply_updates(state.params, updates), opt_state)

  return update


def _is_float(leaf: Any) -> bool:
  return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def zero_tangent(state: State) -> State:
  """The tangent of a state that does not depend on the hyper-parameters."""

  def leaf(x: Any) -> Array:
    return jnp.zeros(jnp.shape(x), x.dtype if _is_float(x) else jnp.int8)

  return jax.tree.map(leaf, jax.tree.map(jnp.asarray, state))


def tangent_step(
  update: Update,
  state: State,
  tangent: State,
  hyper: PyTree,
  hyper_tangent: PyTree,
  *batch: Any,
) -> tuple[State, State]:
  r"""One update and its derivative along ``hyper_tangent``, in a single pass.

  .. math::
    Z' = \frac{∂ update}{∂ state} Z + \frac{∂ update}{∂ hyper} \, t

  Costs about one Hessian-vector product and holds one more copy of the state,
  however many steps are taken.

  Args:
    update: ``(state, hyper, *batch) -> state``.
    state: any pytree.
    tangent: ``Z``, from :func:`zero_tangent` or the last call.
    hyper: pytree of floats.
    hyper_tangent: ``t``, like ``hyper``: 1 for a scalar.
    *batch: passed on; carries no derivative.

  Returns:
    The new state and the new tangent.

  Reference: Franceschi, Donini, Frasconi and Pontil, Forward and Reverse
    Gradient-Based Hyperparameter Optimization, ICML 2017, §3.2.
  """
  state = jax.tree.map(jnp.asarray, state)
  hyper = jax.tree.map(jnp.asarray, hyper)

  def inward(x: Array, t: Any) -> Any:
    if _is_float(x):
      return jnp.asarray(t, x.dtype)
    return np.zeros(x.shape, jax.dtypes.float0)

  def outward(x: Array, t: Any) -> Array:
    return t if _is_float(x) else jnp.zeros(x.shape, jnp.int8)

  state, tangent = jax.jvp(
    lambda s, h: update(s, h, *batch),
    (state, hyper),
    (
      jax.tree.map(inward, state, tangent),
      jax.tree.map(inward, hyper, hyper_tangent),
    ),
  )
  return state, jax.tree.map(outward, state, tangent)


def params_of(state: State) -> PyTree:
  """What the outer loss reads: an Iterate's parameters, else the state."""
  return state.params if isinstance(state, Iterate) else state


def _batch_of(batches: PyTree | None, i: Any) -> tuple[Any, ...]:
  return () if batches is None else (pick_batch(batches, i),)


def _check_steps(steps: int, batches: PyTree | None) -> None:
  if steps < 0:
    raise InputError(f"steps={steps}: must not be negative")
  if batches is not None and batch_count(batches) < steps:
    raise InputError(
      f"batches holds {batch_count(batches)} batches for steps={steps}; stack "
      "one for each step"
    )


def forward_unroll(
  update: Update,
  outer: Outer,
  state: State,
  hyper: PyTree,
  steps: int,
  *,
  batches: PyTree | None = None,
  tangent: State | None = None,
  unroll: bool | None = False,
) -> tuple[PyTree, State]:
  r"""Exact hypergradient through ``steps`` updates, in forward mode.

  .. math::
    value = \frac{∂ outer}{∂ hyper} + ∇_θ outer · \frac{dθ_T}{d hyper}

  One tangent for each entry of ``hyper``, all pushed at once: natural for a
  scalar and a handful; memory does not grow with ``steps``.

  Args:
    update: ``(state, hyper) -> state``, or ``(state, hyper, batch)``.
    outer: ``(params, hyper) -> scalar``; see :func:`params_of`.
    state: where to start; does not depend on ``hyper`` unless ``tangent`` says.
    hyper: pytree of floats.
    steps: T.
    batches: one batch for each step, stacked on a leading axis.
    tangent: of ``state``, stacked over the entries of ``hyper``.
    unroll: whether the loop is unrolled at compile time.

  Returns:
    The hypergradient, like ``hyper``, and the final state.

  Raises:
    ValueError: ``steps`` is negative or there are too few batches.

  Reference: Franceschi et al., ICML 2017, §3.2.
  """
  _check_steps(steps, batches)
  hyper = jax.tree.map(jnp.asarray, hyper)
  state = jax.tree.map(jnp.asarray, state)
  flat, restore = ravel_pytree(hyper)
  basis = jax.vmap(restore)(jnp.eye(flat.size, dtype=flat.dtype))
  if tangent is None:
    tangent = jax.tree.map(
      lambda t: jnp.broadcast_to(t, (flat.size, *t.shape)), zero_tangent(state)
    )

  def body(carry: tuple[State, State], i: Any) -> tuple[State, State]:
    return tangent_steps(update, *carry, hyper, basis, *_batch_of(batches, i))

  state, tangent = loops.repeat(body, (state, tangent), steps, unroll)

  def final(z: State, t: PyTree) -> Array:
    def evaluate(s: State, h: PyTree) -> Array:
      return outer(params_of(s), h)

    return tangent_step(evaluate, state, z, hyper, t)[1]

  return restore(jax.vmap(final)(tangent, basis)), state


def tangent_steps(
  update: Update,
  state: State,
  tangents: State,
  hyper: PyTree,
  basis: PyTree,
  *batch: Any,
) -> tuple[State, State]:
  """``tangent_step`` for several tangents at once, which share its pass.

  Args:
    update: as for ``tangent_step``.
    state: likewise.
    tangents: stacked on a leading axis, one for each direction.
    hyper: as for ``tangent_step``.
    basis: the directions, like ``hyper``, stacked likewise.
    *batch: as for ``tangent_step``.

  Returns:
    The new state and the new tangents.
  """
  # A single one is not batched: vmap turns convolutions with batched kernels
  # into slow grouped ones.

  def one(z: State, t: PyTree) -> tuple[State, State]:
    return tangent_step(update, state, z, hyper, t, *batch)

  if jax.tree.leaves(basis)[0].shape[0] == 1:
    first = jax.tree.map(lambda x: x[0], (tangents, basis))
    state, tangent = one(*first)
    return state, jax.tree.map(lambda x: x[None], tangent)
  return jax.vmap(one, out_axes=(None, 0))(tangents, basis)


def reverse_unroll(
  update: Update,
  outer: Outer,
  state: State,
  hyper: PyTree,
  steps: int,
  *,
  truncate: int | None = None,
  batches: PyTree | None = None,
  checkpoint: bool = False,
  unroll: bool | None = False,
) -> tuple[PyTree, State]:
  r"""Exact hypergradient through ``steps`` updates, in reverse mode.

  .. math:: value = \frac{d}{d hyper} outer(θ_T(hyper), hyper)

  One reverse pass for any number of hyper-parameters; memory grows with the
  number of steps that are differentiated.

  Args:
    update: ``(state, hyper) -> state``, or ``(state, hyper, batch)``.
    outer: ``(params, hyper) -> scalar``; see :func:`params_of`.
    state: where to start.
    hyper: pytree of floats.
    steps: T.
    truncate: differentiate through the last so many steps only (all: None).
    batches: one batch for each step, stacked on a leading axis.
    checkpoint: keep only the states and recompute each step's inside.
    unroll: whether the loop is unrolled at compile time.

  Returns:
    The hypergradient, like ``hyper``, and the final state.

  Raises:
    ValueError: ``steps`` or ``truncate`` is negative, or too few batches.

  Reference: Maclaurin, Duvenaud and Adams, ICML 2015; truncated: Shaban, Cheng,
    Hatch and Boots, Truncated Back-propagation for Bilevel Optimization,
    AISTATS 2019.
  """
  _check_steps(steps, batches)
  if truncate is not None and truncate < 0:
    raise InputError(f"truncate={truncate}: must not be negative, or None")
  tail = steps if truncate is None else min(truncate, steps)
  hyper = jax.tree.map(jnp.asarray, hyper)
  state = jax.tree.map(jnp.asarray, state)

  def step(h: PyTree, s: State, i: Any) -> State:
    return update(s, h, *_batch_of(batches, i))

  head = steps - tail
  state = loops.repeat(lambda s, i: step(hyper, s, i), state, head, unroll)
  inside = jax.checkpoint(step) if checkpoint else step

  def objective(h: PyTree) -> tuple[Array, State]:
    end = loops.repeat(lambda s, i: inside(h, s, i + head), state, tail, unroll)
    return outer(params_of(end), h), end

  return jax.grad(objective, has_aux=True)(hyper)
