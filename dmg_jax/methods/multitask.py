r"""Multitask: adds the cross-entropy of each modality to the fused one.

.. math:: L = \mathrm{CE}(o, y) + w \sum_m \mathrm{CE}(o_m, y)

With own heads (fusion ``sum``) this is a baseline that published tables often
omit: it counters under-trained encoders without any balancing rule. ``w = 0``
is joint training. Supports any number of modalities.

Reference: the supervised part of MSES (Fujimori et al., ACPR 2019) and of
MMPareto (Wei & Hu, ICML 2024).
"""

from __future__ import annotations

from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, from_loss
from dmg_jax.methods.joint import classification
from dmg_jax.types import Card, Method

CARD = Card("baseline", "CE(o) + w Σ CE(o_m)", "supervised part of MSES")


def make(*, weight: float = 1.0) -> Method:
  """The multitask method.

  Args:
    weight: weight w ≥ 0 of the unimodal losses.
  """
  check_range("weight", weight, 0, 1e6)

  def loss(outputs, batch, method_state):
    del method_state
    fused, terms = classification(outputs, batch)
    own = _terms.own(outputs, batch)
    value = fused + weight * _terms.total(own)
    return value, {**terms, **_terms.named("cls", own)}

  return from_loss(loss)
