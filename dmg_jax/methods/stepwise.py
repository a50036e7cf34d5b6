r"""Stepwise α: p in the first half of training, 1 - p in the second.

.. math:: \alpha_t = p \;\text{ for } t < T/2, \quad 1 - p \;\text{ after}

where t is the 0-based epoch of T epochs. Supports any number of modalities.

Reference: the paper, rows h(p) of Table 4, p in {0, 1, .05, .95}.
"""

from __future__ import annotations

from dmg_jax.methods._adapters import check_range, from_loss, scalar
from dmg_jax.methods._matching import Matching, make_total
from dmg_jax.types import Card, Method

CARD = Card(
  "matching",
  "(1-α) (CE(o) + w Σ CE(o_m)) + α L_MM, α = p, then 1-p",
  "the paper, Table 4",
)


def make(
  *,
  p: float = 0.95,
  matching: str = "info_nce",
  temperature: float = 0.1,
  scaled: bool = False,
  unimodal_weight: float = 0.0,
) -> Method:
  """The stepwise α method.

  Args:
    p: α in the first half, in [0, 1].
    matching, temperature, scaled: the matching loss, see ``Matching``.
    unimodal_weight: weight w of the unimodal cross-entropies, 0 in the paper.
  """
  check_range("p", p, 0, 1)

  def between_epochs(problem, state, data, epoch):
    del problem
    value = p if epoch < data.epochs / 2 else 1 - p
    return state.replace(method=scalar(value))

  return from_loss(
    make_total(Matching(matching, temperature, scaled), unimodal_weight),
    init=lambda problem, state, key: scalar(p),
    between_epochs=between_epochs,
  )
