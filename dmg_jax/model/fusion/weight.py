r"""Prediction weighting: attention over the modalities of each sample.

.. math:: w_i = \mathrm{softmax}_m\, a(z_{m,i}), \qquad
  o_i = \sum_m w_{m,i}\, o_{m,i}, \qquad o_m = U_m^\top z_m + c_m

The network a, d → d/2 → ReLU → 1, is shared by all modalities, so features need
equal size. Modalities that a sample lacks have no weight.
``weight_on="feature"`` weights features instead and applies a separate head to
their sum, o = V Σ w z + e. Extra output: ``weights``, {modality: [b]}. Read-out
R2 (own head). Supports any number of modalities.

Deviation 1: the official code weights features. The paper that uses the method
as a baseline calls it "prediction weighting", which is the default here.

Reference: Yang, Wang, Zhan et al., "Comprehensive Semi-Supervised Multi-Modal
Learning" (CMML), IJCAI 2019. Official: njustkmg/IJCAI19_CMML.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import InputError, unknown
from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "o = Σ w_m o_m, w = softmax_m a(z_m)", "Yang et al., IJCAI 2019"
)
WEIGHT_ON = ("prediction", "feature")


class Fusion(nn.Module):
  """Attention over modalities.

  Attributes:
    num_classes: k.
    weight_on: what is weighted: ``prediction`` or ``feature``.
  """

  num_classes: int
  weight_on: str = "prediction"

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train
    if self.weight_on not in WEIGHT_ON:
      raise unknown("weight_on", self.weight_on, WEIGHT_ON)
    sizes = {m: z.shape[-1] for m, z in features.items()}
    if len(set(sizes.values())) > 1:
      raise InputError(
        f"weight needs features of equal size, got {sizes}: give the encoders "
        "the same `features`"
      )
    size = next(iter(sizes.values()))
    init = nn.initializers.xavier_normal()
    hidden = nn.Dense(max(size // 2, 1), kernel_init=init, name="attend")
    # No bias: the softmax over modalities would cancel it.
    score = nn.Dense(1, use_bias=False, kernel_init=init, name="score")
    z = jnp.stack(list(features.values()))
    scores = dict(zip(features, score(nn.relu(hidden(z))), strict=True))
    w = missing.softmax(scores, present)
    unimodal = {
      m: nn.Dense(self.num_classes, kernel_init=init, name=f"head_{m}")(x)
      for m, x in features.items()
    }
    if self.weight_on == "feature":
      fused = nn.Dense(self.num_classes, kernel_init=init, name="fused")
      logits = fused((w * z).sum(axis=0))
    else:
      logits = (w * jnp.stack(list(unimodal.values()))).sum(axis=0)
    weights = {m: w[i, :, 0] for i, m in enumerate(features)}
    return Fused(logits, unimodal, {"weights": weights})
