"""Sums and means over the modalities that a sample has.

``present`` is that of a batch or of outputs: {modality: [b]}, 1 where the
modality is there; those that are not in it are never missing, and ``None``
stands for ``{}``.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dmg_jax.types import Leaf

Present = Mapping[str, Leaf]


def where(
  present: Present | None, modality: str, x: Leaf, other: float
) -> Leaf:
  """``x`` [b ...] where the modality is there, else ``other``."""
  if present is None or modality not in present:
    return x
  there = (present[modality] > 0).reshape(-1, *(1,) * (x.ndim - 1))
  return jnp.where(there, x, jnp.asarray(other, x.dtype))


def total(values: Mapping[str, Leaf], present: Present | None):
  """Σ of ``values``, {modality: [b ...]}, over what is there."""
  kept = [where(present, m, x, 0) for m, x in values.items()]
  return jnp.stack(kept).sum(axis=0)


def count(values: Mapping[str, Leaf], present: Present | None):
  """Number of the modalities of ``values`` that are there, at least 1 [b]."""
  ones = {m: jnp.ones(x.shape[:1], x.dtype) for m, x in values.items()}
  return jnp.maximum(total(ones, present), 1)


def mean(values: Mapping[str, Leaf], present: Present | None):
  """The mean of ``values``, {modality: [b ...]}, over what is there."""
  if present is None:
    return jnp.stack(list(values.values())).mean(axis=0)
  whole = total(values, present)
  number = count(values, present)
  return whole / number.reshape(-1, *(1,) * (whole.ndim - 1))


def projected(values: Mapping[str, Leaf], present: Present | None):
  """The number of modalities times ``mean``: Σ as if none were missing."""
  if present is None:
    return functools.reduce(operator.add, values.values())
  return len(values) * mean(values, present)


def softmax(scores: Mapping[str, Leaf], present: Present | None):
  """Softmax over modalities, stacked [m b ...]; 0 for what is missing."""
  kept = [
    where(present, m, s, float(jnp.finfo(s.dtype).min))
    for m, s in scores.items()
  ]
  return jax.nn.softmax(jnp.stack(kept), axis=0)
