"""Words without their order."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from dmg_jax.model.encoders.small._parts import chosen, wide


class WordBag(nn.Module):
  """Words to features: the mean embedding and one hidden layer.

  Word 0 is padding and is ignored; the mean embedding of a text without words
  is zero.

  Attributes:
    vocab_size: number of words, padding and unknown included.
    features: size ``d`` of the output.
    width: size of the embedding and of the hidden layer.
    dropout: probability of dropping an entry of the mean embedding.
    dtype: dtype of products and maps, ``float32`` or ``bfloat16``; weights,
      statistics and features are float32.
  """

  kinds = ("text",)
  vocab_size: int
  features: int = 64
  width: int = 128
  dropout: float = 0.0
  dtype: str = "float32"

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
    dtype = chosen(self.dtype)
    last = 3 if last is None else last
    if first == 0:
      words = wide(nn.Embed(self.vocab_size, self.width, dtype=dtype)(x))
      real = (x > 0).astype(words.dtype)[..., None]
      x = (words * real).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1.0)
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    if first <= 1 < last:
      x = nn.relu(nn.Dense(self.width, dtype=dtype, name="Dense_0")(x))
    if last <= 2:
      return x
    return nn.Dense(self.features, name="Dense_1")(wide(x))
