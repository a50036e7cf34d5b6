"""Encoders for small data, trained from scratch: picture, words, array.

Each is a chain of stages: ``encoder(x, train)`` runs them all, and
``encoder(x, train, first, last)`` those from ``first`` up to ``last``. The
``encoder.stages`` first ones return maps [b ... c], channels last; the last
one, number ``stages``, makes the features [b d] of such a map. A fusion that
lets modalities talk inside the encoders (``channel``) runs them piece by piece.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from dmg_jax.errors import InputError, unknown

NORMS = ("group", "batch", "none")
_GROUPS = 8  # of channels in a group norm


class _Norm(nn.Module):
  """GroupNorm (no statistics), BatchNorm (running statistics) or nothing."""

  kind: str
  train: bool

  @nn.compact
  def __call__(self, x):
    if self.kind == "group":
      if x.shape[-1] % _GROUPS:
        raise InputError(
          f"norm 'group' needs widths that are multiples of {_GROUPS}, got "
          f"{x.shape[-1]}: change widths, or take norm batch or none"
        )
      return nn.GroupNorm(num_groups=_GROUPS)(x)
    if self.kind == "batch":
      return nn.BatchNorm(use_running_average=not self.train, momentum=0.9)(x)
    if self.kind == "none":
      return x
    raise unknown("norm", self.kind, NORMS)


def max_pool_pairs(
  x: Float[Array, "b h w c"], axis: int
) -> Float[Array, "b ..."]:
  """The greater of each two neighbours along ``axis``; a last one stays.

  Along two axes, one after the other, it is ``flax.linen.max_pool`` with
  windows and strides of 2 and padding ``SAME``, and so are its derivatives:
  where both are equal the first gets all. By selection, elementwise, it costs a
  CPU a fraction of what the derivative of a window's maximum does.
  """
  pads = [(0, 0)] * x.ndim
  pads[axis] = (0, x.shape[axis] % 2)
  x = jnp.pad(x, pads, constant_values=-jnp.inf)
  a = lax.slice_in_dim(x, 0, None, 2, axis)
  b = lax.slice_in_dim(x, 1, None, 2, axis)
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


def _pixels(x: Array) -> Array:
  """Bytes to [-1, 1]; floating-point input is taken as it is."""
  if jnp.issubdtype(x.dtype, jnp.floating):
    return x
  return x.astype(jnp.float32) / 127.5 - 1.0


class ConvNet(nn.Module):
  """Picture to features: 3×3 convolutions, each halved by max pooling.

  Frames of a clip ([b t h w c]) are pictures of their own until the features
  are averaged over time and place.

  Attributes:
    features: size ``d`` of the output.
    widths: channels of each convolution; multiples of 8 with GroupNorm.
    norm: ``group``, ``batch`` or ``none``.
    dropout: probability of dropping a pooled channel.
  """

  kinds = ("image", "audio", "video", "array")
  axes = 3  # Of a sample, at least: [h w c].
  features: int = 64
  widths: Sequence[int] = (32, 64, 128)
  norm: str = "group"
  dropout: float = 0.0

  @property
  def stages(self) -> int:
    """Number of stages that return maps."""
    return len(self.widths)

  @nn.compact
  def __call__(
    self,
    x: UInt8[Array, "b ... h w c"] | Float[Array, "b ... h w c"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    last = self.stages + 1 if last is None else last
    x = _pixels(x)
    before = x.shape[:-3]
    if first < self.stages:
      x = x.reshape(-1, *x.shape[-3:])
      for i in range(first, min(last, self.stages)):
        conv = nn.Conv(
          self.widths[i],
          (3, 3),
          use_bias=self.norm == "none",
          name=f"Conv_{i}",
        )
        x = nn.relu(_Norm(self.norm, train, name=f"_Norm_{i}")(conv(x)))
        x = max_pool_pairs(max_pool_pairs(x, axis=2), axis=1)
      x = x.reshape(*before, *x.shape[1:])
    if last <= self.stages:
      return x
    x = x.mean(axis=tuple(range(1, x.ndim - 1)))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.features)(x)


class WordBag(nn.Module):
  """Words to features: mean of embeddings, then one hidden layer.

  Word 0 is padding and counts for nothing; a text without words is the mean of
  none, zero.

  Attributes:
    vocab_size: words, padding and unknown included.
    features: size ``d`` of the output.
    width: size of embedding and hidden layer.
    dropout: probability of dropping an entry of the mean embedding.
  """

  kinds = ("text",)
  vocab_size: int
  features: int = 64
  width: int = 128
  dropout: float = 0.0

  @property
  def stages(self) -> int:
    """Two: the mean embedding and the hidden layer."""
    return 2

  @nn.compact
  def __call__(
    self,
    x: Int[Array, "b t"] | Float[Array, "b _"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b _"]:
    last = 3 if last is None else last
    if first == 0:
      words = nn.Embed(self.vocab_size, self.width)(x)
      real = (x > 0).astype(words.dtype)[..., None]
      x = (words * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1.0)
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    if first <= 1 < last:
      x = nn.relu(nn.Dense(self.width, name="Dense_0")(x))
    return nn.Dense(self.features, name="Dense_1")(x) if last > 2 else x


class MLP(nn.Module):
  """Array or pixels to features: flattened, ``len(widths)`` hidden layers.

  Attributes:
    features: size ``d`` of the output.
    widths: sizes of the hidden layers.
    norm: ``group``, ``batch`` or ``none``, after each hidden layer.
    dropout: probability of dropping a hidden unit.
  """

  kinds = ("array", "audio", "image", "video")
  features: int = 64
  widths: Sequence[int] = (128,)
  norm: str = "none"
  dropout: float = 0.0

  @property
  def stages(self) -> int:
    """Number of hidden layers."""
    return len(self.widths)

  @nn.compact
  def __call__(
    self,
    x: UInt8[Array, "b ..."] | Float[Array, "b ..."],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b d"]:
    last = self.stages + 1 if last is None else last
    x = _pixels(x).reshape(x.shape[0], -1)
    for i in range(first, min(last, self.stages)):
      x = nn.Dense(self.widths[i], name=f"Dense_{i}")(x)
      x = nn.relu(_Norm(self.norm, train, name=f"_Norm_{i}")(x))
      drop = nn.Dropout(self.dropout, name=f"Dropout_{i}")
      x = drop(x, deterministic=not train)
    if last <= self.stages:
      return x
    return nn.Dense(self.features, name=f"Dense_{self.stages}")(x)
