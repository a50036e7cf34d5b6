r"""Prediction summation: one head per modality, fused logits are their sum.

.. math:: o_m = U_m^\top z_m + c_m, \qquad o = s \sum_m o_m

with ``scale`` s: 1 for the sum, 1/M for the mean (as the paper's released code
predicts). Read-out R2 (own head). Any number of modalities.

Reference: the paper's row "Sum"; njustkmg/NeurIPS24-LFM.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "o = Σ (U_m z_m + c_m)", "Baltrušaitis et al., TPAMI 2018"
)


class Fusion(nn.Module):
  """Own linear heads, summed (or averaged with ``mean=True``)."""

  num_classes: int
  mean: bool = False

  @nn.compact
  def __call__(
    self, features: Mapping[str, Float[Array, "b _"]], train: bool
  ) -> Fused:
    del train
    unimodal = {
      m: nn.Dense(
        self.num_classes,
        kernel_init=nn.initializers.xavier_normal(),
        name=f"head_{m}",
      )(z)
      for m, z in features.items()
    }
    total = jnp.stack(list(unimodal.values())).sum(axis=0)
    return Fused(total / len(unimodal) if self.mean else total, unimodal)
