r"""The objective of all methods with a matching weight α.

.. math:: L_{Total} = (1-\alpha)\, L_{CLS} + \alpha\, L_{MM}, \qquad
  L_{CLS} = \mathrm{CE}(o) + w \sum_m \mathrm{CE}(o_m)

Reference: the paper, eq. 1, where w is 0. The cross-entropies of the modalities
are the supervised part of MMPareto (Wei & Hu, ICML 2024).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.errors import unknown
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import Loss, check_range
from dmg_jax.methods.joint import classification
from dmg_jax.types import Batch, Outputs

KINDS = ("info_nce", "divergence")


@dataclasses.dataclass(frozen=True)
class Matching:
  """The modality-matching loss ``L_MM``, the mean over pairs of modalities.

  A sample that lacks one of the two is neither matched nor a negative.

  Attributes:
    kind: ``info_nce`` between features (the paper) or ``divergence`` between
      unimodal predictions (the released code).
    temperature: τ of InfoNCE; the paper gives no value.
    scaled: divide InfoNCE by ``log n``, its value for uninformative features,
      so that α has the same effect at every batch size n.
  """

  kind: str = "info_nce"
  temperature: float = 0.1
  scaled: bool = False

  def __post_init__(self):
    if self.kind not in KINDS:
      raise unknown("matching", self.kind, KINDS)
    check_range("temperature", self.temperature, 1e-3, 1e3)

  def __call__(self, outputs: Outputs, batch: Batch) -> jax.Array:
    """``L_MM`` of a batch, in nats (in units of ``log n`` if scaled)."""
    if self.kind == "divergence":
      return losses.over_pairs(losses.divergence, outputs.unimodal, batch)
    nce = functools.partial(losses.info_nce, temperature=self.temperature)
    if not self.scaled:
      return losses.over_pairs(nce, outputs.features, batch)
    if batch.present is None:
      return losses.over_pairs(nce, outputs.features, batch) / _log(batch.mask)
    return losses.over_pairs(
      lambda x, y, mask: nce(x, y, mask) / _log(mask), outputs.features, batch
    )

  def read(self, outputs: Outputs) -> Mapping[str, jax.Array]:
    """{modality: [b ...]}, what is matched."""
    predicted = self.kind == "divergence"
    return outputs.unimodal if predicted else outputs.features

  def of_pair(
    self, x: jax.Array, y: jax.Array, mask: jax.Array, temperature: Any
  ) -> jax.Array:
    """The loss of a pair at a temperature, which may be traced."""
    if self.kind == "divergence":
      return losses.divergence(x, y, mask)
    value = losses.info_nce(x, y, mask, temperature)
    return value / _log(mask) if self.scaled else value


def _log(mask: jax.Array) -> jax.Array:
  """``log n`` of the number of samples, at least 2."""
  return jnp.log(jnp.maximum(mask.sum(), 2.0))


def make_total(matching: Matching, unimodal_weight: float = 0.0) -> Loss:
  """``L_Total`` as ``(outputs, batch, alpha) -> (scalar, terms)``.

  Args:
    matching: ``L_MM``.
    unimodal_weight: w >= 0; meant for fusions with own heads.
  """
  check_range("unimodal_weight", unimodal_weight, 0, 1e6)

  def total(outputs: Outputs, batch: Batch, alpha: jax.Array):
    cls, _ = classification(outputs, batch)
    if unimodal_weight:
      cls = cls + unimodal_weight * _terms.total(_terms.own(outputs, batch))
    mm = matching(outputs, batch)
    value = (1 - alpha) * cls + alpha * mm
    return value, {"cls": cls, "matching": mm, "alpha": alpha}

  return total
