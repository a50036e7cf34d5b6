r"""Modalities alone: each encoder and its head trained by its own loss.

.. math:: L = \sum_m \mathrm{CE}(o_m, y), \qquad o = \mathrm{mean}_m\, o_m

With ``modality`` only that encoder is built and o is its logits. Without, all
are trained side by side in one run and nothing is shared, so that each learns
as if it were alone; the fused logits are the late average of independent
classifiers. Needs own heads (fusion ``sum``). Not to be confused with the
read-out of one modality in a jointly trained model. Any number of modalities.

Reference: the paper, rows "Audio/Text" and "Video/Image" of Table 1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax.errors import InputError
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import from_loss
from dmg_jax.types import SHARED, Card, Method

CARD = Card("baseline", "Σ CE(o_m), nothing shared", "the paper, Table 1")


def make(*, modality: str | None = None) -> Method:
  """Args:
  modality: the one to build and train; ``None`` is each of them.
  """

  def loss(outputs, batch, method_state):
    del method_state
    own = _terms.own(outputs, batch)
    return _terms.total(own), _terms.named("cls", own)

  def init(problem, state, key):
    del state, key
    shared = SHARED in jax.tree.leaves(problem.owner)
    if len(problem.modalities) > 1 and shared:
      raise InputError(
        "unimodal needs a head of its own for each modality: use fusion=sum"
      )
    return ()

  def predict(outputs, method_state):
    del method_state
    return jnp.stack(list(outputs.unimodal.values())).mean(axis=0)

  kept = None if modality is None else (modality,)
  return from_loss(loss, init=init, predict=predict, modalities=kept)
