r"""Slerp: a linear head reads a mixture of two modalities on the sphere.

.. math:: \hat z = z / \|z\|, \quad \theta = \arccos(\hat z_a \cdot \hat z_b),
  \quad z_{ab} = \frac{\sin \lambda_a \theta}{\sin \theta} \hat z_a +
  \frac{\sin \lambda_b \theta}{\sin \theta} \hat z_b
.. math:: o_{ab} = W_{ab}^\top z_{ab} + b_{ab}, \qquad o_m = U_m^\top z_m + c_m

for every pair of modalities; z_ab lies on the arc from a to b. The fused logits
are the mean of o_ab over the pairs that a sample has, at λ_a = λ_b = 1/2, or
that of its o_m if it has no pair. The method ``iprm`` chooses λ. Extra output
``mixed``: {a: {b: what ``mixture`` needs}}. Needs features of equal size.
Read-out R2 (own head). Supports any number of modalities.

Reference: Yang, Wu, Jiang, "Towards Equilibrium: An Instantaneous Probe-and-
Rebalance Multimodal Learning Approach", IJCAI 2025. Official:
njustkmg/IJCAI25-IPRM.

Deviation 1: θ stays 1e-3 away from 0 and π, and zero features stay zero; the
official code adds 1e-8 to sin θ, and its gradient is NaN for equal directions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import losses, spheres
from dmg_jax.errors import InputError
from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "o = mean_ab W_ab slerp(z_a, z_b), o_m = U_m z_m + c_m",
  "Yang et al. (IPRM), IJCAI 2025",
)  # fmt: skip


class Fusion(nn.Module):
  """One head per modality and one per pair."""

  num_classes: int

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
        f"slerp needs features of equal size, got {sizes}: give the encoders "
        "the same `features`"
      )
    init = nn.initializers.xavier_normal()
    unimodal = {
      m: nn.Dense(self.num_classes, kernel_init=init, name=f"head_{m}")(z)
      for m, z in features.items()
    }
    mixed = {}
    for a, b in itertools.combinations(features, 2):
      head = nn.Dense(self.num_classes, kernel_init=init, name=f"mixed_{a}_{b}")
      one, two = losses.unit(features[a]), losses.unit(features[b])
      mixed.setdefault(a, {})[b] = parts(head, one, two)
    half = {(a, b): spheres.mixture(p, 0.5) for a, b, p in spheres.pairs(mixed)}
    logits = spheres.average(half, unimodal, present)
    return Fused(logits, unimodal, {"mixed": mixed})


def parts(head: Any, one: Float[Array, "b d"], two: Float[Array, "b d"]):
  """What ``mixture`` needs: W ẑ_a, W ẑ_b, the bias and θ [b]."""
  bias = head(jnp.zeros_like(one))
  dot = jnp.clip((one * two).sum(axis=-1), -1 + 1e-6, 1 - 1e-6)
  return {
    "first": head(one) - bias,
    "second": head(two) - bias,
    "bias": bias,
    "angle": jnp.arccos(dot),
  }
