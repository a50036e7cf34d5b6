"""What several small encoders have: norms, and bytes as numbers."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from dmg_jax.errors import InputError, unknown
from dmg_jax.model.encoders._layers.group_norm import GroupNorm

NORMS = ("group", "batch", "none")
# ``None`` means the dtype of input and weights.
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
_GROUPS = 8  # Number of groups in a group norm.


class Norm(nn.Module):
  """GroupNorm, BatchNorm (with running statistics) or the identity."""

  kind: str
  train: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, x):
    if self.kind == "group":
      if x.shape[-1] % _GROUPS:
        raise InputError(
          f"norm 'group' needs widths that are multiples of {_GROUPS}, got "
          f"{x.shape[-1]}: change widths, or use norm batch or none"
        )
      return GroupNorm(_GROUPS, dtype=self.dtype)(x)
    if self.kind == "batch":
      norm = nn.BatchNorm(
        use_running_average=not self.train, momentum=0.9, dtype=self.dtype
      )
      return norm(x)
    if self.kind == "none":
      return x
    raise unknown("norm", self.kind, NORMS)


def chosen(name: str) -> Any:
  """The dtype of products and maps, one of ``DTYPES``.

  Raises:
    ValueError: another name.
  """
  if name not in DTYPES:
    raise unknown("dtype", name, DTYPES)
  return DTYPES[name]


def wide(x: Array) -> Array:
  """In float32 or wider."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def pixels(x: Array) -> Array:
  """Bytes scaled to [-1, 1]; floating-point input is used as it is."""
  if jnp.issubdtype(x.dtype, jnp.floating):
    return x
  return x.astype(jnp.float32) / 127.5 - 1.0
