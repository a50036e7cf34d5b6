r"""Modality dropout: hides modalities of training samples at random.

.. math:: p_{m,i} \leftarrow p_{m,i}\, k_{m,i}, \qquad
  k_{m,i} \sim \mathrm{Bernoulli}(1 - \rho)

where p is 1 for a modality that is there (``Batch.present``) and ρ is the rate.
A sample that would lose all of its modalities keeps all of them. What is hidden
counts as missing in everything that a method does. It is a baseline for data
with missing modalities; evaluation hides nothing.

Reference: Neverova, Wolf, Taylor, Nebout, "ModDrop: Adaptive Multi-Modal
Gesture Recognition", TPAMI 2016, section 3.3.

Deviation 1: there, a sample may lose everything.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from dmg_jax.types import Batch


def dropped(batch: Batch, rate: float, key: PRNGKeyArray) -> Batch:
  """The batch with modalities hidden at random; as it is at rate 0.

  Args:
    batch: of training.
    rate: ρ in [0, 1).
    key: of this step and use.
  """
  if not rate:
    return batch
  there = {m: batch.having(m) > 0 for m in batch.inputs}
  keys = jax.random.split(key, len(there))
  kept = {
    m: row & jax.random.bernoulli(k, 1 - rate, row.shape)
    for k, (m, row) in zip(keys, there.items(), strict=True)
  }
  some = jnp.stack(list(kept.values())).any(axis=0)
  present = {
    m: jnp.where(some, row, there[m]).astype(jnp.float32)
    for m, row in kept.items()
  }
  return batch.replace(present=present)
