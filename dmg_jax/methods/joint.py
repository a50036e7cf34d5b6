r"""Joint training: the cross-entropy of the fused logits alone.

.. math:: L = -\frac{1}{n} \sum_i \log \mathrm{softmax}(o_i)_{y_i}

With the fusion ``concat`` this is the row CONCAT of every table. Rebalancing
methods reduce to it when their strength is zero. Supports any number of
modalities.

Reference: the paper, L_CLS in §3.1.
"""

from __future__ import annotations

from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import from_loss
from dmg_jax.types import Card, Method

CARD = Card("baseline", "CE(o, y)", "the paper, CONCAT")


def classification(outputs, batch, method_state=()):
  """``L_CLS``, the masked mean cross-entropy of the fused logits, in nats."""
  del method_state
  value = _terms.cross_entropy(outputs.logits, batch)
  return value, {"cls": value}


def make() -> Method:
  """The joint-training method; it has no options."""
  return from_loss(classification)
