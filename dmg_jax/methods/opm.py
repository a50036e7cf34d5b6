r"""OPM: drops features of the leading modality at random.

.. math:: \rho_m = \frac{s_m}{\mathrm{mean}_{j \ne m} s_j}, \quad
  q_m = \begin{cases} \mathrm{clip}(q (1 + \lambda \tanh(\rho_m - 1)), 0, 1)
  & \rho_m > 1 \\ 0 & \text{otherwise} \end{cases}
.. math:: \tilde z_{m,i} = \frac{k_{m,i}\, z_{m,i}}{1 - \theta}, \quad
  k_{m,i} \sim \mathrm{Bernoulli}(1 - q_m), \quad
  \theta = \frac{\sum_m d_m q_m}{\sum_m d_m}

where s_m is the sum of true-class probabilities of the unimodal read-out and
d_m the number of features. After ``warmup`` epochs, each step drops features
with probability ``probability``; samples that lose all modalities are left out
of the loss. Nothing is dropped at test time. Supports any number of modalities.

Reference: Wei, Hu, Du, Wen, "On-the-fly Modulation for Balanced Multimodal
Learning", TPAMI 2024, eqs. 8-11. Official: GeWu-Lab/BML_TPAMI2024.

Deviation 1: for M > 2, ρ_m compares with the mean of the others.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import losses, missing
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import (
  check_range,
  differentiate,
  own_key,
  scalar,
)
from dmg_jax.types import Card, Method

CARD = Card(
  "forward",
  "z_m ← Bernoulli(1-q_m) z_m/(1-θ), q_m from ρ_m",
  "Wei et al., TPAMI 2024",
)


def make(
  *,
  base: float = 0.5,
  strength: float = 0.5,
  probability: float = 0.7,
  warmup: int = 6,
) -> Method:
  """The OPM method.

  Args:
    base: drop probability q at ρ = 1, in [0, 1); 0 gives joint training.
    strength: λ ≥ 0.
    probability: probability in [0, 1] that a step drops features at all.
    warmup: number of initial epochs without dropping; officially 6.
  """
  check_range("base", base, 0, 0.99)
  check_range("strength", strength, 0, 1e3)
  check_range("probability", probability, 0, 1)
  check_range("warmup", warmup, 0, 1e9)

  def step(problem, state, batch, key, apply):
    k_step, k_keep = jax.random.split(own_key(key))
    acts = jax.random.bernoulli(k_step, probability) & (state.method > 0)

    def loss(outputs, params):
      q = drop_rates(outputs.unimodal, batch, base, strength)
      q = {m: jnp.where(acts, v, 0.0) for m, v in q.items()}
      features, mask = drop(
        outputs.features, batch.mask, q, k_keep, batch.present
      )
      fused = problem.fuse(
        params, state.stats, features, own_key(key), True, batch.present
      )
      value = losses.masked_mean(_terms.each(fused.logits, batch), mask)
      return value, {"cls": value, **_terms.named("drop", q)}

    done = differentiate(loss, problem, state, batch, key)
    return apply(done.state, done.grads), done.metrics

  def between_epochs(problem, state, data, epoch):
    del problem, data
    return state.replace(method=scalar(epoch >= warmup))

  return Method(
    step=step,
    init=lambda problem, state, key: scalar(warmup <= 0),
    between_epochs=between_epochs,
    diagnostics=("drop",),
  )


def drop_rates(unimodal, batch, base, strength):
  """{modality: q_m} of a batch."""
  rho = _terms.ratios(_terms.scores(unimodal, batch))
  return {
    m: jnp.where(
      r > 1, jnp.clip(base * (1 + strength * jnp.tanh(r - 1)), 0, 1), 0.0
    )
    for m, r in rho.items()
  }


def drop(features, mask, q, key, present=None):
  """Features after dropping and rescaling; the mask of remaining samples."""
  sizes = {m: z.shape[-1] for m, z in features.items()}
  theta = sum(sizes[m] * q[m] for m in q) / sum(sizes.values())
  keys = jax.random.split(key, len(features))
  keep = {
    m: jax.random.bernoulli(k, 1 - q[m], mask.shape)
    for m, k in zip(features, keys, strict=True)
  }
  rest = jnp.maximum(1 - theta, 1e-6)
  kept = {
    m: (z * keep[m][:, None] / rest).astype(z.dtype)
    for m, z in features.items()
  }
  left = {m: missing.where(present, m, k, False) for m, k in keep.items()}
  return kept, mask * jnp.stack(list(left.values())).any(axis=0)
