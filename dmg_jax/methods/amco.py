r"""AMCo: masks the modality that dominates, increasingly within an epoch.

A modality is *dependent* if, in the previous batch, the mean softmax mass of
its logits in ``softmax([o_1 | … | o_M])`` exceeds ``threshold``. A random
fraction p of a dependent modality is masked, with the same entries for all
samples of a batch:

.. math:: p = \min\Bigl(\text{cap},\ \sin\bigl(\tfrac{\pi}{2}
  \min(l, \varepsilon) / \varepsilon\bigr)\Bigr), \quad
  L = \mathrm{CE}(\tilde o) + \sum_m \mathrm{CE}(o_m)

l is 0 at the start of epoch e and grows by e / 10 per batch. ``target`` selects
what is masked: entries of the ``features``, or class ``logits`` (õ is the sum
of the masked o_m). Nothing is masked at test time. The mass of a modality is
averaged over the samples that have it. Supports any number of modalities.

Reference: Zhou et al., "Adaptive Mask Co-optimization", ICASSP 2023, as in
GeWu-Lab/BalanceBenchmark.

Deviations:
1. p is capped at .5; the toolkit masks everything after a few batches.
2. The toolkit masks logits and adds a layer from classes to classes; the
   default here masks features, as the abstract of the paper states.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses, missing
from dmg_jax.errors import unknown
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, differentiate, own_key
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "forward",
  "mask a fraction p of z_m if m dominates",
  "Zhou et al., ICASSP 2023",
)
TARGETS = ("features", "logits")


class State(struct.PyTreeNode):
  """State of AMCo.

  Attributes:
    dependent: {modality: 0 or 1}, whether it is masked.
    level: [], l.
    growth: [], increase of l per batch.
  """

  dependent: dict[str, Leaf]
  level: Leaf
  growth: Leaf


def make(
  *,
  threshold: float = 0.5,
  ramp: float = 0.3,
  cap: float = 0.5,
  unimodal_weight: float = 1.0,
  target: str = "features",
) -> Method:
  """The AMCo method.

  Args:
    threshold: threshold in [0, 1] of the softmax mass.
    ramp: ε > 0, the level l at which p would reach 1 without the cap.
    cap: largest p, in [0, 1]; 0 masks nothing.
    unimodal_weight: weight ≥ 0 of Σ CE(o_m).
    target: ``features`` or ``logits``.
  """
  check_range("threshold", threshold, 0, 1)
  check_range("ramp", ramp, 1e-6, 1e6)
  check_range("cap", cap, 0, 1)
  check_range("unimodal_weight", unimodal_weight, 0, 1e6)
  if target not in TARGETS:
    raise unknown("target", target, TARGETS)

  def step(problem, state, batch, key, apply):
    mstate, stats, own = state.method, state.stats, own_key(key)
    p = jnp.minimum(share(mstate.level, ramp), cap)

    def loss(outputs, params):
      by_feature, there = target == "features", batch.present
      values = outputs.features if by_feature else outputs.unimodal
      masked = mask_some(values, mstate.dependent, p, own)
      if by_feature:
        logits = problem.fuse(params, stats, masked, own, True, there).logits
      else:
        logits = missing.total(masked, there)
      cls = _terms.cross_entropy(logits, batch)
      each = _terms.own(outputs, batch)
      value = cls + unimodal_weight * _terms.total(each)
      return value, {"cls": cls, **_terms.named("cls", each)}

    done = differentiate(loss, problem, state, batch, key)
    mstate = mstate.replace(
      dependent=dependent(done.outputs.unimodal, batch, threshold),
      level=mstate.level + mstate.growth,
    )
    state = apply(done.state.replace(method=mstate), done.grads)
    return state, {**done.metrics, "masked": p}

  def init(problem, state, key):
    del state, key
    zero = jnp.zeros((), jnp.float32)
    return State(dict.fromkeys(problem.modalities, zero), zero, zero)

  def between_epochs(problem, state, data, epoch):
    del problem, data
    zero = jnp.zeros((), jnp.float32)
    grown = state.method.replace(level=zero, growth=zero + epoch / 10)
    return state.replace(method=grown)

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    diagnostics=("masked",),
  )


def share(level, ramp):
  """p without the cap."""
  return jnp.sin(jnp.pi / 2 * jnp.minimum(level, ramp) / ramp)


def dependent(unimodal, batch, threshold):
  """{modality: 1 if its mass exceeds ``threshold``}; 0 for a single one."""
  kept = {
    m: missing.where(batch.present, m, o, float(jnp.finfo(o.dtype).min))
    for m, o in unimodal.items()
  }
  joined = jax.nn.softmax(jnp.concatenate(list(kept.values()), axis=-1))
  blocks = jnp.split(joined, len(unimodal), axis=-1)
  return {
    m: (losses.masked_mean(b.sum(axis=-1), batch.having(m)) > threshold).astype(
      jnp.float32
    )
    * (len(unimodal) > 1)
    for m, b in zip(unimodal, blocks, strict=True)
  }


def mask_some(values, flags, p, key):
  """``values`` with ⌊p n⌋ of the n entries of dependent modalities at zero."""
  masked = {}
  for i, (m, x) in enumerate(values.items()):
    n = x.shape[-1]
    rank = jax.random.permutation(jax.random.fold_in(key, i), n)
    gone = (rank < jnp.floor(p * n)) & (flags[m] > 0)
    masked[m] = jnp.where(gone[None, :], jnp.zeros_like(x), x)
  return masked
