r"""Boosted heads: the classifier of a modality is a sum that can grow.

.. math:: f_{m,k} = h(\mathrm{ReLU}(E_{m,k} z_m)), \qquad
  o_m = \sum_{k=0}^{n_m} f_{m,k}, \qquad o = \sum_m \beta_m o_m

h is one linear layer for all modalities and boosters, and E_{m,k} are linear
maps to ``hidden`` units. Each modality can have up to ``capacity`` boosters in
addition to the first; the variables ``boosters`` hold n_m, initially zero. β is
``weights``, by default equal. Extra outputs: ``previous``, {modality:
Σ_{k<n_m} f_{m,k}, or o_m if n_m = 0}; ``last``, {modality: f_{m,n_m}}; and
``boosters``, {modality: n_m}. Read-out R2 (own head, except that h is shared).
Supports any number of modalities.

Deviation 1: β is 1/M; it is .4 and .6 (audio, video) in the official code.

Reference: Jiang, Huang, Yang, "Rethinking Multimodal Learning from the
Perspective of Mitigating Classification Ability Disproportion", NeurIPS 2025.
Official: njustkmg/NeurIPS25-AUG.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import InputError
from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "o_m = Σ_k h(ReLU(E_mk z_m)), o = Σ β_m o_m", "Jiang, NeurIPS 2025"
)


class Fusion(nn.Module):
  """Heads that are sums of boosters.

  Attributes:
    num_classes: k.
    hidden: number of units of a booster.
    capacity: largest number of added boosters per modality.
    weights: β_m in the order of the modalities; ``None`` means 1/M.
  """

  num_classes: int
  hidden: int = 256
  capacity: int = 10
  weights: tuple[float, ...] | None = None

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train
    beta = self.weights or (1 / len(features),) * len(features)
    if len(beta) != len(features):
      raise InputError(
        f"weights needs {len(features)} numbers, one for each of "
        f"{', '.join(features)}; got {len(beta)}"
      )
    head = nn.Dense(
      self.num_classes, kernel_init=nn.initializers.xavier_normal(), name="head"
    )
    slots = jnp.arange(self.capacity + 1)
    unimodal, previous, last, counts = {}, {}, {}, {}
    for m, z in features.items():
      hidden = Boosters(len(slots), self.hidden, name=f"head_{m}")(z)
      n = self.variable("boosters", m, jnp.zeros, (), jnp.int32).value
      n = jnp.minimum(n, self.capacity)
      f = head(hidden) * (slots <= n)[:, None, None]
      unimodal[m], counts[m] = f.sum(axis=0), n
      last[m] = jnp.take(f, n, axis=0)
      before = unimodal[m] - last[m]
      previous[m] = jnp.where(n > 0, before, unimodal[m])
    logits = weighted(unimodal, beta, present)
    extra = {"previous": previous, "last": last, "boosters": counts}
    return Fused(logits, unimodal, extra)


def weighted(
  unimodal: Mapping[str, Float[Array, "b k"]],
  beta: tuple[float, ...],
  present: Mapping[str, Float[Array, " b"]] | None,
) -> Float[Array, "b k"]:
  """Σ β_m o_m, with the β of what a sample has scaled to the sum of all."""
  pairs = list(zip(unimodal, beta, strict=True))
  if present is None:
    return functools.reduce(operator.add, (b * unimodal[m] for m, b in pairs))
  shares = {
    m: jnp.full((unimodal[m].shape[0], 1), b, unimodal[m].dtype)
    for m, b in pairs
  }
  share = missing.total(shares, present)
  factor = jnp.where(share > 0, sum(beta) / jnp.where(share > 0, share, 1), 0)
  return factor * missing.total({m: b * unimodal[m] for m, b in pairs}, present)


class Boosters(nn.Module):
  """``count`` parallel layers of ReLU units."""

  count: int
  width: int

  @nn.compact
  def __call__(self, z: Float[Array, "b d"]) -> Float[Array, "s b h"]:
    init = nn.initializers.xavier_normal(batch_axis=(0,))
    shape = (self.count, z.shape[-1], self.width)
    kernel = self.param("kernel", init, shape, z.dtype)
    zeros = nn.initializers.zeros
    bias = self.param("bias", zeros, shape[::2], z.dtype)
    return nn.relu(jnp.einsum("bd,sdh->sbh", z, kernel) + bias[:, None, :])
