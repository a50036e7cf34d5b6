r"""Prediction summation: the fused logits are the sum of one head per modality.

.. math:: o_m = U_m^\top z_m + c_m, \qquad o = s \sum_m o_m

where s is 1, or 1/M with ``mean=True``, as in the paper's released code. Sum
and mean are over the modalities that a sample has. Read-out R2 (own head).
Supports any number of modalities.

Reference: the paper's row "Sum"; njustkmg/NeurIPS24-LFM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "o = Σ (U_m z_m + c_m)", "Baltrušaitis et al., TPAMI 2018"
)


class Fusion(nn.Module):
  """Own linear heads, summed (or averaged with ``mean=True``)."""

  num_classes: int
  mean: bool = False
  additive: ClassVar[bool] = True

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
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
    if self.mean and present is not None:
      return Fused(missing.mean(unimodal, present), unimodal)
    total = missing.total(unimodal, present)
    return Fused(total / len(unimodal) if self.mean else total, unimodal)
