"""What several small encoders have: norms, and bytes as numbers."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from dmg_jax.errors import InputError, unknown

NORMS = ("group", "batch", "none")
_GROUPS = 8  # Number of groups in a group norm.


class Norm(nn.Module):
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


def pixels(x: Array) -> Array:
  """Bytes scaled to [-1, 1]; floating-point input is used as it is."""
  if jnp.issubdtype(x.dtype, jnp.floating):
    return x
  return x.astype(jnp.float32) / 127.5 - 1.0
