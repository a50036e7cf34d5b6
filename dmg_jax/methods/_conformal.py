r"""A conformal predictor: which classes a prediction does not rule out.

.. math:: \{c : 1 - p_c \le \tau\}, \qquad
  \tau = \text{the } \lceil (n + 1)(1 - \alpha) \rceil \text{-th smallest }
  1 - p_y

over n samples that training does not see. The set has the class of a new sample
with a probability of at least 1 - α.

Reference: Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World",
2005; Angelopoulos & Bates, Foundations and Trends in Machine Learning, 2023.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax.errors import UnsuitableError
from dmg_jax.methods import _epochs, _terms
from dmg_jax.methods._adapters import scalar


def reliability(logits, classes, limit):
  """R [b], 1 / rank of the class, or 0 outside of the conformal set."""
  p = jax.nn.softmax(jax.lax.stop_gradient(logits))
  own = jnp.take_along_axis(p, classes[:, None], axis=-1)
  rank = 1 + (p > own).sum(axis=-1)
  return jnp.where(own[:, 0] >= 1 - limit, 1 / rank, 0).astype(p.dtype)


def limits(problem, state, batches, alpha, faithful):
  """{modality or "fused": τ []}, calibrated on the batches of outer.

  Raises:
    UnsuitableError: there are none.
  """
  found = _epochs.sweep(doubts, problem, state, batches)
  if found is None:
    raise UnsuitableError("cpsc calibrates on the split outer, which is empty")
  made = {}
  for h, each in found["doubts"].items():
    (there,) = _epochs.having(found, h, each)
    made[h] = scalar(threshold(there, alpha, faithful))
  return made


def doubts(problem, params, stats, batch):
  """A ``look`` for ``sweep``: 1 - p_y of each modality and together."""
  outputs, _ = problem.run(params, stats, batch)
  heads = {**outputs.unimodal, "fused": outputs.logits}
  there = {m: row > 0 for m, row in (batch.present or {}).items()}
  each = {h: 1 - _terms.true_class(o, batch.labels) for h, o in heads.items()}
  return {"doubts": each, "present": there}


def threshold(doubt, alpha, faithful):
  """τ of the scores [n]; 1, which trusts every class, if n is too small."""
  ordered, n = np.sort(doubt), len(doubt)
  if faithful and n:
    return float(ordered[min(math.ceil((1 - alpha) * n), n - 1)])
  place = math.ceil((n + 1) * (1 - alpha) - 1e-9)
  return float(ordered[place - 1]) if place <= n else 1.0
