"""Adapters that build a method from a loss or from a gradient modulation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dmg_jax.errors import InputError
from dmg_jax.types import (
  Batch,
  Method,
  Metrics,
  Outputs,
  Params,
  Problem,
  TrainState,
)

Loss = Callable[[Outputs, Batch, Any], tuple[jax.Array, Metrics]]
Modulate = Callable[..., tuple[Params, Any, Metrics]]


def from_loss(loss: Loss, **hooks: Any) -> Method:
  """A method that only changes the loss.

  Args:
    loss: ``(outputs, batch, method_state) -> (scalar, {term: scalar})``.
    hooks: other fields of ``Method``.
  """
  return from_modulation(loss, _identity, **hooks)


def from_modulation(loss: Loss, modulate: Modulate, **hooks: Any) -> Method:
  """A method that changes the gradient before it reaches the optimiser.

  Args:
    loss: as in ``from_loss``.
    modulate: ``(problem, grads, outputs, batch, method_state, key) -> (grads,
      method_state, {metric: scalar})``.
    hooks: other fields of ``Method``.
  """

  def step(problem, state, batch, key, apply):
    def total(outputs, params):
      del params
      return loss(outputs, batch, state.method)

    done = differentiate(total, problem, state, batch, key)
    grads, mstate, extra = modulate(
      problem, done.grads, done.outputs, batch, state.method, own_key(key)
    )
    state = apply(done.state.replace(method=mstate), grads)
    return state, {**done.metrics, **extra}

  return Method(step=step, **hooks)


class Pass(NamedTuple):
  """Results of a forward and backward pass in training mode.

  Attributes:
    outputs: outputs of the forward pass.
    grads: gradient of the loss, a pytree like the weights.
    metrics: ``{"loss": value, **terms}``.
    state: the state with updated BatchNorm statistics.
  """

  outputs: Outputs
  grads: Params
  metrics: dict[str, jax.Array]
  state: TrainState


def differentiate(
  loss: Callable[..., tuple[Any, Any]],
  problem: Problem,
  state: TrainState,
  batch: Batch,
  key: Any,
) -> Pass:
  """One forward and backward pass in training mode.

  Args:
    loss: ``(outputs, params) -> (scalar, {term: scalar})``; ``params`` allows
      the loss to run further forward passes.
    problem, state, batch: as in ``Method.step``.
    key: random key of the step. All methods draw their dropout masks from the
      same half of it, so that equivalent methods agree bit for bit; the other
      half is ``own_key``.
  """
  k_forward, _ = jax.random.split(key)

  def total(params):
    outputs, stats = problem.run(params, state.stats, batch, k_forward, True)
    value, terms = loss(outputs, params)
    return value, (outputs, stats, terms)

  (value, (outputs, stats, terms)), grads = jax.value_and_grad(
    total, has_aux=True
  )(state.params)
  metrics = {"loss": value, **terms}
  return Pass(outputs, grads, metrics, state.replace(stats=stats))


def own_key(key: Any) -> Any:
  """The half of a step's key that is reserved for the method's own use."""
  return jax.random.split(key)[1]


def _identity(problem: Problem, grads, outputs, batch, mstate, key):
  del problem, outputs, batch, key
  return grads, mstate, {}


def check_range(name: str, value: float, low: float, high: float) -> float:
  """``value`` as a float, or a ``ValueError`` that states the valid range."""
  if not isinstance(value, int | float) or isinstance(value, bool):
    raise InputError(f"{name} must be a number, got {value!r}")
  if not low <= value <= high:
    raise InputError(f"{name} must lie in [{low:g}, {high:g}], got {value:g}")
  return float(value)


def scalar(value: float) -> jax.Array:
  """A float32 scalar, for method states with fixed dtypes."""
  return jnp.asarray(value, jnp.float32)
