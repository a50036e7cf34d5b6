r"""ETMC: Dempster's rule on Dirichlet evidence, with a pseudo-view.

.. math:: \epsilon = \mathrm{softplus}(o), \quad a = \epsilon + 1, \quad
  S = \sum_c a_c, \quad b = \epsilon / S, \quad u = k / S
.. math:: b = \frac{b^1 b^2 + b^1 u^2 + b^2 u^1}{1 - K}, \quad
  u = \frac{u^1 u^2}{1 - K}, \quad
  K = \sum_{i \ne j} b^1_i b^2_j, \quad a = \frac{k}{u} b + 1

The rule combines the modalities in order, a missing one as a = 1 (no evidence,
u = 1, which changes nothing), and then the pseudo-view, a head on
``[z_1; …; z_M]``; ``pseudo_view=False`` gives TMC. Logits are log a, so that
their softmax is the expected probability a / S of the Dirichlet. Extra outputs:
``evidential`` and, with the pseudo-view, ``pseudo`` [b k], log a of its head.
Read-out R2 (own head). Supports any number of modalities.

Reference: Han, Zhang, Fu, Zhou, "Trusted Multi-View Classification with Dynamic
Evidential Fusion", TPAMI 2023, eqs. 4-9 (TMC: ICLR 2021). Official:
hanmenghan/TMC.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "a = ⊕_m (softplus(o_m) + 1), Dempster", "Han et al., TPAMI 2023"
)
_LEAST = 1e-6  # Lower bound of 1 - K, which is 0 for total conflict.


class Fusion(nn.Module):
  """Evidential heads; ``pseudo_view`` adds one on the concatenated features."""

  num_classes: int
  pseudo_view: bool = True

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train
    init = nn.initializers.xavier_normal()

    def dirichlet(z, name):
      logits = nn.Dense(self.num_classes, kernel_init=init, name=name)(z)
      wide = jnp.promote_types(logits.dtype, jnp.float32)
      return jax.nn.softplus(logits.astype(wide)) + 1

    views = {m: dirichlet(z, f"head_{m}") for m, z in features.items()}
    unimodal = {m: jnp.log(a) for m, a in views.items()}
    # No evidence is an opinion that changes nothing.
    views = {m: missing.where(present, m, a, 1) for m, a in views.items()}
    extra = {"evidential": jnp.ones(())}
    if self.pseudo_view:
      both = jnp.concatenate(list(features.values()), axis=-1)
      views = {**views, "": dirichlet(both, "pseudo")}
      extra["pseudo"] = jnp.log(views[""])
    fused = functools.reduce(combine, views.values())
    return Fused(jnp.log(fused), unimodal, extra)


def opinion(
  a: Float[Array, "b k"],
) -> tuple[Float[Array, "b k"], Float[Array, "b 1"]]:
  """Belief masses b and uncertainty u of Dirichlet parameters, Σ b + u = 1."""
  total = a.sum(axis=-1, keepdims=True)
  return (a - 1) / total, a.shape[-1] / total


def combine(
  one: Float[Array, "b k"], two: Float[Array, "b k"]
) -> Float[Array, "b k"]:
  """Dempster's rule on Dirichlet parameters; associative and commutative."""
  (b1, u1), (b2, u2) = opinion(one), opinion(two)
  agree = (b1 * b2).sum(axis=-1, keepdims=True)
  conflict = b1.sum(axis=-1, keepdims=True) * b2.sum(axis=-1, keepdims=True)
  rest = jnp.maximum(1 - (conflict - agree), _LEAST)
  b = (b1 * b2 + b1 * u2 + b2 * u1) / rest
  u = u1 * u2 / rest
  return b * one.shape[-1] / u + 1
