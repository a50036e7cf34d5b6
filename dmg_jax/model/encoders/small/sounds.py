"""Waveforms: convolutions along time."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float

from dmg_jax.model.encoders.small._parts import Norm, chosen, wide


class ConvNet1D(nn.Module):
  """Waveforms to features: convolutions along time, each followed by a norm.

  Attributes:
    features: size ``d`` of the output.
    widths: channels of each convolution, multiples of 8 with GroupNorm.
    kernel: taps of each convolution.
    stride: steps of each convolution.
    norm: ``group``, ``batch`` or ``none``.
    dropout: probability of dropping a channel of the mean over time.
    dtype: dtype of products and maps, ``float32`` or ``bfloat16``; weights,
      statistics and features are float32.
  """

  kinds = ("waveform",)
  features: int = 64
  widths: Sequence[int] = (16, 32, 64, 64)
  kernel: int = 9
  stride: int = 4
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
    x: Float[Array, "b t"] | Float[Array, "b t c"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    dtype = chosen(self.dtype)
    last = self.stages + 1 if last is None else last
    x = x[..., None] if first == 0 else x
    for i in range(first, min(last, self.stages)):
      conv = nn.Conv(
        self.widths[i],
        (self.kernel,),
        (self.stride,),
        use_bias=self.norm == "none",
        dtype=dtype,
        name=f"Conv_{i}",
      )
      x = nn.relu(Norm(self.norm, train, dtype, name=f"_Norm_{i}")(conv(x)))
    if last <= self.stages:
      return x
    x = nn.Dropout(self.dropout, deterministic=not train)(wide(x).mean(axis=1))
    return nn.Dense(self.features, name="Dense_0")(x)
