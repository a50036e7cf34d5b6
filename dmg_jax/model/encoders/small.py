"""Small encoders, trained from scratch, for pictures, words and arrays.

Each is a chain of stages: ``encoder(x, train)`` runs all of them, and
``encoder(x, train, first, last)`` those from ``first`` up to, but not
including, ``last``. The first ``encoder.stages`` stages return maps [b ... c]
with channels last; the final one, number ``stages``, turns a map into features
[b d]. A fusion that exchanges information between encoders (``channel``) runs
them stage by stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, UInt8

from dmg_jax.errors import InputError, unknown

NORMS = ("group", "batch", "none")
_GROUPS = 8  # Number of groups in a group norm.


class _Norm(nn.Module):
  """GroupNorm, BatchNorm (with running statistics) or the identity."""

  kind: str
  train: bool

  @nn.compact
  def __call__(self, x):
    if self.kind == "group":
      if x.shape[-1] % _GROUPS:
        raise InputError(
          f"norm 'group' needs widths that are multiples of {_GROUPS}, got "
          f"{x.shape[-1]}: change widths, or use norm batch or none"
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
  """The larger of each pair of neighbours along ``axis``; an odd one stays.

  Applied along two axes in turn, it equals ``flax.linen.max_pool`` with windows
  and strides of 2 and padding ``SAME``, derivatives included: in a tie, the
  first entry receives the whole gradient. Element-wise selection costs a CPU a
  fraction of the derivative of a windowed maximum.
  """
  pads = [(0, 0)] * x.ndim
  pads[axis] = (0, x.shape[axis] % 2)
  x = jnp.pad(x, pads, constant_values=-jnp.inf)
  a = lax.slice_in_dim(x, 0, None, 2, axis)
  b = lax.slice_in_dim(x, 1, None, 2, axis)
  return jnp.where((a >= b) | jnp.isnan(a), a, b)


def _pixels(x: Array) -> Array:
  """Bytes scaled to [-1, 1]; floating-point input is used as it is."""
  if jnp.issubdtype(x.dtype, jnp.floating):
    return x
  return x.astype(jnp.float32) / 127.5 - 1.0


class ConvNet(nn.Module):
  """Pictures to features: 3×3 convolutions, each followed by max pooling.

  Frames of a clip ([b t h w c]) are separate pictures until the features are
  averaged over time and space.

  Attributes:
    features: size ``d`` of the output.
    widths: channels of each convolution, multiples of 8 with GroupNorm.
    norm: ``group``, ``batch`` or ``none``.
    dropout: probability of dropping a pooled channel.
  """

  kinds = ("image", "audio", "video", "array")
  axes = 3  # A sample has at least [h w c].
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


class ConvNet1D(nn.Module):
  """Waveforms to features: convolutions along time, each followed by a norm.

  Attributes:
    features: size ``d`` of the output.
    widths: channels of each convolution, multiples of 8 with GroupNorm.
    kernel: taps of each convolution.
    stride: steps of each convolution.
    norm: ``group``, ``batch`` or ``none``.
    dropout: probability of dropping a channel of the mean over time.
  """

  kinds = ("waveform",)
  features: int = 64
  widths: Sequence[int] = (16, 32, 64, 64)
  kernel: int = 9
  stride: int = 4
  norm: str = "group"
  dropout: float = 0.0

  @property
  def stages(self) -> int:
    """Number of stages that return maps."""
    return len(self.widths)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t"] | Float[Array, "b t c"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    last = self.stages + 1 if last is None else last
    x = x[..., None] if first == 0 else x
    for i in range(first, min(last, self.stages)):
      conv = nn.Conv(
        self.widths[i],
        (self.kernel,),
        (self.stride,),
        use_bias=self.norm == "none",
        name=f"Conv_{i}",
      )
      x = nn.relu(_Norm(self.norm, train, name=f"_Norm_{i}")(conv(x)))
    if last <= self.stages:
      return x
    x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(axis=1))
    return nn.Dense(self.features, name="Dense_0")(x)


class WordBag(nn.Module):
  """Words to features: the mean embedding and one hidden layer.

  Word 0 is padding and is ignored; the mean embedding of a text without words
  is zero.

  Attributes:
    vocab_size: number of words, padding and unknown included.
    features: size ``d`` of the output.
    width: size of the embedding and of the hidden layer.
    dropout: probability of dropping an entry of the mean embedding.
  """

  kinds = ("text",)
  vocab_size: int
  features: int = 64
  width: int = 128
  dropout: float = 0.0

  @property
  def stages(self) -> int:
    """Number of stages that return maps: mean embedding and hidden layer."""
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
  """Arrays or pixels to features: an MLP with ``len(widths)`` hidden layers.

  Attributes:
    features: size ``d`` of the output.
    widths: sizes of the hidden layers.
    norm: norm after each hidden layer: ``group``, ``batch`` or ``none``.
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
