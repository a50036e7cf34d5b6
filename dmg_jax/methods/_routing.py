r"""Gradients of a head, kept in directions that other features leave flat.

.. math:: P = V \mathrm{diag}\Bigl(\exp\Bigl(-\tau\, \frac{\lambda -
  \min \lambda}{\max \lambda - \min \lambda}\Bigr)\Bigr) V^\top, \qquad
  \sum_b r_b r_b^\top = V \mathrm{diag}(\lambda) V^\top

where r_b are the mean features of a modality on batch b. P is the identity
where all λ are equal.

Reference: Jiang, Chi, Yang (IGM), IJCAI 2025.
"""

from __future__ import annotations

import jax
import numpy as np

from dmg_jax.methods import _epochs


def project(problem, grads, projection):
  """Gradients with ``P ∇W`` for the matrix of each head."""

  def change(g, owner):
    m, _, part = owner.partition("/")
    return projection[m] @ g if part == "head" and g.ndim == 2 else g

  return jax.tree.map(change, grads, problem.owner)


def features(problem, params, stats, batch):
  """A ``look`` for ``sweep``: features, and who has them."""
  outputs, _ = problem.run(params, stats, batch)
  there = {m: row > 0 for m, row in (batch.present or {}).items()}
  return {"features": outputs.features, "present": there}


def covariance(problem, state, batches, modality):
  """Σ r rᵀ over batches, r the mean features of those that have it."""
  d = problem.sizes[modality]
  total = np.zeros((d, d))
  for batch in batches:
    found = _epochs.sweep(features, problem, state, [batch])
    z = found["features"][modality]
    (z,) = _epochs.having(found, modality, z)
    r = z.astype(np.float64).mean(axis=0) if len(z) else np.zeros(d)
    total += np.outer(r, r)
  return total


def matrix(seen, temperature):
  """P of a covariance."""
  value, vector = np.linalg.eigh(seen)
  spread = value.max() - value.min()
  scaled = (value - value.min()) / (spread if spread > 0 else 1)
  return (vector * np.exp(-temperature * scaled)) @ vector.T
