r"""ARL: trains most the encoder whose predictions are certain but count little.

.. math:: L = \mathrm{CE}(o) + \gamma \sum_m \mathrm{CE}(o_m), \qquad
  g_{\theta_m} \leftarrow (1 + w_m)\, g_{\theta_m}, \qquad
  w = \mathrm{softmax}_m\bigl(T\, u_m\, \mathrm{mean}_{j \ne m}\, c_j\bigr)
.. math:: c_m \propto \mathrm{mean}_i \| o_{m,i} \|_1, \quad
  u_m \propto \frac{1}{\max(h_m, .6 / M)}, \quad
  h_m \propto \mathrm{mean}_i H(\mathrm{softmax}(o_{m,i})), \quad
  \sum_m c_m = \sum_m u_m = \sum_m h_m = 1

for the weights θ_m of encoder m; heads have the gradient of L. The entropy H
stands for the variance of a modality's predictions, and c for how much the
fused prediction depends on it: dependence is to be inverse to variance. In the
first ``warmup`` epochs, γ and 1 + w are 1. Adaptive optimisers such as Adam
cancel most of a factor of the gradient; the official one is SGD. Supports any
number of modalities; a single one has w = 1.

Reference: Wei, Luo, Luo, "Improving Multimodal Learning via Imbalanced
Learning", ICCV 2025. Official: shicaiwei123/ICCV2025-ARL.

Deviations:
1. The official code computes w and never uses it: both encoders have the
   constant ½, which is ``faithful=True`` (1/M here).
2. What it computes could act in the next step at the earliest; here w is that
   of the same step.
3. It supports two modalities, where the mean over j is the other's share, and
   the least share of the entropy is .3. Where all are certain (or all logits
   zero), shares are equal; officially they become 0/0.
4. With the fusion ``concat``, the official o_m has the whole bias; here it is
   the read-out of the fusion, with b/M.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.methods import _rates, _terms
from dmg_jax.methods._adapters import check_range, from_modulation, scalar
from dmg_jax.types import Card, Method

CARD = Card(
  "gradient",
  "CE(o) + γ Σ CE(o_m), g ← (1 + w_m) g, w from 1/H(p_m)",
  "Wei et al., ICCV 2025",
)


def make(
  *,
  gamma: float = 4.0,
  temperature: float = 8.0,
  warmup: int = 6,
  faithful: bool = False,
) -> Method:
  """The ARL method.

  Args:
    gamma: weight γ ≥ 0 of the unimodal losses; officially 4 (CREMA-D) and 3
      (Kinetics-Sounds).
    temperature: T ≥ 0, 0 for equal w; officially 8 (CREMA-D) and 4.
    warmup: number of initial epochs without weights; officially 6.
    faithful: equal weights, see deviation 1.
  """
  check_range("gamma", gamma, 0, 1e6)
  check_range("temperature", temperature, 0, 1e6)
  check_range("warmup", warmup, 0, 1e9)

  def loss(outputs, batch, active):
    cls = _terms.cross_entropy(outputs.logits, batch)
    own = _terms.own(outputs, batch)
    weight = jnp.where(active > 0, gamma, 1.0)
    value = cls + weight * _terms.total(own)
    return value, {"cls": cls, **_terms.named("cls", own)}

  def modulate(problem, grads, outputs, batch, active, key):
    del key
    w = weights(outputs.unimodal, batch, 0.0 if faithful else temperature)
    factors = {m: jnp.where(active > 0, 1 + v, 1.0) for m, v in w.items()}
    grads = _rates.scaled(problem, grads, factors)
    return grads, active, _terms.named("weight", w)

  def between_epochs(problem, state, data, epoch):
    del problem, data
    return state.replace(method=scalar(epoch >= warmup))

  return from_modulation(
    loss,
    modulate,
    init=lambda problem, state, key: scalar(warmup <= 0),
    between_epochs=between_epochs,
    diagnostics=("weight",),
  )


def weights(unimodal, batch, temperature):
  """{modality: w_m} of a batch."""
  c = shares({m: jnp.abs(o).sum(axis=-1) for m, o in unimodal.items()}, batch)
  h = shares({m: entropy(o) for m, o in unimodal.items()}, batch)
  u = 1 / jnp.maximum(h, 0.6 / len(unimodal))
  u = u / u.sum()
  others = (c.sum() - c) / max(len(unimodal) - 1, 1)
  w = jax.nn.softmax(temperature * u * others)
  return dict(zip(unimodal, w, strict=True))


def shares(values, batch):
  """[m], means over samples, divided by their sum; equal if all are zero."""
  means = {m: losses.masked_mean(v, batch.having(m)) for m, v in values.items()}
  known = jnp.stack(list(_terms.filled(means, batch).values()))
  whole = known.sum()
  divided = known / jnp.where(whole > 0, whole, 1.0)
  return jnp.where(whole > 0, divided, 1 / len(values))


def entropy(logits):
  """Entropy of the softmax of each row [b], in nats."""
  log_p = jax.nn.log_softmax(logits)
  return -(jnp.exp(log_p) * log_p).sum(axis=-1)
