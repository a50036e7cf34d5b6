r"""Channel fusion (MMTM): encoders gate each other's channels.

Between the last ``exchanges`` pairs of encoder stages, with maps A_m [b … c]:

.. math:: h = \mathrm{ReLU}(F [\mathrm{GAP}(A_1); \dots; \mathrm{GAP}(A_M)]),
  \quad g_m = s\, \sigma(G_m h), \quad A_m \leftarrow A_m \odot g_m

dim h = 2 Σ c_m / ``ratio``, and GAP is the mean over time and space. The fused
logits are the mean of own linear heads. Needs encoders with stages. For the
method ``greedy``, the variables ``gates`` hold the cumulative mean ḡ_m of each
gate over training batches, and ``care``, the index of the modality whose gates
are replaced by ḡ_m (-1 for none); an optional ``mask`` [b] excludes padding
from ḡ_m. The GAP of a missing modality is zero, and its gates do not count in
ḡ_m. Extra output: ``exchanges``. Read-out R2 (own head). Supports any
number of modalities.

Deviations:
1. s = ``gate_scale`` is 1 as in the official code; the paper's equation has 2.
2. Stages that return vectors (of words) count as maps with a single cell.

Reference: Joze, Shaban, Iuzzolino, Koishida, "MMTM", CVPR 2020, eqs. 1-4.
Official: haamoon/mmtm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import missing
from dmg_jax.errors import InputError, unknown
from dmg_jax.model.fusion import sum as late
from dmg_jax.types import Card, Fused

READOUT = "R2 own head"
CARD = Card(
  "fusion", "A_m ← A_m ⊙ σ(G_m ReLU(F[GAP(A_1); …]))", "Joze et al., CVPR 2020"
)
GATE_SCALES = (1, 2)
_INIT = nn.initializers.xavier_normal()


class Fusion(nn.Module):
  """MMTM between stages, then the mean of own heads.

  Attributes:
    num_classes: k.
    exchanges: largest number of exchanges, at the last stages; 0 means none.
    ratio: ratio > 0 that sets the inner size, see above.
    gate_scale: s, 1 or 2.
  """

  num_classes: int
  exchanges: int = 3
  ratio: float = 4.0
  gate_scale: float = 1.0

  def setup(self):
    if self.exchanges < 0 or not self.ratio > 0:
      raise InputError(
        "channel needs exchanges >= 0 and ratio > 0, got "
        f"{self.exchanges!r} and {self.ratio!r}"
      )
    if self.gate_scale not in GATE_SCALES:
      raise unknown("gate_scale", self.gate_scale, GATE_SCALES)
    self.exchange = Exchange(self.exchanges, self.ratio, self.gate_scale)
    self.heads = late.Fusion(self.num_classes, mean=True)

  def encode(
    self,
    encoders: Mapping[str, Any],
    inputs: Mapping,
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> dict[str, Float[Array, "b _"]]:
    """Features of all modalities, with exchanges between the stages."""
    return self.exchange(encoders, inputs, train, present)

  def __call__(
    self,
    features: Mapping[str, Float[Array, "b _"]],
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused:
    logits, unimodal, _ = self.heads(features, train, present)
    return Fused(logits, unimodal, {"exchanges": jnp.ones(())})


class Exchange(nn.Module):
  """Runs encoders stage by stage, with an ``MMTM`` after each of the last."""

  exchanges: int
  ratio: float
  gate_scale: float

  @nn.compact
  def __call__(self, encoders: Mapping[str, Any], inputs, train, present):
    for m, encoder in encoders.items():
      if not hasattr(encoder, "stages"):
        raise InputError(
          f"channel needs encoders with stages, but {type(encoder).__name__} "
          f"of {m!r} has none: use another encoder or another fusion"
        )
    count = min(self.exchanges, *(e.stages for e in encoders.values()))
    at = {m: e.stages - count for m, e in encoders.items()}
    x = {
      m: e(inputs[m], train, 0, at[m] + 1) if count else inputs[m]
      for m, e in encoders.items()
    }
    for i in range(count):
      mmtm = MMTM(self.ratio, self.gate_scale, name=f"mmtm_{i}")
      x = mmtm(x, train, present)
      x = {
        m: e(x[m], train, at[m] + i + 1, at[m] + i + 2)
        for m, e in encoders.items()
      }
    return x if count else {m: e(inputs[m], train) for m, e in encoders.items()}


class MMTM(nn.Module):
  """Squeezes the maps of all modalities and gates each one."""

  ratio: float
  gate_scale: float

  @nn.compact
  def __call__(self, maps: Mapping[str, Array], train: bool, present=None):
    means = [
      missing.where(present, m, a.mean(axis=tuple(range(1, a.ndim - 1))), 0)
      for m, a in maps.items()
    ]
    squeezed = jnp.concatenate(means, axis=-1)
    width = max(int(2 * squeezed.shape[-1] / self.ratio), 1)
    h = nn.relu(nn.Dense(width, kernel_init=_INIT, name="squeeze")(squeezed))
    care = self.variable("gates", "care", lambda: jnp.full((), -1, jnp.int32))
    seen = self.variable("gates", "seen", jnp.zeros, (), jnp.float32)
    rows = jnp.ones(squeezed.shape[0], jnp.float32)
    if self.has_variable("gates", "mask"):
      rows = self.get_variable("gates", "mask")
    gated = {}
    for i, (m, a) in enumerate(maps.items()):
      excite = nn.Dense(a.shape[-1], kernel_init=_INIT, name=f"gate_{m}")
      gate = self.gate_scale * jax.nn.sigmoid(excite(h))
      mean = self.variable(
        "gates", f"mean_{m}", jnp.zeros, a.shape[-1:], gate.dtype
      )
      if train and self.is_mutable_collection("gates"):
        own = rows
        if present is not None and m in present:
          own = rows * present[m]
        own = own / jnp.maximum(own.sum(), 1.0)
        new = own.astype(gate.dtype) @ jax.lax.stop_gradient(gate)
        mean.value = (mean.value * seen.value + new) / (seen.value + 1)
      gate = jnp.where(care.value == i, mean.value[None, :], gate)
      shape = gate.shape[0], *(1,) * (a.ndim - 2), -1
      gated[m] = a * gate.reshape(shape).astype(a.dtype)
    if train and self.is_mutable_collection("gates"):
      seen.value = seen.value + 1
    return gated
