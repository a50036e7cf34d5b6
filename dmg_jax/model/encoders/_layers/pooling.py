"""Max pooling by selection.

A windowed maximum (``flax.linen.max_pool``) has a derivative that scatters, and
on a CPU that costs more than the convolution before it. The larger of a few
shifted views, along one axis and then the other, is the same number with the
same derivative: in a tie the first entry of a window in row-major order
receives the whole gradient. Views are slices and reshapes, so every order of
differentiation, ``vmap`` and export work as for any other operation.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def larger(a: Array, b: Array) -> Array:
  """Entries of the larger; the first in a tie, and NaN if one is NaN."""
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


def max_pool_pairs(
  x: Float[Array, "b h w c"], axis: int
) -> Float[Array, "b ..."]:
  """The larger of each pair of neighbours along ``axis``; an odd one stays.

  Applied along two axes in turn, it equals ``flax.linen.max_pool`` with windows
  and strides of 2 and padding ``SAME``, derivatives included.
  """
  pads = [(0, 0)] * x.ndim
  pads[axis] = (0, x.shape[axis] % 2)
  x = jnp.pad(x, pads, constant_values=-jnp.inf)
  a = lax.slice_in_dim(x, 0, None, 2, axis)
  b = lax.slice_in_dim(x, 1, None, 2, axis)
  return larger(a, b)


def max_pool_threes(x: Float[Array, "b h w c"]) -> Float[Array, "b ..."]:
  """Windows of 3×3, strides of 2, one line of -∞ at each edge.

  Equals ``flax.linen.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))``,
  derivatives included.
  """
  return _threes(_threes(x, 2), 1)


def _threes(x: Array, axis: int) -> Array:
  """The largest of entries 2i-1, 2i and 2i+1 along an axis, for all i."""
  n = x.shape[axis]
  pads = [(0, 0)] * x.ndim
  pads[axis] = (0, n % 2)
  x = jnp.pad(x, pads, constant_values=-jnp.inf)
  shape = (*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
  pairs = x.reshape(shape)
  even = lax.index_in_dim(pairs, 0, axis + 1, keepdims=False)
  odd = lax.index_in_dim(pairs, 1, axis + 1, keepdims=False)
  pads[axis] = (1, 0)
  before = jnp.pad(
    lax.slice_in_dim(odd, 0, -1, 1, axis), pads, constant_values=-jnp.inf
  )
  return larger(larger(before, even), odd)
