"""The samples of one step."""

from __future__ import annotations

import dataclasses
from typing import Any

# An array of numpy or jax, a tracer, a sharding, a shape or None.
Leaf = Any


@dataclasses.dataclass(frozen=True)
class Batch:
  """Samples of one step; a pytree once ``dmg_jax.types`` is imported.

  Attributes:
    inputs: {modality: array (or pytree of arrays) with leading axis ``b``}. A
      modality whose samples [t d] differ in length is ``{"values": [b t d],
      "mask": [b t]}``, with mask 1 for a step, 0 for padding.
    labels: int [b], class of each sample; any valid class where ``mask`` is 0.
    mask: float [b], 1 for a sample, 0 for padding. Padding has no influence on
      anything.
    index: int [b], position of each sample in its split.
    weight: float [b], factor of each sample's cross-entropy; ``None`` stands
      for 1.
    present: {modality: float [b]}, 1 where the sample has that modality, 0
      where it is missing or padding. Modalities that are not in it are never
      missing; ``None`` stands for ``{}``. What a missing input holds has no
      influence on anything.

  Example:

    >>> import dmg_jax, numpy as np
    >>> sensor, labels = np.zeros((2, 3)), np.array([0, 1])
    >>> batch = dmg_jax.Batch(
    ...   {"sensor": sensor}, labels, mask=np.ones(2), index=np.arange(2)
    ... )
    >>> batch.replace(mask=np.zeros(2)).mask
    array([0., 0.])
  """

  inputs: dict[str, Any]
  labels: Leaf
  mask: Leaf
  index: Leaf
  weight: Leaf = None
  present: dict[str, Leaf] | None = None

  def replace(self, **changes: Any) -> Batch:
    """The batch with some of its fields replaced."""
    return dataclasses.replace(self, **changes)

  def having(self, *modalities: str) -> Leaf:
    """[b], 1 for samples, padding left out, that have all of the modalities."""
    mask = self.mask
    for m in modalities:
      if self.present is not None and m in self.present:
        mask = mask * self.present[m]
    return mask
