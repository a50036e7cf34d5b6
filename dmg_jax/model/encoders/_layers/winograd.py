r"""3×3 convolutions by Winograd's minimal filtering, for CPUs.

A tile of 2×2 results is

.. math:: A^\top \left[ (G k G^\top) \odot (B^\top d\, B) \right] A

of the 4×4 inputs d and the kernel k (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016, section 4.1), with

.. math:: B^\top = \begin{pmatrix} 1&0&-1&0\\ 0&1&1&0\\ 0&-1&1&0\\ 0&1&0&-1
  \end{pmatrix}, \quad G = \begin{pmatrix} 1&0&0\\ \frac12&\frac12&\frac12\\
  \frac12&-\frac12&\frac12\\ 0&0&1 \end{pmatrix}, \quad
  A^\top = \begin{pmatrix} 1&1&1&0\\ 0&1&-1&-1 \end{pmatrix}.

⊙ is a product of matrices [tiles, c] and [c, d] for each of the 16 entries: 16
multiplications for 4 results instead of 36. All derivatives are those of sums,
slices and products, so they save as much. Rounding errors are less than three
times those of the sum as it stands, on average (a test holds that).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Pads = tuple[tuple[int, int], tuple[int, int]]
Fours = tuple[Array, Array, Array, Array]


@functools.partial(jax.checkpoint, static_argnums=2)
def convolve(
  x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], pads: Pads
) -> Float[Array, "b oh ow d"]:
  """The convolution with stride 1.

  Its derivative transforms x again: the tiles are four times as large.

  Args:
    x: samples.
    kernel: as ``flax.linen.Conv`` has it.
    pads: lines of zeros (before, after) along height and width.
  """
  count, channels = x.shape[0], x.shape[3]
  height, width = (
    n + sum(p) - 2 for n, p in zip(x.shape[1:3], pads, strict=True)
  )
  down, across = -(-height // 2), -(-width // 2)
  # To an even number of lines.
  more = (height % 2, width % 2)
  fill = [(p[0], p[1] + m) for p, m in zip(pads, more, strict=True)]
  x = jnp.pad(x, ((0, 0), *fill, (0, 0)))
  # An axis of four in front: of the rows of a tile. Its columns are lists.
  tiles = [
    tile.reshape(4, -1, channels)
    for tile in _inputs(jnp.stack(_inputs(x, 1)), 3)
  ]
  weights = _weights(jnp.stack(_weights(kernel, 0)), 1)
  products = (
    lax.dot_general(tile, weight, (((2,), (1,)), ((0,), (0,))))
    for tile, weight in zip(tiles, weights, strict=True)
  )
  shape = count, down, across, -1
  columns = [
    [y.reshape(shape) for y in _outputs(*_unstacked(column))]
    for column in _outputs(*products)
  ]
  lines = [jnp.stack(pair, axis=3) for pair in zip(*columns, strict=True)]
  y = jnp.stack(lines, axis=2).reshape(count, 2 * down, 2 * across, -1)
  return y[:, :height, :width]


def _inputs(x: Array, axis: int) -> Fours:
  """Bᵀ along an axis of even length, for windows of four with stride 2."""
  last = x.shape[axis] // 2 - 1
  pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])

  def lines(start, odd):
    every = lax.index_in_dim(pairs, odd, axis + 1, keepdims=False)
    return lax.slice_in_dim(every, start, start + last, axis=axis)

  first, second, third, fourth = (
    lines(start, odd) for start in (0, 1) for odd in (0, 1)
  )
  return first - third, second + third, third - second, second - fourth


def _weights(kernel: Array, axis: int) -> Fours:
  """G along an axis of three."""
  first, middle, last = (
    lax.index_in_dim(kernel, i, axis, keepdims=False) for i in range(3)
  )
  outer, half = (first + last) / 2, middle / 2
  return first, outer + half, outer - half, last


def _outputs(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
  """Aᵀ of four arrays."""
  return a + b + c, b - c - d


def _unstacked(x: Array) -> list[Array]:
  """Along the first axis; ``split`` has a derivative that only joins."""
  return [part[0] for part in lax.split(x, (1,) * x.shape[0])]
