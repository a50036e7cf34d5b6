r"""AUG: adds boosters to the classifier of the weak modality.

Each batch takes one optimiser step per modality, in turn, on the encoder and
the boosters of that modality and the shared layer, with the loss

.. math:: L_m = \mathrm{CE}(o_m, y) + [n_m > 0] \Bigl( \mathrm{CE}(o'_m, y) +
  \frac{1}{n} \sum_i (1 - \sigma\, \mathrm{softmax}(o'_{m,i})_{y_i})\,
  \mathrm{CE}(f_{m,n_m,i}, y_i) \Bigr)

o' are the logits without the newest booster f, and n_m counts the added
boosters; the factor before the last cross-entropy is a residual label and has
no gradient. Let S_m be the sum of true-class probabilities over the batches of
an epoch. After the first epoch, and then ``checks`` times in a run, the
modality with the smallest ratio of S_m to the mean of the others receives one
more booster if that ratio is below 1 - ``margin``. Needs the fusion ``aug``.
Supports any number of modalities.

Reference: Jiang, Huang, Yang, "Rethinking Multimodal Learning from the
Perspective of Mitigating Classification Ability Disproportion", NeurIPS 2025.
Official: njustkmg/NeurIPS25-AUG (σ .5; .2 in its first release).

Deviations (``faithful=True`` follows the official code in the first):
1. The official optimiser does not include new boosters: they stay random.
2. For M > 2 its first release adds a booster to every modality far behind.
3. Modalities are frozen when it is not their turn; in the official code they
   drift with momentum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range, scalar
from dmg_jax.types import SHARED, Card, Leaf, Method

CARD = Card(
  "phases",
  "per modality: CE(o_m) + CE(o'_m) + (1-σ p'_m) CE(f), f added if weak",
  "Jiang et al., NeurIPS 2025",
)


class State(struct.PyTreeNode):
  """State of AUG.

  Attributes:
    scores: {modality: S_m so far in this epoch}.
  """

  scores: dict[str, Leaf]


def make(
  *,
  sigma: float = 0.5,
  margin: float = 0.01,
  checks: int = 10,
  faithful: bool = False,
) -> Method:
  """The AUG method.

  Args:
    sigma: σ in [0, 1].
    margin: how far behind a modality must be, in [0, 1).
    checks: number of checks in a run, besides the one after the first epoch.
    faithful: leave added boosters untrained, see deviation 1.
  """
  check_range("sigma", sigma, 0, 1)
  check_range("margin", margin, 0, 0.999)
  check_range("checks", checks, 1, 1e9)

  def step(problem, state, batch, key, apply):
    stats, terms, scores = state.stats, {}, {}
    for place, m in enumerate(problem.modalities):
      (value, (outputs, new)), grads = jax.value_and_grad(turn, has_aux=True)(
        state.params, problem, stats, batch, key, m, sigma
      )
      # As in MLA, the first pass updates the statistics of all encoders.
      state = state.replace(stats=new) if place == 0 else state
      gained = _terms.scores({m: outputs.unimodal[m]}, batch)[m]
      scores[m] = state.method.scores[m] + gained
      owners = (m, f"{m}/head", SHARED)
      scale = {
        o: 1.0 if o in owners else 0.0
        for o in set(jax.tree.leaves(problem.owner))
      }
      moved = apply(state, grads, scale)
      state = trained_only(problem, state, moved, outputs, m, faithful)
      terms[m] = value
    state = state.replace(method=State(scores))
    counts = outputs.extra["boosters"]
    metrics = {m: n.astype(jnp.float32) for m, n in counts.items()}
    metrics = _terms.named("boosters", metrics)
    loss = _terms.total(terms)
    return state, {"loss": loss, **_terms.named("cls", terms), **metrics}

  def init(problem, state, key):
    del state, key
    _needs.extra(problem, "boosters", "aug", "aug")
    return State(dict.fromkeys(problem.modalities, scalar(0.0)))

  def between_epochs(problem, state, data, epoch):
    every = max(data.epochs // checks, 1)
    if epoch and (epoch == 1 or epoch % every == 0):
      weak = behind(state.method.scores, margin)
      state = state.replace(stats=grown(state.stats, weak))
    return state.replace(method=init(problem, state, None))

  return Method(step=step, init=init, between_epochs=between_epochs)


def turn(params, problem, stats, batch, key, m, sigma):
  """L_m, with the outputs and the statistics of the forward pass."""
  outputs, new = problem.run(params, stats, batch, key, True)
  extra = outputs.extra
  cls = _terms.cross_entropy(outputs.unimodal[m], batch, m)
  before = _terms.cross_entropy(extra["previous"][m], batch, m)
  p = _terms.true_class(extra["previous"][m], batch.labels)
  each = _terms.each(extra["last"][m], batch)
  residual = losses.masked_mean((1 - sigma * p) * each, batch.having(m))
  more = extra["boosters"][m] > 0
  return cls + jnp.where(more, before + residual, 0.0), (outputs, new)


def trained_only(problem, old, new, outputs, m, faithful):
  """``new``, but with the old weights of boosters that are not in use."""
  limit = 0 if faithful else outputs.extra["boosters"][m]

  def keep(was, now, owner):
    if owner != f"{m}/head":
      return now
    used = jnp.arange(len(now)) <= limit
    return jnp.where(used.reshape(-1, *(1,) * (now.ndim - 1)), now, was)

  params = jax.tree.map(keep, old.params, new.params, problem.owner)
  return new.replace(params=params)


def behind(scores, margin):
  """The modality that receives a booster; ``None`` if none is far behind."""
  if len(scores) < 2:
    return None
  ratios = {m: float(r) for m, r in _terms.ratios(scores).items()}
  weakest = min(ratios, key=lambda m: ratios[m])
  return weakest if ratios[weakest] < 1 - margin else None


def grown(stats, weak):
  """Statistics with one more booster for ``weak``; the fusion caps them."""
  counts = dict(stats["boosters"]["fusion"])
  if weak is not None:
    counts[weak] = counts[weak] + 1
  return {**stats, "boosters": {"fusion": counts}}
