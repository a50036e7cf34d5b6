r"""Ensemble: encoders trained apart, whose predictions are averaged.

.. math:: L = \sum_m \mathrm{CE}(o_m, y), \qquad
  p = \frac{1}{M} \sum_m \mathrm{softmax}(o_m) \quad\text{or}\quad
  p = \mathrm{softmax}\Bigl(\frac{1}{M} \sum_m o_m\Bigr)

Nothing is shared, so each encoder and its head learn as if they were alone:
there is no imbalance to cure. What a method gains over joint training it has to
gain over this as well. The means are over the modalities that a sample has.
Needs own heads (fusion ``sum``). Supports any number of modalities.

Reference: the average of unimodal classifiers ("late fusion") as in Wang, Tran,
Feiszli, "What Makes Training Multi-Modal Classification Networks Hard?", CVPR
2020.

Deviation 1: the encoders are trained in one run, so they have the same number
of epochs, and the best epoch is that of their mean. Clipping by the global norm
(``optimiser.clip_norm``) would couple them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import missing
from dmg_jax.errors import unknown
from dmg_jax.methods import _needs, unimodal
from dmg_jax.methods._adapters import from_loss
from dmg_jax.types import Card, Method

CARD = Card(
  "baseline", "Σ CE(o_m), p = mean softmax(o_m)", "Wang et al., CVPR 2020"
)
_AVERAGES = ("probabilities", "logits")


def make(*, average: str = "probabilities") -> Method:
  """The ensemble method.

  Args:
    average: what is averaged, ``probabilities`` or ``logits``.

  Raises:
    InputError: an unknown average.
  """
  if average not in _AVERAGES:
    raise unknown("average", average, _AVERAGES)

  def init(problem, state, key):
    del state, key
    _needs.nothing_shared(problem, "ensemble")
    return ()

  def predict(outputs, method_state):
    del method_state
    if average == "logits":
      return missing.mean(outputs.unimodal, outputs.present)
    return log_mean_softmax(outputs)

  return from_loss(unimodal.apart, init=init, predict=predict)


def log_mean_softmax(outputs):
  """The log of the mean of the modalities' probabilities, [b k]."""
  log_p = {
    m: missing.where(outputs.present, m, jax.nn.log_softmax(o), -jnp.inf)
    for m, o in outputs.unimodal.items()
  }
  number = missing.count(outputs.unimodal, outputs.present)
  whole = jax.nn.logsumexp(jnp.stack(list(log_p.values())), axis=0)
  return whole - jnp.log(number)[:, None]
