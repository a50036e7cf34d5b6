r"""PMR: pulls features of the slow modality towards their class prototypes.

.. math:: L = \mathrm{CE}(o) + \alpha \sum_m \beta_m P_m - \eta \sum_m \gamma_m
  \mathcal{H}_m, \quad P_m = \mathrm{CE}(-\|z_m - c_m\|_2, y)
.. math:: s_m = \sum_i \mathrm{softmax}(-\|z_{m,i} - c_m\|)_{y_i}, \quad
  \rho_m = \frac{\max_j s_j}{s_m}, \quad
  \beta_m = \mathrm{clip}(\rho_m - 1, 0, 1), \quad
  \gamma_m = \mathrm{clip}\Bigl(\frac{s_m}{\min_j s_j} - 1, 0, 1\Bigr)

The prototypes c_m [k d] are the mean features of each class. They are measured
between epochs on a part of the training split, with momentum:
c ← (1 - ε) c_new + ε c. H_m is the mean entropy of the prototype softmax, which
regularises the leading modality (off by default). Both terms act in epochs
``start`` to ``end``. Works with any fusion and any number of modalities; each
is compared with the best one.

Reference: Fan, Xu, Wang, et al., "PMR: Prototypical Modal Rebalance for
Multimodal Learning", CVPR 2023, eqs. 6-12. Official:
fanyunfeng-bit/Modal-Imbalance-PMR.

Deviations:
1. In the official code, β is 1 for the slower modality (``faithful=True``).
2. A class without samples in the measured part keeps its prototype; officially
   it becomes 0/0. Samples of a class without prototype are left out.
3. The measured part is every n-th batch, with another offset in each epoch;
   officially it is the first tenth of the shuffled batches. 1e-12 is added
   under the square root.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dmg_jax import losses
from dmg_jax.methods import _epochs, _terms
from dmg_jax.methods._adapters import check_range, from_loss, scalar
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "objective",
  "CE(o) + α Σ β_m CE(-‖z_m - c_m‖, y)",
  "Fan et al., CVPR 2023",
)


class State(struct.PyTreeNode):
  """State of PMR.

  Attributes:
    prototypes: {modality: [k d]}.
    seen: [k], 1 for classes that have a prototype in each modality.
    times: [], number of measurements.
    active: [], 1 in epochs with prototype terms, else 0.
  """

  prototypes: dict[str, Leaf]
  seen: Leaf
  times: Leaf
  active: Leaf


def make(
  *,
  alpha: float = 1.0,
  entropy: float = 0.0,
  momentum: float = 0.2,
  fraction: float = 0.1,
  start: int = 0,
  end: int = 70,
  faithful: bool = False,
) -> Method:
  """The PMR method.

  Args:
    alpha: weight α ≥ 0 of the prototype loss; 0 gives joint training.
    entropy: weight η ≥ 0 of the leading modality's entropy.
    momentum: momentum ε in [0, 1) of the prototypes.
    fraction: fraction of training batches measured each epoch, in (0, 1].
    start, end: first and last 0-based epoch in which the terms act.
    faithful: see deviation 1.
  """
  check_range("alpha", alpha, 0, 1e6)
  check_range("start", start, 0, 1e9)
  check_range("entropy", entropy, 0, 1e6)
  check_range("momentum", momentum, 0, 0.999999)
  check_range("fraction", fraction, 1e-6, 1)

  def loss(outputs, batch, mstate):
    cls = _terms.cross_entropy(outputs.logits, batch)
    known = mstate.seen[batch.labels] * batch.mask * mstate.active
    near = {
      m: nearness(z, mstate.prototypes[m], mstate.seen)
      for m, z in outputs.features.items()
    }
    some = batch.replace(mask=known)
    slow, fast = coefficients(_terms.scores(near, some), faithful)
    proto = _weighted(
      slow, {m: _terms.each(v, some) for m, v in near.items()}, some
    )
    bonus = _weighted(fast, {m: spread(v) for m, v in near.items()}, some)
    value = cls + alpha * proto - entropy * bonus
    return value, {"cls": cls, "proto": proto, **_terms.named("beta", slow)}

  def init(problem, state, key):
    del state, key
    zero = {
      m: jnp.zeros((problem.classes, d)) for m, d in problem.sizes.items()
    }
    seen = jnp.zeros(problem.classes, jnp.float32)
    return State(zero, seen, scalar(0.0), scalar(start <= 0 <= end))

  def between_epochs(problem, state, data, epoch):
    chosen = part(data.batches("train"), problem.samples, fraction, epoch)
    found = _epochs.sweep(_epochs.outputs, problem, state, chosen)
    mstate = measured(state.method, found, momentum)
    active = scalar(start <= epoch <= end)
    return state.replace(method=mstate.replace(active=active))

  hooks = {"init": init, "between_epochs": between_epochs}
  return from_loss(loss, diagnostics=("beta",), **hooks)


def _weighted(factors, each, batch):
  """Σ of the factors times the means over the samples that have a modality."""
  return sum(
    factors[m] * losses.masked_mean(v, batch.having(m)) for m, v in each.items()
  )


def nearness(z, prototypes, seen):
  """-‖z - c‖ [b k]; very negative for classes without prototype."""
  square = ((z[:, None, :] - prototypes[None]) ** 2).sum(axis=-1)
  return jnp.where(seen[None, :] > 0, -jnp.sqrt(square + 1e-12), -1e9)


def spread(logits):
  """Entropy of the softmax of each row, in nats."""
  log_p = jax.nn.log_softmax(logits)
  return -(jnp.exp(log_p) * jnp.where(log_p > -1e6, log_p, 0.0)).sum(axis=-1)


def coefficients(s, faithful):
  """{modality: β_m}, {modality: γ_m}."""
  most = jnp.stack(list(s.values())).max()
  least = jnp.stack(list(s.values())).min()
  slow = {m: jnp.clip(most / v - 1, 0, 1) for m, v in s.items()}
  if faithful:
    slow = {m: (v < most).astype(v.dtype) for m, v in s.items()}
  return slow, {m: jnp.clip(v / least - 1, 0, 1) for m, v in s.items()}


def part(batches, samples, fraction, epoch):
  """Every n-th batch, n ≈ 1 / ``fraction``, with a new offset each epoch."""
  batches = iter(batches)
  first = next(batches)
  total = math.ceil(samples / first.labels.size)
  every = max(1, min(round(1 / fraction), total))
  for i, batch in enumerate(itertools.chain([first], batches)):
    if i % every == epoch % every:
      yield batch


def measured(mstate, found, momentum):
  """The state after one more measurement; momentum acts from the third on."""
  if found is None:
    return mstate
  classes, whole = len(mstate.seen), []
  old = momentum if mstate.times >= 2 else 0.0
  prototypes = {}
  for m in found["features"]:
    z, labels = _epochs.having(found, m, found["features"][m], found["labels"])
    counts = np.bincount(labels, minlength=classes)
    whole.append(counts > 0)
    before = np.asarray(mstate.prototypes[m])
    sums = np.zeros_like(before)
    np.add.at(sums, labels, z.astype(before.dtype))
    new = sums / np.maximum(counts, 1)[:, None]
    keep = np.where(np.asarray(mstate.seen) > 0, old, 0.0)[:, None]
    new = (1 - keep) * new + keep * before
    prototypes[m] = jnp.asarray(
      np.where(counts[:, None] > 0, new, before), before.dtype
    )
  seen = jnp.maximum(mstate.seen, np.all(whole, axis=0).astype(np.float32))
  return mstate.replace(
    prototypes=prototypes, seen=seen, times=mstate.times + 1
  )
