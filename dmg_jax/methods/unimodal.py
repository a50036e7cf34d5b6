r"""Unimodal training: each encoder and its head are trained by their own loss.

.. math:: L = \sum_m \mathrm{CE}(o_m, y), \qquad o = \mathrm{mean}_m\, o_m

With ``modality``, only that encoder is built, and o are its logits. Without it,
all are trained together in one run but share nothing, so each learns as if it
were alone; the fused logits are the late average of independent classifiers.
This differs from the read-out of one modality in a jointly trained model. Needs
own heads (fusion ``sum``). Supports any number of modalities.

Reference: the paper, rows "Audio/Text" and "Video/Image" of Table 1.
"""

from __future__ import annotations

from dmg_jax import missing
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import from_loss
from dmg_jax.types import Card, Method

CARD = Card("baseline", "Σ CE(o_m), nothing shared", "the paper, Table 1")


def make(*, modality: str | None = None) -> Method:
  """The unimodal method.

  Args:
    modality: the only modality to build and train; ``None`` means all of them.
  """

  def init(problem, state, key):
    del state, key
    _needs.nothing_shared(problem, "unimodal")
    return ()

  def predict(outputs, method_state):
    del method_state
    return missing.mean(outputs.unimodal, outputs.present)

  kept = None if modality is None else (modality,)
  return from_loss(apart, init=init, predict=predict, modalities=kept)


def apart(outputs, batch, method_state=()):
  """``Σ_m CE(o_m, y)``, whose terms reach their own encoder only, in nats."""
  del method_state
  own = _terms.own(outputs, batch)
  return _terms.total(own), _terms.named("cls", own)
