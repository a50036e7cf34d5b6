r"""Own heads: a fused head on all features, and a separate head per modality.

.. math:: o = F([z_1; \dots; z_M]), \qquad o_m = U_m^\top z_m + c_m

where F is linear, or has one hidden layer of ``hidden`` ReLU units. The heads
share nothing, so each modality can have its own loss in addition to the fused
one (multitask, MSES, G-Blend, DOMFN, MMPareto).

Read-out R2 (own head). Supports any number of modalities.
Reference: Wei & Hu (MMPareto), ICML 2024; the hidden layer is that of Yang et
al. (DOMFN), ACM MM 2022.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "o = F[z_1; …; z_M], o_m = U_m z_m + c_m", "Wei & Hu, ICML 2024"
)


class Fusion(nn.Module):
  """Linear heads per modality, and a fused head.

  Attributes:
    num_classes: k.
    hidden: hidden units of the fused head; 0 means linear.
  """

  num_classes: int
  hidden: int = 0

  @property
  def additive(self) -> bool:
    """See ``Problem``; a hidden layer mixes the modalities."""
    return not self.hidden

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train, present
    init = nn.initializers.xavier_normal()
    x = jnp.concatenate(list(features.values()), axis=-1)
    if self.hidden:
      x = nn.relu(nn.Dense(self.hidden, kernel_init=init, name="hidden")(x))
    logits = nn.Dense(self.num_classes, kernel_init=init, name="fused")(x)
    unimodal = {
      m: nn.Dense(self.num_classes, kernel_init=init, name=f"head_{m}")(z)
      for m, z in features.items()
    }
    return Fused(logits, unimodal)
