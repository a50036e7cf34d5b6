r"""ML-LSTM: an LSTM reads the modalities of a sample as a sequence.

.. math:: h_m = \mathrm{LSTM}(P_m z_m, h_{m-1}), \qquad o = W h_M + b

Each z_m is projected to ``width`` and passed through ``layers`` stacked LSTMs;
a linear head reads the last hidden state. Supports any number of modalities,
which are read in their order; a missing one is read as zero.

Read-out R3 (feature ablation): the other elements of the sequence are P_j 0.
Deviation 1: the text and code of the paper were not available; this interprets
its abstract, which relates utterances and fuses modalities by LSTMs. Here a
sample is one utterance.

Reference: Nie, Yan, Song, Wang, "Multi-modal feature fusion based on
multi-layers LSTM for video emotion recognition", Multimedia Tools and
Applications 80(11), 2021.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import InputError
from dmg_jax.model.fusion import _ablation
from dmg_jax.types import Card, Fused

READOUT = _ablation.READOUT
CARD = Card(
  "fusion", "o = W LSTM(P_1 z_1, …, P_M z_M) + b", "Nie et al., MTA 2021"
)


class Fusion(nn.Module):
  """``layers`` stacked LSTMs of size ``width`` over the modalities."""

  num_classes: int
  width: int = 256
  layers: int = 2

  @nn.compact
  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    del train
    if self.width < 1 or self.layers < 1:
      raise InputError(
        "ml_lstm needs width and layers of at least 1, got "
        f"{self.width!r} and {self.layers!r}"
      )
    init = nn.initializers.xavier_normal()
    project = {
      m: nn.Dense(self.width, kernel_init=init, name=f"head_{m}")
      for m in features
    }
    lstms = [
      nn.RNN(nn.LSTMCell(self.width, name=f"lstm_{i}"))
      for i in range(self.layers)
    ]
    out = nn.Dense(self.num_classes, kernel_init=init, name="out")

    def head(z):
      steps = {m: project[m](z[m]) for m in features}
      steps = {m: missing.where(present, m, x, 0) for m, x in steps.items()}
      x = jnp.stack(list(steps.values()), axis=1)
      for lstm in lstms:
        x = cast(jnp.ndarray, lstm(x))
      return out(x[:, -1])

    return Fused(head(features), _ablation.alone(head, features))
