r"""Convolutions of pictures, in the form that is fastest where they run.

``Conv`` has the arguments, weights and result of ``flax.linen.Conv`` with two
axes of space. On a CPU, in float32, it takes one of four forms, which are the
same sum in another order:

1. Large 3×3 ones with stride 1 of 64 channels or more are made of tiles, by
   ``winograd``.
2. 1×1 ones, and 3×3 ones of many channels on small maps, are a matrix product

   .. math:: y = P(x)\, K, \qquad P(x) [b\,h\,w,\; k\,k\,c]

   with the kernel K as a matrix and P(x) the shifted views of x side by side.
3. 3×3 ones of few channels are a sum of scaled views, which the compiler makes
   one loop of; their derivative is that of ``lax.conv_general_dilated``.
4. All others are ``lax.conv_general_dilated``, as all are elsewhere.

Views are slices, so that ``vmap``, derivatives of any order and export follow
from those of slices and products.

What is faster was measured with jax 0.10.2 on one core (AMD EPYC), forward and
both gradients, milliseconds. Views: forward and the kernel's gradient alone,
those of here timed one by one and added:

========================================  ===========  =====
convolution, as in ``lax``, and in which        ``lax``   here
========================================  ===========  =====
tiles: 64 to 64 on 56², batch 8                  56.5   45
tiles: 128 to 128 on 28², batch 8                57.7   33
tiles: 256 to 256 on 14², batch 8                56.8   30
tiles: 512 to 512 on 7², batch 8                 69.3   44
product: 1×1, 1024 to 256 on 14², batch 32        143   58
product: 1×1, stride 2, 64 to 128 on 56²          4.5   1.6
product: 3×3, 512 to 512 on 7², batch 8          72.3   59
product: stride 2, 256 to 512 on 14²             16.2   13
views: 1 to 16 on 64², batch 64                  19.7   7.7
views: 3 to 16 on 24², batch 64                   3.1   1.1
views: 3 to 32 on 24², batch 64                   4.5   2.9
========================================  ===========  =====

Tiles cost a second or less of compilation for each layer, which is why small
convolutions are not made of them. 32 to 64 channels on 12², batch 64: 11.1 ms
and 8.4 as tiles; 16 to 32 on 32²: 22 and 27.

Tried and slower: tiles whose 16 products are one. For few channels: products,
with views as rows or as columns. A sum of k·k products of views; P(x) along one
axis only; P(x)
written by updates in place; blocks of 2×2 pixels as channels for stride 2; a
kernel's gradient as k·k products. Not tried: tiles of 4×4 results,
which round more; calls of other libraries.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import dtypes
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

from dmg_jax.model.encoders._layers import winograd

Pads = Sequence[tuple[int, int]]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
_DEEP, _SMALL = 256, 100  # Channels, and positions of a map.
_FEW, _MANY = 4, 64  # Channels.
_LARGE = 2**22  # Results times channels: 75 MFLOP a sample.
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
  if not _on_this_cpu(dtype):
    return False
  deep = channels >= _DEEP and positions <= _SMALL and max(size) <= 3
  return max(size) == 1 or deep


def as_taps(size: Sequence[int], channels: int, dtype: Any) -> bool:
  """Whether a convolution is a sum of scaled views here; see the module.

  Args:
    size, channels, dtype: as for ``as_product``.
  """
  few = channels <= _FEW and max(size) <= 3
  return few and _on_this_cpu(dtype)


def by_tiles(
  size: Sequence[int],
  channels: int,
  strides: tuple[int, int],
  results: int,
  dtype: Any,
) -> bool:
  """Whether a convolution is made of tiles here, see ``winograd``.

  Args:
    size, channels, dtype: as for ``as_product``.
    strides: along height and width.
    results: numbers of its output, of one sample.
  """
  if not _on_this_cpu(dtype):
    return False
  fits = tuple(size) == (3, 3) and tuple(strides) == (1, 1)
  return fits and channels >= _MANY and results * channels >= _LARGE


def _on_this_cpu(dtype: Any) -> bool:
  """First of all: shapes of programs for other machines may be unknown."""
  cpu = jax.default_backend() == "cpu"
  return cpu and dtype == jnp.float32 and _products.get()


def convolve(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c d"],
  strides: tuple[int, int],
  pads: Pads,
) -> Float[Array, "b oh ow d"]:
  """The convolution, of inputs of the kernel's dtype, see the module."""
  size = kernel.shape[:2]
  extents = zip(x.shape[1:3], size, strides, pads, strict=True)
  height, width = ((n + sum(p) - k) // s + 1 for n, k, s, p in extents)
  channels, extents = kernel.shape[2], (height, width)
  pads = tuple((low, high) for low, high in pads)
  results = height * width * kernel.shape[3]
  if by_tiles(size, channels, strides, results, x.dtype):
    return winograd.convolve(x, kernel, pads)
  if as_product(size, channels, height * width, x.dtype):
    return _product(x, kernel, strides, pads, extents)
  if as_taps(size, channels, x.dtype):
    return _taps(x, kernel, strides, pads, extents)
  return _convolution(x, kernel, strides, pads)


def _convolution(x, kernel, strides, pads):
  return lax.conv_general_dilated(
    x, kernel, strides, pads, dimension_numbers=_LAYOUT
  )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _taps(x, kernel, strides, pads, extents):
  weights = kernel.reshape(-1, 1, 1, 1, *kernel.shape[2:])
  terms = [
    view[..., c, None] * weight[..., c, :]
    for view, weight in zip(
      _views(x, kernel.shape, strides, pads, extents), weights, strict=True
    )
    for c in range(x.shape[-1])
  ]
  return functools.reduce(jnp.add, terms)


@functools.partial(_taps.defjvp, symbolic_zeros=True)
def _taps_jvp(strides, pads, extents, primals, tangents):
  """By convolutions: the taps' own derivatives are many sums over a map."""
  x, kernel = primals
  y = _taps(x, kernel, strides, pads, extents)
  dx, dk = tangents
  parts = []
  if not isinstance(dk, SymbolicZero):
    parts.append(_convolution(x, dk, strides, pads))
  if not isinstance(dx, SymbolicZero):
    parts.append(_convolution(dx, kernel, strides, pads))
  return y, sum(parts) if parts else jnp.zeros_like(y)


def _views(x, shape, strides, pads, extents):
  """What each entry of a kernel is multiplied with."""
  if any(map(any, pads)):
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
  return [
    _view(x, (i, j), strides, extents)
    for i in range(shape[0])
    for j in range(shape[1])
  ]


def _product(x, kernel, strides, pads, extents):
  features = kernel.shape[-1]
  views = _views(x, kernel.shape, strides, pads, extents)
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
