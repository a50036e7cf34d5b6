"""Arrays without an order: a multilayer perceptron."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
from jaxtyping import Array, Float, UInt8

from dmg_jax.model.encoders.small._parts import Norm, chosen, pixels, wide


class MLP(nn.Module):
  """Arrays or pixels to features: an MLP with ``len(widths)`` hidden layers.

  Attributes:
    features: size ``d`` of the output.
    widths: sizes of the hidden layers.
    norm: norm after each hidden layer: ``group``, ``batch`` or ``none``.
    dropout: probability of dropping a hidden unit.
    dtype: dtype of products and maps, ``float32`` or ``bfloat16``; weights,
      statistics and features are float32.
  """

  kinds = ("array", "audio", "image", "video")
  features: int = 64
  widths: Sequence[int] = (128,)
  norm: str = "none"
  dropout: float = 0.0
  dtype: str = "float32"

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
    dtype = chosen(self.dtype)
    x = pixels(x).reshape(x.shape[0], -1)
    for i in range(first, min(last, self.stages)):
      x = nn.Dense(self.widths[i], dtype=dtype, name=f"Dense_{i}")(x)
      x = nn.relu(Norm(self.norm, train, dtype, name=f"_Norm_{i}")(x))
      drop = nn.Dropout(self.dropout, name=f"Dropout_{i}")
      x = drop(x, deterministic=not train)
    if last <= self.stages:
      return x
    return nn.Dense(self.features, name=f"Dense_{self.stages}")(wide(x))
