r"""Affine (FiLM): one modality scales and shifts the features of the others.

.. math:: [\gamma, \beta] = F z_c, \qquad
  o = W (\gamma \odot z_{-c} + \beta) + b

c is ``conditioner``, by default the last modality, and z₋c are the concatenated
features of the others. γ is used directly, not as 1 + γ. Supports any number of
modalities; a single one is not modulated and has a linear head. Nor is a sample
that lacks modality c (γ = 1, β = 0).

Read-out R3 (feature ablation). Deviations:
1. The official baseline has two modalities, and the audio conditions the
   picture; with more than two, the conditioner modulates all others.
2. The official baseline has no unimodal read-out. Here the other features are
   set to zero, which evaluates only the head and needs no second pass of the
   encoders (as R4 would).

Reference: Perez et al., "FiLM", AAAI 2018, as vectors in Peng et al. (OGM-GE),
CVPR 2022, ``FiLM`` of its ``fusion_modules``.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import unknown
from dmg_jax.model.fusion import _ablation
from dmg_jax.types import Card, Fused

READOUT = _ablation.READOUT
CARD = Card(
  "fusion", "[γ,β] = F z_c, o = W(γ ⊙ z_-c + β) + b", "Perez et al., AAAI 2018"
)


class Fusion(nn.Module):
  """FiLM on features.

  Attributes:
    num_classes: k.
    conditioner: the modality that modulates the others; ``""`` is the last one.
  """

  num_classes: int
  conditioner: str = ""

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train
    names = list(features)
    chosen = self.conditioner or names[-1]
    if chosen not in features:
      raise unknown("conditioner", chosen, names)
    others = [m for m in names if m != chosen] or [chosen]
    init = nn.initializers.xavier_normal()
    size = sum(features[m].shape[-1] for m in others)
    film = nn.Dense(2 * size, kernel_init=init, name="film")
    out = nn.Dense(self.num_classes, kernel_init=init, name="out")

    def head(z):
      x = jnp.concatenate([z[m] for m in others], axis=-1)
      if chosen in others:
        return out(x)
      gamma, beta = jnp.split(film(z[chosen]), 2, axis=-1)
      gamma = missing.where(present, chosen, gamma, 1)
      beta = missing.where(present, chosen, beta, 0)
      return out(gamma * x + beta)

    return Fused(head(features), _ablation.alone(head, features))
