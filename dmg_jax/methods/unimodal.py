r"""One modality alone: encoder and linear head, no other encoder is built.

.. math:: L = -\frac{1}{n} \sum_i \log \mathrm{softmax}(o_{m,i})_{y_i}

Not to be confused with the read-out of one modality in a jointly trained
model. Any number of modalities in the data.

Reference: the paper, rows "Audio/Text" and "Video/Image" of Table 1.
"""

from __future__ import annotations

from dmg_jax import losses
from dmg_jax.methods._adapters import from_loss
from dmg_jax.types import Method


def make(*, modality: str) -> Method:
  """Trains ``modality`` and predicts from it.

  Args:
    modality: its name in the data set.
  """

  def loss(outputs, batch, method_state):
    del method_state
    each = losses.cross_entropy(outputs.unimodal[modality], batch.labels)
    value = losses.masked_mean(each, batch.mask)
    return value, {"cls": value}

  return from_loss(
    loss,
    predict=lambda outputs, _: outputs.unimodal[modality],
    modalities=(modality,),
  )
