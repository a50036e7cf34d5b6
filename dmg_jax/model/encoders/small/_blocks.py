"""Time in blocks of a few steps, so that padding has no influence to the bit.

The order in which a compiler adds numbers, and whether it rounds a product that
it adds, depend on the shapes of what it compiles. Batches are padded to one of
several lengths T. Whatever mixes or projects steps therefore runs inside a loop
over blocks whose shapes do not depend on T, and sums go from block to block: a
block of padding adds exact zeros at the end of a sum, in the derivative, which
runs backwards, at its beginning.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

BLOCK = 8  # Steps; buckets are multiples of it.
Weights = dict[str, Any]


def split(
  x: Shaped[Array, "b t ..."], size: int = BLOCK
) -> Shaped[Array, "n b size ..."]:
  """Blocks of ``size`` steps, the last ones padded with zeros.

  There are two at least: a loop of one turn is compiled as no loop.
  """
  count = max(-(-x.shape[1] // size), 2)
  pads = [(0, 0)] * x.ndim
  pads[1] = (0, count * size - x.shape[1])
  x = jnp.pad(x, pads).reshape(x.shape[0], count, size, *x.shape[2:])
  return jnp.moveaxis(x, 1, 0)


def join(x: Shaped[Array, "n b s ..."]) -> Shaped[Array, "b t ..."]:
  """The reverse of ``split``, with the padding."""
  x = jnp.moveaxis(x, 0, 1)
  return x.reshape(x.shape[0], -1, *x.shape[3:])


def product(
  x: Float[Array, "... d"], kernel: Any, dtype: Any = None
) -> Float[Array, "... k"]:
  """``x W``, computed in ``dtype`` if one is given, in the dtype of ``x``."""
  if dtype is None:
    return x @ kernel
  return (x.astype(dtype) @ kernel.astype(dtype)).astype(x.dtype)


def affine(
  x: Float[Array, "... d"], kernel: Any, bias: Any, dtype: Any = None
) -> Float[Array, "... k"]:
  """``x W + b`` with W [d k] and b [k], arrays of jax or NumPy."""
  return product(x, kernel, dtype) + jnp.expand_dims(
    bias, tuple(range(x.ndim - 1))
  )


def total(
  x: Float[Array, "n b s d"], mask: Bool[Array, "n b s"]
) -> Float[Array, "b d"]:
  """Sum over the steps in ``mask``."""

  def add(sofar, block):
    values, real = block
    return sofar + jnp.where(real[..., None], values, 0).sum(axis=1), None

  zeros = jnp.zeros((x.shape[1], x.shape[-1]), x.dtype)
  return lax.scan(add, zeros, (x, mask))[0]


def mean(
  x: Float[Array, "n b s d"], mask: Bool[Array, "n b s"]
) -> Float[Array, "b d"]:
  """Mean over the steps in ``mask``; zero if there are none."""
  steps = jnp.maximum(mask.sum(axis=(0, 2)), 1)
  return total(x, mask) / steps[:, None].astype(x.dtype)


def dropped(
  x: Float[Array, "b s d"],
  key: Key[Array, ""] | None,
  block: Int[Array, ""],
  rate: float,
) -> Float[Array, "b s d"]:
  """Dropout in a block, drawn from the key and the number of the block."""
  if key is None:
    return x
  own = jax.random.fold_in(key, block)
  keep = jax.random.bernoulli(own, 1 - rate, x.shape)
  return jnp.where(keep, x / (1 - rate), 0)


def drop(
  x: Float[Array, "n b s d"], key: Key[Array, ""] | None, rate: float
) -> Float[Array, "n b s d"]:
  """Dropout in all blocks."""
  if key is None:
    return x
  each = jnp.arange(x.shape[0])
  return lax.map(lambda at: dropped(at[0], key, at[1], rate), (x, each))
