"""Encoders for small data, trained from scratch: picture, words, array."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

NORMS = ("group", "batch", "none")


class _Norm(nn.Module):
  """GroupNorm (no statistics), BatchNorm (running statistics) or nothing."""

  kind: str
  train: bool

  @nn.compact
  def __call__(self, x):
    if self.kind == "group":
      return nn.GroupNorm(num_groups=8)(x)
    if self.kind == "batch":
      return nn.BatchNorm(use_running_average=not self.train, momentum=0.9)(x)
    if self.kind == "none":
      return x
    raise ValueError(
      f"unknown norm {self.kind!r}; choose from {', '.join(NORMS)}"
    )


class ConvNet(nn.Module):
  """Picture to features: 3×3 convolutions, each halved by max pooling.

  Attributes:
    features: size ``d`` of the output.
    widths: channels of each convolution; multiples of 8 with GroupNorm.
    norm: ``group``, ``batch`` or ``none``.
    dropout: probability of dropping a pooled channel.
  """

  features: int = 64
  widths: Sequence[int] = (32, 64, 128)
  norm: str = "group"
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, x: UInt8[Array, "b h w c"] | Float[Array, "b h w c"], train: bool
  ) -> Float[Array, "b d"]:
    if not jnp.issubdtype(x.dtype, jnp.floating):
      x = x.astype(jnp.float32) / 127.5 - 1.0
    for width in self.widths:
      x = nn.Conv(width, (3, 3), use_bias=self.norm == "none")(x)
      x = nn.relu(_Norm(self.norm, train)(x))
      x = nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")
    x = x.mean(axis=(1, 2))
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

  vocab_size: int
  features: int = 64
  width: int = 128
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, tokens: Int[Array, "b t"], train: bool
  ) -> Float[Array, "b d"]:
    x = nn.Embed(self.vocab_size, self.width)(tokens)
    real = (tokens > 0).astype(x.dtype)[..., None]
    x = (x * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1.0)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    x = nn.relu(nn.Dense(self.width)(x))
    return nn.Dense(self.features)(x)


class MLP(nn.Module):
  """Array to features: flattened, then ``len(widths)`` hidden layers.

  Attributes:
    features: size ``d`` of the output.
    widths: sizes of the hidden layers.
    norm: ``group``, ``batch`` or ``none``, after each hidden layer.
    dropout: probability of dropping a hidden unit.
  """

  features: int = 64
  widths: Sequence[int] = (128,)
  norm: str = "none"
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Float[Array, "b ..."], train: bool):
    x = x.reshape(x.shape[0], -1)
    for width in self.widths:
      x = nn.relu(_Norm(self.norm, train)(nn.Dense(width)(x)))
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.features)(x)
