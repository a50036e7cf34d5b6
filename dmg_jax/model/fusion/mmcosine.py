r"""MMCosine: a linear head on directions, without norms.

.. math:: o_{m,c} = s \cos(z_m, W_{m,c}), \qquad o = \sum_m o_m

There is no bias. s is ``scale``, 10 in the official code. Training and testing
use the same rule. Read-out R1 (split head). Supports any number of modalities.

Reference: Xu, Feng, Zhang, Hu, "MMCosine: Multi-Modal Cosine Loss Towards
Balanced Audio-Visual Fine-Grained Learning", ICASSP 2023, eq. 4. Official:
GeWu-Lab/MMCosine_ICASSP23.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import losses
from dmg_jax.errors import InputError
from dmg_jax.types import Card, Fused

READOUT = "R1 split head"
CARD = Card("fusion", "o = s Σ cos(z_m, W_m)", "Xu et al., ICASSP 2023")


class Fusion(nn.Module):
  """Cosine logits, multiplied by ``scale`` > 0."""

  num_classes: int
  scale: float = 10.0
  additive: ClassVar[bool] = True

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train, present
    if not self.scale > 0:
      raise InputError(f"scale must be positive, got {self.scale!r}")
    k = self.num_classes
    fan_in = sum(z.shape[-1] for z in features.values())
    init = nn.initializers.normal((2.0 / (fan_in + k)) ** 0.5)
    unimodal = {}
    for m, z in features.items():
      w = self.param(f"head_{m}", init, (z.shape[-1], k), z.dtype)
      unimodal[m] = self.scale * losses.unit(z) @ losses.unit(w.T).T
    return Fused(jnp.stack(list(unimodal.values())).sum(axis=0), unimodal)
