"""Vector algebra on pytrees, with sums kept in float32 or wider.

A pytree of floating-point arrays is treated as one long vector. Every function
keeps the structure, shapes and dtypes of its (last) tree argument. Scalar
results are float32, or float64 if a leaf is. Leaves are reduced one by one and
never flattened into one array, so sharded leaves stay sharded.

``zeros_like`` and ``random_like`` are those of optax.
"""

from __future__ import annotations

import functools
import operator

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

zeros_like = optax.tree.zeros_like
random_like = optax.tree.random_like


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
  """The dtype in which sums over values of ``dtype`` are kept."""
  return jnp.promote_types(dtype, jnp.float32)


def upcast(tree: PyTree) -> PyTree:
  """``tree`` with leaves of float32 or wider; Python scalars become arrays."""

  def leaf(x: ArrayLike) -> Array:
    return jnp.asarray(x, accumulator(jnp.result_type(x)))

  return jax.tree.map(leaf, tree)


def cast_like(tree: PyTree, like: PyTree) -> PyTree:
  """``tree`` with the dtypes of ``like``."""

  def leaf(x: ArrayLike, y: ArrayLike) -> Array:
    return jnp.asarray(x, jnp.result_type(y))

  return jax.tree.map(leaf, tree, like)


def vdot(x: PyTree, y: PyTree) -> Float[Array, ""]:
  """``⟨x, y⟩`` over all leaves, summed in float32 or wider."""

  def leaf(a: ArrayLike, b: ArrayLike) -> Array:
    dtype = accumulator(jnp.result_type(a, b))
    return jnp.sum(jnp.asarray(a, dtype) * jnp.asarray(b, dtype))

  parts = jax.tree.leaves(jax.tree.map(leaf, x, y))
  return functools.reduce(operator.add, parts, jnp.zeros((), jnp.float32))


def norm(x: PyTree) -> Float[Array, ""]:
  """``‖x‖₂`` over all leaves."""
  return jnp.sqrt(vdot(x, x))


def scale(a: ArrayLike, x: PyTree) -> PyTree:
  """``a·x`` in the dtypes of ``x``."""
  return jax.tree.map(lambda leaf: jnp.asarray(a, leaf.dtype) * leaf, x)


def axpy(a: ArrayLike, x: PyTree, y: PyTree) -> PyTree:
  """``a·x + y`` in the dtypes of ``y``."""

  def leaf(u: Array, v: Array) -> Array:
    return jnp.asarray(a, v.dtype) * u.astype(v.dtype) + v

  return jax.tree.map(leaf, x, y)


def select(which: Bool[Array, ""], x: PyTree, y: PyTree) -> PyTree:
  """``x`` if the scalar ``which`` is true, else ``y``, leaf by leaf."""
  return jax.tree.map(lambda u, v: jnp.where(which, u, v), x, y)


def safe_divide(
  a: Float[Array, ""], b: Float[Array, ""], otherwise: float = 0.0
) -> Float[Array, ""]:
  """``a / b``, and ``otherwise`` where ``b`` is zero."""
  zero = b == 0
  return jnp.where(zero, otherwise, a / jnp.where(zero, 1.0, b))


def unit(x: PyTree) -> PyTree:
  """``x / ‖x‖``; the zero vector stays zero."""
  length = norm(x)
  return scale(safe_divide(jnp.ones_like(length), length), x)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
  """Whether no leaf holds an infinity or a NaN."""
  parts = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
  return functools.reduce(operator.and_, parts, jnp.asarray(True))


def size(tree: PyTree) -> int:
  """Number of entries over all leaves."""
  return sum(jnp.size(leaf) for leaf in jax.tree.leaves(tree))
