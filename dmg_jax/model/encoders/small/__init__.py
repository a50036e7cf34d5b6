"""Small encoders, trained from scratch, for pictures, words and arrays.

Each is a chain of stages: ``encoder(x, train)`` runs all of them, and
``encoder(x, train, first, last)`` those from ``first`` up to, but not
including, ``last``. The first ``encoder.stages`` stages return maps [b ... c]
with channels last; the final one, number ``stages``, turns a map into features
[b d]. A fusion that exchanges information between encoders (``channel``) runs
them stage by stage.
"""

from dmg_jax.model.encoders.small._parts import NORMS
from dmg_jax.model.encoders.small.arrays import MLP
from dmg_jax.model.encoders.small.pictures import ConvNet
from dmg_jax.model.encoders.small.recurrent import GRU, LSTM
from dmg_jax.model.encoders.small.sounds import ConvNet1D
from dmg_jax.model.encoders.small.transformer import Transformer
from dmg_jax.model.encoders.small.words import WordBag

__all__ = [
  "GRU",
  "LSTM",
  "MLP",
  "NORMS",
  "ConvNet",
  "ConvNet1D",
  "Transformer",
  "WordBag",
]
