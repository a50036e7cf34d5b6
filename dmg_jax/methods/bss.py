r"""BSS: shows balanced samples first, in an order measured on the model.

.. math:: L = w_c\, \mathrm{CE}(o) + w_u \sum_m \mathrm{CE}(o_m), \qquad
  d_i = (1 - \hat s_i) + \hat \ell_i, \quad
  s_i = \mathrm{mean}_{j<l} \cos(p_{j,i}, p_{l,i})

where ℓ_i is the loss of sample i, p_m = softmax(o_m), and a hat denotes scaling
to [0, 1] over the training split. With ``scheduler="learning"``, d is measured
before each epoch, and all samples are drawn without replacement with
probability ∝ 2.01 - d. With ``"heuristic"``, d is measured once, before epoch
``measure_epoch``, and epoch e counted from there uses the fraction λ_e of
samples with the smallest d,

.. math:: \lambda_e = \min\Bigl(1, \sqrt{\tfrac{1 - \lambda_0^2}{T}\,
  (e + 1) + \lambda_0^2}\Bigr)

The prediction is γ o + Σ_m o_m. For a sample that lacks modalities, sums over m
are M times the mean over those that it has. Works best with own heads (fusion
``own_heads``). Supports any number of modalities.

Reference: Guan, Jiang, Yang, "Balance-aware Sequence Sampling Makes Multi-modal
Learning Better", IJCAI 2025. Official: njustkmg/IJCAI25-BSS.

Deviations:
1. d is measured in evaluation mode; the official code measures it in training
   mode, which also updates the running statistics.
2. Every epoch has the same number of steps: the samples of the heuristic are
   repeated in new random orders; officially, early epochs are shorter.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax import losses, missing
from dmg_jax.errors import unknown
from dmg_jax.methods import _epochs, _terms
from dmg_jax.methods._adapters import check_range, from_loss
from dmg_jax.types import Card, Method

CARD = Card(
  "data",
  "CE(o) + Σ CE(o_m), samples ordered by d_i, balanced ones first",
  "Guan et al., IJCAI 2025",
)
SCHEDULERS = ("learning", "heuristic")


def make(
  *,
  scheduler: str = "learning",
  fused_weight: float = 1.0,
  unimodal_weight: float = 1.0,
  predict_fused: float = 1.0,
  initial: float = 0.1,
  grow_epochs: int = 40,
  measure_epoch: int = 0,
) -> Method:
  """The BSS method.

  Args:
    scheduler: ``learning`` or ``heuristic``.
    fused_weight, unimodal_weight: w_c and w_u ≥ 0; officially .1 and .9 on
      CREMA-D, 1 and 1 elsewhere.
    predict_fused: γ ≥ 0; officially 0 on CREMA-D, 1 elsewhere.
    initial, grow_epochs: λ_0 in (0, 1] and T > 0 of the heuristic.
    measure_epoch: epoch before which the heuristic measures d; until then the
      samples are shuffled.
  """
  if scheduler not in SCHEDULERS:
    raise unknown("scheduler", scheduler, SCHEDULERS)
  check_range("fused_weight", fused_weight, 0, 1e6)
  check_range("unimodal_weight", unimodal_weight, 0, 1e6)
  check_range("predict_fused", predict_fused, 0, 1e6)
  check_range("initial", initial, 1e-6, 1)
  check_range("grow_epochs", grow_epochs, 1, 1e9)
  check_range("measure_epoch", measure_epoch, 0, 1e9)

  def loss(outputs, batch, difficulty):
    del difficulty
    cls = _terms.cross_entropy(outputs.logits, batch)
    own = _terms.own(outputs, batch)
    value = fused_weight * cls + unimodal_weight * _terms.total(own)
    return value, {"cls": cls, **_terms.named("cls", own)}

  def between_epochs(problem, state, data, epoch):
    if scheduler == "heuristic" and epoch != measure_epoch:
      return state
    found = _epochs.sweep(measure, problem, state, data.batches("train"))
    each = fused_weight * found["fused"] + unimodal_weight * found["own"]
    d = np.zeros(problem.samples, np.float32)
    d[found["index"]] = 1 - scaled(found["alike"]) + scaled(each)
    return state.replace(method=jnp.asarray(d))

  def order(problem, difficulty, key, epoch):
    del problem
    if scheduler == "learning":
      return drawn(difficulty, key)
    if epoch < measure_epoch:
      return jax.random.permutation(key, len(difficulty))
    kept = share(epoch - measure_epoch, initial, grow_epochs)
    return easiest(difficulty, kept, key)

  def predict(outputs, difficulty):
    del difficulty
    own = missing.projected(outputs.unimodal, outputs.present)
    return predict_fused * outputs.logits + own

  return from_loss(
    loss,
    init=lambda problem, state, key: jnp.zeros(problem.samples, jnp.float32),
    between_epochs=between_epochs,
    order=order,
    predict=predict,
  )


def measure(problem, params, stats, batch):
  """A ``look`` for ``sweep``: losses, agreement and index of each sample.

  A class weight is no difficulty: these losses are without.
  """
  outputs, _ = problem.run(params, stats, batch)
  heads = {**outputs.unimodal, "fused": outputs.logits}
  each = {h: losses.cross_entropy(o, batch.labels) for h, o in heads.items()}
  own = {m: each[m] for m in outputs.unimodal}
  return {
    "fused": each["fused"],
    "own": missing.projected(own, batch.present),
    "alike": agreement(outputs.unimodal, batch),
    "index": batch.index,
  }


def agreement(unimodal, batch):
  """s_i [b], the mean over the pairs that a sample has; 1 without a pair."""
  units = {m: losses.unit(jax.nn.softmax(o)) for m, o in unimodal.items()}
  pairs = list(itertools.combinations(units, 2))
  alike = [(units[a] * units[b]).sum(axis=-1) for a, b in pairs]
  if not pairs:
    return jnp.ones_like(batch.mask)
  if batch.present is None:
    return jnp.stack(alike).mean(axis=0)
  there = jnp.stack([batch.having(*pair) for pair in pairs])
  both, number = (jnp.stack(alike) * there).sum(axis=0), there.sum(axis=0)
  return jnp.where(number > 0, both / jnp.maximum(number, 1), 1.0)


def scaled(x):
  """``x`` scaled to [0, 1] by its extremes; zero if all are equal."""
  spread = x.max() - x.min()
  return (x - x.min()) / max(spread, 1e-12)


def drawn(difficulty, key):
  """Sample indices drawn without replacement ∝ 2.01 - d (Gumbel trick)."""
  weight = jnp.log(jnp.maximum(2.01 - difficulty, 1e-6))
  noise = jax.random.gumbel(key, difficulty.shape, difficulty.dtype)
  return jnp.argsort(-(weight + noise))


def share(epoch, initial, grow_epochs):
  """λ_e of the 0-based epoch e."""
  slope = (1 - initial**2) / grow_epochs
  return min(1.0, math.sqrt(slope * (epoch + 1) + initial**2))


def easiest(difficulty, kept, key):
  """Indices [n] from the easiest fraction ``kept``, repeated and shuffled."""
  total = len(difficulty)
  few = max(int(total * kept), 1)
  easy = np.argsort(np.asarray(difficulty), kind="stable")[:few]
  passes = -(-total // few)
  keys = jax.random.split(key, passes)
  shuffled = [np.asarray(jax.random.permutation(k, easy)) for k in keys]
  return np.concatenate(shuffled)[:total]
