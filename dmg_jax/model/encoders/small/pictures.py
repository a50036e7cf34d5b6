"""Pictures, spectrograms and clips: convolutions in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float, UInt8

from dmg_jax.model.encoders._layers.conv import Conv
from dmg_jax.model.encoders._layers.pooling import max_pool_pairs
from dmg_jax.model.encoders.small._parts import Norm, chosen, pixels, wide


class ConvNet(nn.Module):
  """Pictures to features: 3×3 convolutions, each followed by max pooling.

  Frames of a clip ([b t h w c]) are separate pictures until the features are
  averaged over time and space.

  Attributes:
    features: size ``d`` of the output.
    widths: channels of each convolution, multiples of 8 with GroupNorm.
    norm: ``group``, ``batch`` or ``none``.
    dropout: probability of dropping a pooled channel.
    dtype: dtype of products and maps, ``float32`` or ``bfloat16``; weights,
      statistics and features are float32.
  """

  kinds = ("image", "audio", "video", "array")
  axes = 3  # A sample has at least [h w c].
  features: int = 64
  widths: Sequence[int] = (32, 64, 128)
  norm: str = "group"
  dropout: float = 0.0
  dtype: str = "float32"

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
    dtype = chosen(self.dtype)
    last = self.stages + 1 if last is None else last
    x = pixels(x)
    before = x.shape[:-3]
    if first < self.stages:
      x = x.reshape(-1, *x.shape[-3:])
      for i in range(first, min(last, self.stages)):
        conv = Conv(
          self.widths[i],
          (3, 3),
          use_bias=self.norm == "none",
          dtype=dtype,
          name=f"Conv_{i}",
        )
        x = nn.relu(Norm(self.norm, train, dtype, name=f"_Norm_{i}")(conv(x)))
        x = max_pool_pairs(max_pool_pairs(x, axis=2), axis=1)
      x = x.reshape(*before, *x.shape[1:])
    if last <= self.stages:
      return x
    x = wide(x).mean(axis=tuple(range(1, x.ndim - 1)))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.features)(x)
