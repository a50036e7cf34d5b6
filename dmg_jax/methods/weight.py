r"""Loss of prediction weighting: cross-entropies plus prediction similarity.

.. math:: L = w_f\, \mathrm{CE}(o) + \sum_m \mathrm{CE}(o_m) +
  \lambda\, \mathrm{mean}_{j<l}\, \frac{1}{n} \sum_i \cos(p_{j,i}, p_{l,i}),
  \quad p_m = \mathrm{softmax}(o_m)

The fusion ``weight`` computes o by attention; any other fusion with unimodal
read-outs works, too. Supports any number of modalities.

Deviation 1: the official code is multi-label (sigmoid) and semi-supervised;
this is the supervised part with softmax.

Reference: Yang et al. (CMML), IJCAI 2019, eqs. 4-6. Official:
njustkmg/IJCAI19_CMML.
"""

from __future__ import annotations

import jax

from dmg_jax import losses
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, from_loss
from dmg_jax.methods.joint import classification
from dmg_jax.types import Card, Method

CARD = Card(
  "objective",
  "2 CE(o) + Σ CE(o_m) + .01 cos(p_j, p_l)",
  "Yang et al., IJCAI 2019",
)


def make(*, fused: float = 2.0, diversity: float = 0.01) -> Method:
  """The weight method.

  Args:
    fused: weight w_f ≥ 0 of the fused loss.
    diversity: weight λ ≥ 0 of the mean cosine similarity between predictions.
  """
  check_range("fused", fused, 0, 1e6)
  check_range("diversity", diversity, 0, 1e6)

  def loss(outputs, batch, method_state):
    del method_state
    cls, terms = classification(outputs, batch)
    own = _terms.own(outputs, batch)
    p = {m: jax.nn.softmax(o) for m, o in outputs.unimodal.items()}
    alike = losses.over_pairs(cosine, p, batch)
    value = fused * cls + _terms.total(own) + diversity * alike
    return value, {**terms, **_terms.named("cls", own), "cosine": alike}

  return from_loss(loss)


def cosine(x: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
  """Masked mean of the cosine similarity between rows of ``x`` and ``y``."""
  each = (losses.unit(x) * losses.unit(y)).sum(axis=-1)
  return losses.masked_mean(each, mask)
