r"""Data Remixing: each sample trains only the modality that is weakest on it.

.. math:: g_i = \arg\min_m \mathrm{KL}(p_{m,i} \| u), \qquad
  L = \frac{1}{n} \sum_i \mathrm{CE}(o_i^{(g_i)}, y_i) +
  \gamma\, \mathrm{CE}(o_{g_i,i}, y_i)

where u is uniform, p_m = softmax(o_m), and o^(g) are the fused logits with the
features of all modalities but g at zero. g is measured on the whole training
split before every epoch from ``warmup`` on. Samples of the same g stand
together in the order of the epoch, so that a batch has one modality. Before,
the loss is CE(o) + α Σ_m CE(o_m), in random order.

A missing modality is never the weakest. Needs unimodal logits that are those of
the classifier, preferably own heads (fusion ``own_heads``). Supports any number
of modalities; with one of them, all samples are its own.

Reference: Ma, Chen, Deng, "Improving Multimodal Learning Balance and
Sufficiency through Data Remixing", ICML 2025. Official:
MatthewMaxy/Remix_ICML2025.

Deviations:
1. Where one modality ends and the next begins, a batch has samples of both, so
   that every sample is shown once an epoch and all batches have one size.
   Officially each modality has a smaller last batch.
2. Modalities come in the order of the data set; officially video is first.
3. A modality stands still in batches that do not show it; in the official code
   its encoder drifts with momentum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dmg_jax import losses
from dmg_jax.methods import _epochs, _rates, _terms
from dmg_jax.methods._adapters import check_range, differentiate, own_key
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "data",
  "CE(o) + γ CE(o_g) with z_g alone, g_i = argmin_m KL(p_m‖u)",
  "Ma et al., ICML 2025",
)


class State(struct.PyTreeNode):
  """State of Remix.

  Attributes:
    group: int [n], g_i of each training sample; -1 in the warm-up.
  """

  group: Leaf


def make(*, alpha: float = 0.5, gamma: float = 1.0, warmup: int = 10) -> Method:
  """The Data Remixing method.

  Args:
    alpha: weight α ≥ 0 of the unimodal losses in the warm-up.
    gamma: weight γ ≥ 0 of the unimodal loss after it.
    warmup: number of epochs ≥ 0 before the first measurement.
  """
  check_range("alpha", alpha, 0, 1e6)
  check_range("gamma", gamma, 0, 1e6)
  check_range("warmup", warmup, 0, 1e9)

  def step(problem, state, batch, key, apply):
    group = state.method.group[batch.index]
    warm = state.method.group[0] < 0
    shown = {
      m: batch.having(m) * (warm | (group == i))
      for i, m in enumerate(problem.modalities)
    }
    share = {m: rows.sum() / batch.mask.sum() for m, rows in shown.items()}

    def loss(outputs, params):
      kept = {
        m: jnp.where(shown[m][:, None] > 0, z, 0)
        for m, z in outputs.features.items()
      }
      fused = problem.fuse(
        params, state.stats, kept, own_key(key), True, batch.present
      )
      own = {}
      for m, o in outputs.unimodal.items():
        mean = losses.masked_mean(_terms.each(o, batch), shown[m])
        own[m] = jnp.where(warm, alpha, gamma * share[m]) * mean
      cls = _terms.cross_entropy(fused.logits, batch)
      return cls + _terms.total(own), {"cls": cls, **_terms.named("cls", own)}

    done = differentiate(loss, problem, state, batch, key)
    turn = {m: jnp.where(warm | (s > 0), 1.0, 0.0) for m, s in share.items()}
    scale = _rates.own_scale(problem, turn)
    metrics = {**done.metrics, **_terms.named("share", share)}
    return apply(done.state, done.grads, scale), metrics

  def init(problem, state, key):
    del state, key
    return State(jnp.full(problem.samples, -1, jnp.int32))

  def between_epochs(problem, state, data, epoch):
    if epoch < warmup:
      return state
    found = _epochs.sweep(weakest, problem, state, data.batches("train"))
    group = np.zeros(problem.samples, np.int32)
    group[found["index"]] = found["group"]
    return state.replace(method=State(jnp.asarray(group)))

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    order=order,
    diagnostics=("share",),
  )


def weakest(problem, params, stats, batch):
  """A ``look`` for ``sweep``: g_i, the modality of the largest entropy.

  KL(p ‖ u) is log k minus the entropy of p.
  """
  outputs, _ = problem.run(params, stats, batch)
  found = []
  for m in problem.modalities:
    log_p = jax.nn.log_softmax(outputs.unimodal[m])
    entropy = -(jnp.exp(log_p) * log_p).sum(axis=-1)
    found.append(jnp.where(batch.having(m) > 0, entropy, -1))
  group = jnp.stack(found).argmax(axis=0).astype(jnp.int32)
  return {"group": group, "index": batch.index}


def order(problem, mstate, key, epoch):
  """Sample indices in random order, but those of one modality together."""
  del problem, epoch
  shuffled = jax.random.permutation(key, len(mstate.group))
  return shuffled[jnp.argsort(mstate.group[shuffled], stable=True)]
