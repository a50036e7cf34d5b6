r"""Pictures as tokens: patches, their positions, pixels to numbers.

Position embeddings of a grid of another size are interpolated by cubic
convolution along each axis, as torch's ``bicubic``. Without antialiasing,
output i of n lies at :math:`u = (i + ½)\,m/n - ½` among the m inputs, and the
weight of the input at distance t is

.. math:: (a + 2)|t|^3 - (a + 3)|t|^2 + 1 \quad(|t| ≤ 1),\qquad
          a|t|^3 - 5a|t|^2 + 8a|t| - 4a \quad(1 < |t| < 2),

with a = -¾; inputs beyond the edge are those at the edge. With antialiasing,
a = -½, distances are divided by m/n where that is more than 1, and the weights
of the inputs that there are are scaled to the sum 1.

Reference: Keys, "Cubic convolution interpolation for digital image processing",
IEEE Trans. ASSP 29, 1981.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dmg_jax.errors import InputError


def normalised(
  x: Array, mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "... c"]:
  """uint8 x as (x/255 - mean)/std per channel; floats as they are.

  If the channels are not as many as ``mean``, (x/255 - ½)/½.
  """
  if jnp.issubdtype(x.dtype, jnp.floating):
    return x
  channels = x.shape[-1]
  if len(mean) != channels or len(std) != channels:
    mean, std = (0.5,) * channels, (0.5,) * channels
  shape = (1,) * (x.ndim - 1) + (channels,)
  m, s = (jnp.array(v, jnp.float32).reshape(shape) for v in (mean, std))
  return (x.astype(jnp.float32) / 255 - m) / s


def convolution(
  width: int,
  size: tuple[int, int],
  strides: tuple[int, int],
  dtype: str,
  name: str = "patch_embedding",
) -> nn.Conv:
  """The linear layer of patches; what is left at the edges is not read."""
  return nn.Conv(
    width,
    size,
    strides,
    "VALID",
    dtype=dtype,
    kernel_init=nn.initializers.normal(0.02),
    name=name,
  )


def positions(
  table: Float[Array, "n d"],
  old: tuple[int, int],
  new: tuple[int, int],
  antialias: bool = False,
) -> Float[Array, "m d"]:
  """Embeddings of an ``old`` grid of patches, row by row, for a ``new`` one.

  Raises:
    ValueError: the new grid has no patches.
  """
  if old == new:
    return table
  if min(new) < 1:
    raise InputError(
      f"pictures make {new[0]} × {new[1]} patches: make them larger than a "
      "patch (the data's image_size)"
    )
  grid = table.reshape(*old, table.shape[-1])
  for axis in (0, 1):
    weights = _cubic(old[axis], new[axis], antialias)
    weights = jnp.asarray(weights, table.dtype)
    grid = jnp.moveaxis(
      jnp.tensordot(weights, jnp.moveaxis(grid, axis, 0), 1), 0, axis
    )
  return grid.reshape(-1, table.shape[-1])


def _cubic(old: int, new: int, antialias: bool) -> np.ndarray:
  """Weights [new old] of the interpolation along an axis."""
  at = (np.arange(new) + 0.5) * old / new - 0.5
  if antialias:
    wide = max(old / new, 1.0)
    weights = _kernel((at[:, None] - np.arange(old)) / wide, -0.5)
    return weights / weights.sum(axis=1, keepdims=True)
  near = np.floor(at).astype(int)
  weights = np.zeros((new, old))
  for offset in (-1, 0, 1, 2):
    columns = np.clip(near + offset, 0, old - 1)
    added = _kernel(at - near - offset, -0.75)
    np.add.at(weights, (np.arange(new), columns), added)
  return weights


def _kernel(distance: np.ndarray, a: float) -> np.ndarray:
  t = np.abs(distance)
  inner = (a + 2) * t**3 - (a + 3) * t**2 + 1
  outer = a * (t**3 - 5 * t**2 + 8 * t - 4)
  return np.where(t <= 1, inner, np.where(t < 2, outer, 0))
