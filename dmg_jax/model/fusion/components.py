r"""Components: own heads, and several learned variants of each feature vector.

.. math:: v_m = B_m\, \mathrm{ReLU}(A_m z_m + a_m) + b_m \in
  \mathbb{R}^{V \times d}, \qquad o_m = U_m^\top z_m + c_m, \qquad
  o = \frac{1}{M} \sum_m o_m

The prediction does not depend on the variants; the method ``cpsc`` trains with
them. Extra output ``variants``: {m: v_m, [b V d]}. The mean is over what a
sample has. Read-out R2 (own head). Supports any number of modalities.

Reference: Jiang, Gu, Hu, et al. (CPSC), CVPR 2026. Official: XunCHN/CPSC, with
1024 hidden units for 512 features.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import InputError
from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion",
  "o = mean_m (U_m z_m + c_m), v_m = B_m ReLU(A_m z_m)",
  "Jiang et al. (CPSC), CVPR 2026",
)


class Fusion(nn.Module):
  """Own heads, and networks that make variants of the features.

  Attributes:
    num_classes: k.
    variants: V, at least 2.
    hidden: hidden units of those networks; 0 means twice the features.
  """

  num_classes: int
  variants: int = 10
  hidden: int = 0

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train
    if self.variants < 2 or self.hidden < 0:
      raise InputError(
        "components needs variants of at least 2 and hidden of at least 0, got "
        f"{self.variants} and {self.hidden}"
      )
    unimodal, variants = {}, {}
    for m, z in features.items():
      side = Side(
        self.num_classes, self.variants, self.hidden, name=f"head_{m}"
      )
      unimodal[m], variants[m] = side(z)
    mean = missing.mean(unimodal, present)
    return Fused(mean, unimodal, {"variants": variants})


class Side(nn.Module):
  """The head of a modality, and its variants."""

  num_classes: int
  variants: int
  hidden: int

  @nn.compact
  def __call__(
    self, z: Float[Array, "b d"]
  ) -> tuple[Float[Array, "b k"], Float[Array, "b v d"]]:
    init = nn.initializers.xavier_normal()
    size = z.shape[-1]

    def dense(width: int, name: str) -> nn.Dense:
      return nn.Dense(width, kernel_init=init, name=name)

    x = nn.relu(dense(self.hidden or 2 * size, "hidden")(z))
    v = dense(self.variants * size, "variants")(x)
    logits = dense(self.num_classes, "out")(z)
    return logits, v.reshape(*z.shape[:-1], self.variants, size)
