r"""DGL: encoders learn from unimodal losses, the fusion from the fused one.

.. math:: g_{\theta_m} = \alpha\, \nabla_{\theta_m} \sum_j
  \mathrm{CE}(\hat o_j), \qquad
  g_\phi = \nabla_\phi \mathrm{CE}\bigl(f_\phi(\mathrm{sg}(z_1), \dots,
  \mathrm{sg}(z_M))\bigr), \qquad
  \hat o_m = f_\phi(0, \dots, z_m, \dots, 0)

with the weights θ_m of encoder m, the weights φ of the fusion f, and sg, which
stops the gradient. A unimodal prediction ô_m is that of the fusion itself for a
sample that has modality m alone, whatever read-out the fusion declares: the
weights of the fusion are shared, but the unimodal losses do not change them.
Heads that are no part of the fused prediction (those of ``own_heads``) are not
trained. Needs encoders that do not exchange information. Supports any number of
modalities.

Reference: Wei, Luo, Luo, "Boosting Multimodal Learning via Disentangled
Gradient Learning", ICCV 2025. Official: shicaiwei123/ICCV2025-GDL.

Deviation 1: the official code clips the gradient at norm 40; here that is an
option of the optimiser (``clip_norm``).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range, differentiate, own_key
from dmg_jax.types import Card, Method

CARD = Card(
  "gradient",
  "∇θ_m: α Σ CE(f(z_m alone)), ∇φ: CE(f(sg z))",
  "Wei et al., ICCV 2025",
)


def make(*, alpha: float = 4.0) -> Method:
  """The DGL method.

  Args:
    alpha: weight α ≥ 0 of the unimodal losses; officially 4 or 5 (CREMA-D).
  """
  check_range("alpha", alpha, 0, 1e6)

  def step(problem, state, batch, key, apply):
    def fuse(params, features, present):
      return problem.fuse(
        params, state.stats, features, own_key(key), True, present
      ).logits

    def loss(outputs, params):
      still = jax.lax.stop_gradient
      fused = fuse(params, still(outputs.features), batch.present)
      cls = _terms.cross_entropy(fused, batch)
      own = {
        m: _terms.cross_entropy(fuse(still(params), z, there), batch, m)
        for m, (z, there) in alone(outputs.features, batch).items()
      }
      terms = {"cls": cls, **_terms.named("cls", own)}
      return cls + alpha * _terms.total(own), terms

    done = differentiate(loss, problem, state, batch, key)
    return apply(done.state, done.grads), done.metrics

  def init(problem, state, key):
    del state, key
    _needs.independent_readout(problem, "dgl")
    return ()

  return Method(step=step, init=init)


def alone(features, batch):
  """{modality: (features, present)} as if it were all that a sample has."""
  missing = jnp.zeros_like(batch.mask)
  return {
    m: (
      {j: z if j == m else jnp.zeros_like(z) for j, z in features.items()},
      {j: batch.having(m) if j == m else missing for j in features},
    )
    for m in features
  }
