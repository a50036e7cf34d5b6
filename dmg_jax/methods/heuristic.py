r"""Heuristic α (Ours-H): matching first, classification later.

.. math:: \alpha_t = 1 - e^{-1/t}

where t is the 1-based epoch: .632, .393, .283, .221, … Supports any number of
modalities.

Reference: the paper, §3.3, ω(t).
"""

from __future__ import annotations

import math

from dmg_jax.methods._adapters import from_loss, scalar
from dmg_jax.methods._matching import Matching, make_total
from dmg_jax.types import Card, Method

CARD = Card(
  "matching",
  "(1-α) (CE(o) + w Σ CE(o_m)) + α L_MM, α = 1 - exp(-1/t)",
  "the paper, Ours-H",
)


def make(
  *,
  matching: str = "info_nce",
  temperature: float = 0.1,
  scaled: bool = False,
  unimodal_weight: float = 0.0,
) -> Method:
  """The heuristic α method.

  Args:
    matching, temperature, scaled: the matching loss, see ``Matching``.
    unimodal_weight: weight w of the unimodal cross-entropies, 0 in the paper.
  """

  def alpha(epoch: int):
    return scalar(-math.expm1(-1 / (epoch + 1)))

  def between_epochs(problem, state, data, epoch):
    del problem, data
    return state.replace(method=alpha(epoch))

  return from_loss(
    make_total(Matching(matching, temperature, scaled), unimodal_weight),
    init=lambda problem, state, key: alpha(0),
    between_epochs=between_epochs,
  )
