"""Training in phases, each with its own learning-rate schedule."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax.errors import InputError
from dmg_jax.types import Apply, TrainState


def since(apply: Apply, begin: jax.Array) -> Apply:
  """``apply`` with a learning-rate schedule that starts at step ``begin``."""

  def local(state: TrainState, grads, scale=None) -> TrainState:
    moved = apply(state.replace(step=state.step - begin), grads, scale)
    return moved.replace(step=state.step)

  return local


def count(value: int) -> jax.Array:
  """An int32 scalar, for method states with fixed dtypes."""
  return jnp.asarray(value, jnp.int32)


def epochs_or_same(name: str, value: int | None, epochs: int) -> int:
  """``value``, or ``epochs`` if it is ``None``.

  Raises:
    ValueError: ``value`` is negative.
  """
  if value is not None and value < 0:
    raise InputError(f"{name} must be at least 0, got {value}")
  return epochs if value is None else value
