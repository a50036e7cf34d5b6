r"""Constant α: a fixed mix of classification and matching.

.. math:: L_{Total} = (1-\alpha)\, L_{CLS} + \alpha\, L_{MM}

``alpha = 0`` is joint training; with ``alpha = 1`` the model sees no labels.
Supports any number of modalities.

Reference: the paper, eq. 1 and the constant rows of Table 4 (0, 0.5, 1).
"""

from __future__ import annotations

from dmg_jax.methods._adapters import check_range, from_loss, scalar
from dmg_jax.methods._matching import Matching, make_total
from dmg_jax.types import Card, Method

CARD = Card(
  "matching",
  "(1-α) (CE(o) + w Σ CE(o_m)) + α L_MM, α fixed",
  "the paper, Table 4",
)


def make(
  *,
  alpha: float = 0.5,
  matching: str = "info_nce",
  temperature: float = 0.1,
  scaled: bool = False,
  unimodal_weight: float = 0.0,
) -> Method:
  """The constant α method.

  Args:
    alpha: α in [0, 1].
    matching, temperature, scaled: the matching loss, see ``Matching``.
    unimodal_weight: weight w of the unimodal cross-entropies, 0 in the paper.
  """
  check_range("alpha", alpha, 0, 1)
  loss = make_total(Matching(matching, temperature, scaled), unimodal_weight)
  return from_loss(loss, init=lambda problem, state, key: scalar(alpha))
