r"""Boosting: sums the predictions of a two-layer head shared by modalities.

.. math:: o_m = \mathrm{head}(z_m), \qquad o = \lambda_b \sum_m o_m

The head d → ``hidden`` → ReLU → classes is shared by all modalities, so their
features need equal size. λ_b is learned and starts at 1. The sum is over the
modalities that a sample has. Extra output: ``scale``, λ_b. Read-out R5 (shared
head). Supports any number of modalities.

Reference: Hua, Xu, Bao, Yang, Huang (ReconBoost), ICML 2024. Official:
huacong/ReconBoost.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import InputError
from dmg_jax.types import Card, Fused

READOUT = "R5 shared head"
CARD = Card("fusion", "o = λ_b Σ head(z_m)", "Hua et al., ICML 2024")


class Fusion(nn.Module):
  """Shared head with ``hidden`` units, and a learned scale of the sum."""

  num_classes: int
  hidden: int = 256

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train
    sizes = {m: z.shape[-1] for m, z in features.items()}
    if len(set(sizes.values())) > 1:
      raise InputError(
        f"a shared head needs features of equal size, got {sizes}: give the "
        "encoders the same `features`"
      )
    init = nn.initializers.xavier_normal()
    hidden = nn.Dense(self.hidden, kernel_init=init, name="hidden")
    head = nn.Dense(self.num_classes, kernel_init=init, name="head")
    unimodal = {m: head(nn.relu(hidden(z))) for m, z in features.items()}
    total = missing.total(unimodal, present)
    scale = self.param("scale", nn.initializers.ones, (), total.dtype)
    return Fused(scale * total, unimodal, {"scale": scale})
