r"""Label fitting: the experiment of the paper's Figure 1.

.. math:: L = (1-w) L_S + w L_U = -\frac1n \sum_i
  \bigl((1-w)\, e_{y_i} + \tfrac{w}{k} \mathbf{1}\bigr)^\top
  \log \mathrm{softmax}(o_i)

``L_S`` fits one-hot labels, ``L_U`` uniform labels. The paper finds that the
accuracy gap between modalities shrinks when labels are fitted less closely.
``w = 0`` is joint training. Supports any number of modalities.

Reference: the paper, §1 and Figure 1 (w = 0.3).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.methods._adapters import check_range, from_loss
from dmg_jax.types import Card, Method

CARD = Card("baseline", "CE(o, (1-w) onehot(y) + w/k)", "the paper, Figure 1")


def make(*, weight: float = 0.3) -> Method:
  """The label fitting method.

  Args:
    weight: weight w in [0, 1] of the uniform labels, 0.3 in the paper's figure.
  """
  check_range("weight", weight, 0, 1)

  def loss(outputs, batch, method_state):
    del method_state
    k = outputs.logits.shape[-1]
    one_hot = jax.nn.one_hot(batch.labels, k, dtype=jnp.float32)
    targets = (1 - weight) * one_hot + weight / k
    each = losses.soft_cross_entropy(outputs.logits, targets)
    value = losses.masked_mean(losses.weighted(each, batch), batch.mask)
    return value, {"cls": value}

  return from_loss(loss)
