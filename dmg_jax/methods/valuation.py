r"""Modality valuation: trains more on the modality that contributes least.

.. math:: v_i(S) = |S|\, [\hat y_i(S) = y_i], \qquad
  \phi_{m,i} = \sum_{S \not\ni m} \frac{|S|!\,(M - |S| - 1)!}{M!}
  (v_i(S \cup m) - v_i(S))

where the features of the modalities outside S are zero, and S holds only what
sample i has: a missing modality has φ = 0 and no copies. φ is measured on the
whole training split after ``warmup`` epochs and then after every epoch.
``level="sample"`` adds copies of sample i that keep only modality m: none for
φ ≥ 1, one for .4 ≤ φ < 1, two for -.1 ≤ φ < .4, three below.
``level="modality"`` selects the modality with the largest gap 1 - φ̄_m, and
copies a random fraction ⅔ α (largest gap - mean of the others) of the samples.

Reference: Wei, Feng, Wang, Hu, "Enhancing Multimodal Cooperation via
Sample-level Modality Valuation", CVPR 2024, eqs. 1-8. Official:
GeWu-Lab/Valuate-and-Enhance-Multimodal-Cooperation.

Deviations:
1. Copies are added to the batch of their sample, with the same mean gradient
   over an epoch and a fixed batch shape; officially they lengthen the epoch.
2. The mean φ̄ is taken over all samples; officially it is taken over a random
   fifth, and the number of copies is rounded down. The official variants of the
   fraction (tanh, square) are not implemented.
3. For M > 2, φ are Shapley values of the same v, so any number of modalities is
   supported.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dmg_jax.errors import unknown
from dmg_jax.methods import _epochs, _terms
from dmg_jax.methods._adapters import check_range, differentiate, own_key
from dmg_jax.methods.agm import shapley
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "data",
  "CE(o) with extra copies that keep only z_m, more if φ_m is low",
  "Wei et al., CVPR 2024",
)
LEVELS = ("sample", "modality")
# Number of copies, indexed by the number of bounds that exceed φ.
_BOUNDS, _COPIES = (1.0, 0.4, -0.1), (0, 1, 2, 3)


class State(struct.PyTreeNode):
  """State of valuation.

  Attributes:
    copies: {modality: [n]}, expected copies of each training sample.
  """

  copies: dict[str, Leaf]


def make(
  *, level: str = "sample", alpha: float = 1.0, warmup: int = 5
) -> Method:
  """The valuation method.

  Args:
    level: ``sample`` or ``modality``.
    alpha: factor α ≥ 0 of the fraction at modality level.
    warmup: number of epochs ≥ 0 before the first measurement.
  """
  if level not in LEVELS:
    raise unknown("level", level, LEVELS)
  check_range("alpha", alpha, 0, 1e6)
  check_range("warmup", warmup, 0, 1e9)

  def step(problem, state, batch, key, apply):
    copies = drawn(state.method.copies, batch, own_key(key))

    def loss(outputs, params):
      each = _terms.each(outputs.logits, batch) * batch.mask
      value, count = each.sum(), batch.mask.sum()
      for m, number in copies.items():
        kept = alone(outputs.features, m)
        fused = problem.fuse(
          params, state.stats, kept, own_key(key), True, batch.present
        )
        each = _terms.each(fused.logits, batch)
        value = value + (each * number).sum()
        count = count + number.sum()
      return value / jnp.maximum(count, 1.0), {}

    done = differentiate(loss, problem, state, batch, key)
    state = apply(done.state, done.grads)
    mean = {m: c.sum() / batch.mask.sum() for m, c in copies.items()}
    return state, {**done.metrics, **_terms.named("copies", mean)}

  def init(problem, state, key):
    del state, key
    none = jnp.zeros(problem.samples, jnp.float32)
    return State(dict.fromkeys(problem.modalities, none))

  def between_epochs(problem, state, data, epoch):
    if epoch < warmup or epoch == 0:
      return state
    found = _epochs.sweep(correct, problem, state, data.batches("train"))
    phi = contributions(found["correct"], found["present"])
    plan = {m: per_sample(v) for m, v in phi.items()}
    if level == "modality":
      plan = per_modality(phi, alpha, found["present"])
    copies = {}
    for m, number in plan.items():
      row = np.zeros(problem.samples, np.float32)
      row[found["index"]] = number
      copies[m] = jnp.asarray(row)
    return state.replace(method=State(copies))

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    diagnostics=("copies",),
  )


def alone(features, kept):
  """Features with all modalities but ``kept`` at zero."""
  return {m: z if m == kept else jnp.zeros_like(z) for m, z in features.items()}


def drawn(copies, batch, key):
  """{modality: number of copies [b]}, rounded at random to whole numbers."""
  found = {}
  for i, (m, expected) in enumerate(copies.items()):
    number = expected[batch.index]
    whole = jnp.floor(number)
    more = jax.random.bernoulli(jax.random.fold_in(key, i), number - whole)
    found[m] = (whole + more) * batch.having(m)
  return found


def correct(problem, params, stats, batch):
  """A ``look`` for ``sweep``: correctness for every set of modalities."""
  present = batch.present
  outputs, _ = problem.run(params, stats, batch)
  right = {}
  for size in range(1, len(problem.modalities) + 1):
    for chosen in itertools.combinations(problem.modalities, size):
      kept = {
        m: z if m in chosen else jnp.zeros_like(z)
        for m, z in outputs.features.items()
      }
      logits = problem.fuse(params, stats, kept, None, False, present).logits
      right["/".join(chosen)] = logits.argmax(axis=-1) == batch.labels
  return {"correct": right, "index": batch.index, "present": present or {}}


def contributions(right, present=None):
  """{modality: φ [n]} from ``{"a/b": correct or not [n]}``.

  |S| counts what a sample has: a missing modality contributes 0.
  """
  value = {}
  for names, hit in right.items():
    chosen = frozenset(names.split("/"))
    size = sum(np.asarray((present or {}).get(m, 1), float) for m in chosen)
    value[chosen] = size * np.asarray(hit, np.float64)
  return shapley(value)


def per_sample(phi):
  """Number of copies of each sample, from its φ."""
  # The tolerance absorbs rounding: φ is a sum of fractions.
  below = sum((phi < bound - 1e-9).astype(int) for bound in _BOUNDS)
  return np.asarray(_COPIES, np.float32)[below]


def per_modality(phi, alpha, present=None):
  """{modality: expected copies [n]}, non-zero only for the worst modality."""
  there = present or {}
  gap = {m: 1 - np.average(v, weights=there.get(m)) for m, v in phi.items()}
  worst = max(gap, key=lambda m: gap[m])
  others = [g for m, g in gap.items() if m != worst]
  ahead = gap[worst] - np.mean(others) if others else 0.0
  return {
    m: np.full(len(v), (2 / 3) * alpha * ahead if m == worst else 0.0)
    for m, v in phi.items()
  }
