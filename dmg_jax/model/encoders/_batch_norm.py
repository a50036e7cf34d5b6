r"""Batch normalisation with PyTorch's running statistics.

.. math:: y = \gamma \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta

In training, μ and σ² are the mean and the (biased) variance over all axes but
the last, and with n values per channel

.. math:: \bar\mu \leftarrow .9 \bar\mu + .1 \mu, \quad
  \bar\sigma^2 \leftarrow .9 \bar\sigma^2 + .1 \frac{n}{n - 1} \sigma^2;

In evaluation, the running statistics are used. ``flax.linen.BatchNorm`` differs
in that its running variance is biased. Statistics are computed and kept in
float32 or wider. If a batch is split over devices, they are those of the whole
batch.

Reference: Ioffe and Szegedy, "Batch Normalization", ICML 2015.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last.

  Attributes:
    train: whether to use the batch's statistics and update the running ones.
    momentum: weight of the old value in a running statistic; PyTorch's momentum
      is one minus this.
    epsilon: constant that is added to the variance.
  """

  train: bool
  momentum: float = 0.9
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
    size = x.shape[-1:]
    scale = self.param("scale", nn.initializers.ones, size, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, size, jnp.float32)
    mean = self.variable("batch_stats", "mean", jnp.zeros, size, jnp.float32)
    var = self.variable("batch_stats", "var", jnp.ones, size, jnp.float32)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if not self.train:
      own, spread = mean.value, var.value
    else:
      axes = tuple(range(x.ndim - 1))
      own, spread = wide.mean(axes), wide.var(axes)
      count = x.size // x.shape[-1]
      if not self.is_initializing() and self.is_mutable_collection(
        "batch_stats"
      ):
        self._update(mean, own)
        self._update(var, spread * (count / max(count - 1, 1)))
    factor = scale * jax.lax.rsqrt(spread + self.epsilon)
    shape = (1,) * (x.ndim - 1) + size
    y = (wide - own.reshape(shape)) * factor.reshape(shape)
    return (y + bias.reshape(shape)).astype(x.dtype)

  def _update(self, running: nn.Variable, value: Array) -> None:
    kept = self.momentum * running.value + (1 - self.momentum) * value
    running.value = kept.astype(running.value.dtype)
