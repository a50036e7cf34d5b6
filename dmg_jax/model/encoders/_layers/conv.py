r"""Convolutions of pictures, as matrix products where a CPU is faster so.

``Conv`` has the arguments, weights and result of ``flax.linen.Conv`` with two
axes of space. On a CPU, in float32, where ``as_product`` says so, it is

.. math:: y = P(x)\, K, \qquad P(x) [b\,h\,w,\; k\,k\,c]

with the kernel K as a matrix and P(x) the shifted views of x side by side. A
view is a slice, so that all derivatives, ``vmap`` and export follow from those
of slices and products. Elsewhere it is ``lax.conv_general_dilated``. Both are
the same sum in another order.

What is faster was measured with jax 0.10.2 on one core (AMD EPYC 9005), forward
and both gradients, milliseconds of the convolution and of the product:

============================================  =====  =======
1×1, stride 1, 1024 to 256 on 14², batch 32   143    58
1×1, stride 2, 64 to 128 on 56², batch 8      4.5    1.6
3×3, 3 to 32 on 24², batch 64                 4.4    2.3
3×3, 512 to 512 on 7², batch 8                34.8   26.7
3×3, stride 2, 256 to 512 on 14², batch 8     16.2   13.0
3×3, 256 to 256 on 14², batch 8               25.9   28.8
3×3, stride 2, 64 to 128 on 56², batch 8      17.7   19.6
3×3, 64 to 64 on 56², batch 8                 30     53
3×3, 32 to 64 on 12², batch 64                6.0    8.0
3×3, 1 to 16 on 64², batch 64                 17.7   21.1
7×7, stride 2, 3 to 64 on 224², batch 8       72.6   246
============================================  =====  =======

3 channels to 32 would be faster as a product, too: a twentieth of a step of the
default pictures' network. It stays a convolution, since other last bits would
make other numbers of the tables in ``docs/results``.

Tried and slower: a sum of k·k products of views, without P(x); P(x) along one
axis only; P(x) written by updates in place; blocks of 2×2 pixels as channels
for stride 2; a kernel's gradient as k·k products, with and without transposed
inputs. Not tried: Winograd's transform, calls of other libraries.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import dtypes
from jax import lax
from jaxtyping import Array, Float

Pads = Sequence[tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_DEEP, _SMALL = 256, 100  # Channels, and positions of a map.
_products = contextvars.ContextVar("products", default=True)


@contextlib.contextmanager
def without_products() -> Iterator[None]:
  """What is traced in here has convolutions only, for other machines."""
  token = _products.set(False)
  try:
    yield
  finally:
    _products.reset(token)


def as_product(
  size: Sequence[int], channels: int, positions: int, dtype: Any
) -> bool:
  """Whether a convolution is a matrix product here; see the module.

  Args:
    size: of the kernel.
    channels: of its input.
    positions: of its output, height × width.
    dtype: of the computation.
  """
  if dtype != jnp.float32 or not _products.get():
    return False
  if jax.default_backend() != "cpu":
    return False
  deep = channels >= _DEEP and positions <= _SMALL and max(size) <= 3
  return max(size) == 1 or deep


def convolve(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c d"],
  strides: tuple[int, int],
  pads: Pads,
) -> Float[Array, "b oh ow d"]:
  """The convolution, as a product or not, of inputs of the kernel's dtype."""
  size = kernel.shape[:2]
  extents = zip(x.shape[1:3], size, strides, pads, strict=True)
  height, width = ((n + sum(p) - k) // s + 1 for n, k, s, p in extents)
  if as_product(size, kernel.shape[2], height * width, x.dtype):
    return _product(x, kernel, strides, pads, (height, width))
  return lax.conv_general_dilated(
    x, kernel, strides, pads, dimension_numbers=_LAYOUT
  )


def _product(x, kernel, strides, pads, extents):
  kh, kw, _, features = kernel.shape
  if any(map(any, pads)):
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  views = [
    _view(x, (i, j), strides, extents) for i in range(kh) for j in range(kw)
  ]
  patches = jnp.concatenate(views, -1) if len(views) > 1 else views[0]
  rows = patches.reshape(-1, patches.shape[-1])
  return (rows @ kernel.reshape(-1, features)).reshape(-1, *extents, features)


def _view(x, start, strides, extents):
  """Every ``strides``-th entry from ``start`` on, ``extents`` of them."""
  if x.shape[1:3] == extents:
    return x
  steps = zip(start, extents, strides, strict=True)
  stop = [i + (n - 1) * s + 1 for i, n, s in steps]
  return lax.slice(
    x, (0, *start, 0), (x.shape[0], *stop, x.shape[3]), (1, *strides, 1)
  )


class Conv(nn.Module):
  """``flax.linen.Conv`` of pictures [b h w c], see the module.

  Attributes:
    features: channels of the output.
    kernel_size: height and width of the kernel.
    strides: along height and width.
    padding: ``SAME``, ``VALID`` or (before, after) for height and width.
    use_bias: whether to add a bias to each channel.
    dtype: of the computation; ``None`` means that of input and weights.
    kernel_init: draws the kernel.
  """

  features: int
  kernel_size: Sequence[int]
  strides: Sequence[int] = (1, 1)
  padding: str | Pads = "SAME"
  use_bias: bool = True
  dtype: Any = None
  kernel_init: Callable[..., Any] = nn.linear.default_kernel_init

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow d"]:
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    bias = None
    if self.use_bias:
      zeros = nn.initializers.zeros
      bias = self.param("bias", zeros, (self.features,), jnp.float32)
    x, kernel, bias = dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    strides = (self.strides[0], self.strides[1])
    pads = self.padding
    if isinstance(pads, str):
      pads = lax.padtype_to_pads(x.shape[1:3], self.kernel_size, strides, pads)
    y = convolve(x, kernel, strides, pads)
    return y if bias is None else y + bias.reshape(1, 1, 1, -1)
