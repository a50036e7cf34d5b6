r"""Shared head: one linear head for all modalities.

.. math:: o_m = W^\top z_m + b, \qquad o = \frac{1}{M} \sum_m o_m

Needs features of equal size. The fused logits are a plain mean over the
modalities that a sample has; the method ``mla`` weights modalities by their
entropy in its ``predict``. Read-out R5 (shared head). Supports any number of
modalities.

Reference: Zhang et al. (MLA), CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import InputError
from dmg_jax.types import Card, Fused

READOUT = "R5 shared head"
CARD = Card("fusion", "o = mean_m (W z_m + b)", "Zhang et al. (MLA), CVPR 2024")


class Fusion(nn.Module):
  """One linear head for all modalities, with the parameters ``head``."""

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
        f"a shared head needs features of equal size, got {sizes}: give the "
        "encoders the same `features`"
      )
    head = nn.Dense(
      self.num_classes,
      kernel_init=nn.initializers.xavier_normal(),
      name="head",
    )
    unimodal = {m: head(z) for m, z in features.items()}
    return Fused(missing.mean(unimodal, present), unimodal)
