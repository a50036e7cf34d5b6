r"""Joint training: cross-entropy of the fused logits, nothing else.

.. math:: L = -\frac{1}{n} \sum_i \log \mathrm{softmax}(o_i)_{y_i}

With the ``concat`` fusion this is the row CONCAT of every table, and the
starting point that all rebalancing methods reduce to with their knob at zero.
Any number of modalities.

Reference: the paper, L_CLS in §3.1.
"""

from __future__ import annotations

from dmg_jax import losses
from dmg_jax.methods._adapters import from_loss
from dmg_jax.types import Method


def classification(outputs, batch, method_state=()):
  """``L_CLS``: masked mean cross-entropy of the fused logits, in nats."""
  del method_state
  each = losses.cross_entropy(outputs.logits, batch.labels)
  value = losses.masked_mean(each, batch.mask)
  return value, {"cls": value}


def make() -> Method:
  """Joint training; no options."""
  return from_loss(classification)
