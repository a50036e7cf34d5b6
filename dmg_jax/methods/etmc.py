r"""Loss of ETMC: evidential cross-entropy of every view, and an annealed KL.

.. math:: L = \sum_{v} \frac{1}{n} \sum_i \sum_c y_c (\psi(S) - \psi(a_c)) +
  \lambda\, \mathrm{KL}(\mathrm{Dir}(\tilde a) \| \mathrm{Dir}(1)), \quad
  \tilde a = y + (1 - y) \odot a, \quad \lambda = \min(1, e / T)

The views v are the modalities, the pseudo-view and the fused prediction; e is
the 0-based epoch and T is ``anneal``. With the fusion option
``pseudo_view=False`` this is TMC. Needs the fusion ``etmc``. Supports any
number of modalities.

Reference: Han, Zhang, Fu, Zhou, TPAMI 2023, eqs. 10-15. Official:
hanmenghan/TMC (Adam 1e-4, weight decay 1e-5, T = 10).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

from dmg_jax import losses
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range, from_loss, scalar
from dmg_jax.types import Card, Method

CARD = Card(
  "objective",
  "Σ_views E_Dir(a)[CE] + λ KL(Dir(ã)‖Dir(1))",
  "Han et al., TPAMI 2023",
)


def make(*, anneal: int = 10) -> Method:
  """The ETMC (or TMC) method.

  Args:
    anneal: number of epochs T > 0 until the KL has its full weight.
  """
  check_range("anneal", anneal, 1, 1e9)

  def loss(outputs, batch, lam):
    extra = outputs.extra
    views = {**outputs.unimodal, "fused": outputs.logits}
    if "pseudo" in extra:
      views["pseudo"] = extra["pseudo"]
    each = {
      v: losses.masked_mean(
        losses.weighted(evidential(jnp.exp(log_a), batch.labels, lam), batch),
        batch.having(v),
      )
      for v, log_a in views.items()
    }
    return _terms.total(each), {**_terms.named("edl", each), "lambda": lam}

  def init(problem, state, key):
    del state, key
    _needs.extra(problem, "evidential", "etmc", "etmc")
    return scalar(0.0)

  def between_epochs(problem, state, data, epoch):
    del problem, data
    return state.replace(method=scalar(min(1.0, epoch / anneal)))

  return from_loss(
    loss, init=init, between_epochs=between_epochs, diagnostics=("lambda",)
  )


def evidential(a: jax.Array, labels: jax.Array, lam: jax.Array) -> jax.Array:
  """The loss of each sample [b] for Dirichlet parameters a [b k]."""
  y = jax.nn.one_hot(labels, a.shape[-1], dtype=a.dtype)
  total = a.sum(axis=-1, keepdims=True)
  expected = (y * (digamma(total) - digamma(a))).sum(axis=-1)
  return expected + lam * divergence_from_uniform(y + (1 - y) * a)


def divergence_from_uniform(a: jax.Array) -> jax.Array:
  """``KL(Dir(a) ‖ Dir(1))`` of each row, in nats."""
  total = a.sum(axis=-1, keepdims=True)
  inner = (a - 1) * (digamma(a) - digamma(total))
  return (
    gammaln(total[:, 0])
    - gammaln(a).sum(axis=-1)
    - gammaln(jnp.asarray(a.shape[-1], a.dtype))
    + inner.sum(axis=-1)
  )
