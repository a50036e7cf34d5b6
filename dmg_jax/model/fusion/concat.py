r"""Concatenation: one linear head on the concatenated features.

.. math:: o = \sum_m W_m^\top z_m + b, \qquad o_m = W_m^\top z_m + b / M

The head on ``[z_1; …; z_M]`` is stored as blocks ``W_m``, so that the unimodal
logits need no extra product and sum exactly to the fused logits.

Read-out R1 (split head). Supports any number of modalities.
Reference: the paper, §3.1 (fusion by concatenation); the read-out is that of
Peng et al. (OGM-GE), CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax.types import Card, Fused

READOUT = "R1 split head"
CARD = Card("fusion", "o = Σ W_m z_m + b", "Baltrušaitis et al., TPAMI 2018")


class Fusion(nn.Module):
  """A linear head with one block per modality and a shared bias."""

  num_classes: int
  additive: ClassVar[bool] = True

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train, present
    k = self.num_classes
    dtype = next(iter(features.values())).dtype
    bias = self.param("bias", nn.initializers.zeros, (k,), dtype)
    # Glorot's fan-in is that of the whole head, as if it were one matrix.
    fan_in = sum(z.shape[-1] for z in features.values())
    init = nn.initializers.normal((2.0 / (fan_in + k)) ** 0.5)
    share = (bias / len(features))[None, :]
    unimodal = {
      m: z @ self.param(f"head_{m}", init, (z.shape[-1], k), z.dtype) + share
      for m, z in features.items()
    }
    return Fused(jnp.stack(list(unimodal.values())).sum(axis=0), unimodal)
