r"""ReconBoost: modalities in turn, each fitting the residual of the others.

Stage s updates modality m = s mod M in two phases. Phase 1 trains θ_m and the
head of m with

.. math:: L = -\frac{1}{n k} \sum_i \bigl(w_1 - w_2\, \mathrm{softmax}(\lambda_b
  \textstyle\sum_{j \ne m} o_j)_{y_i}\bigr) \log p_m[y_i] + \alpha\,
  \mathrm{mean} (p_m - p_{m'})^2

where m' is the modality of the previous stage (in the first stage there is no
such term). Neither the softmax over the other modalities nor p_{m'} has a
gradient. Phase 2 trains all weights and λ_b with CE(λ_b Σ_j o_j). Each phase
starts with a fresh optimiser. With a and b epochs per phase, a run of e epochs
has e / (a + b) stages. Needs the fusion ``boost``. Supports any number of
modalities.

Reference: Hua, Xu, Bao, Yang, Huang, "ReconBoost: Boosting Can Achieve Modality
Reconcilement", ICML 2024, eqs. 5-9, Algorithm 1. Official: huacong/ReconBoost.

Deviations:
1. The official agreement term has no gradient at all, because p_m is detached,
   too (``faithful=True``).
2. The official code starts from pretrained encoders and runs up to 1001 stages.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses, missing
from dmg_jax.methods import _needs, _phases, _terms
from dmg_jax.methods._adapters import check_range, differentiate, scalar
from dmg_jax.types import SHARED, Card, Leaf, Method

CARD = Card(
  "phases",
  "per modality: (w_1 - w_2 softmax(F)[y]) CE(o_m); then CE(λ_b Σ o_j)",
  "Hua et al., ICML 2024",
)


class State(struct.PyTreeNode):
  """State of ReconBoost.

  Attributes:
    turn: [], index of the modality of this stage.
    joint: [], 1 in phase 2, else 0.
    later: [], 1 after the first stage, else 0.
    fresh_opt: optimiser state before the first step.
  """

  turn: Leaf
  joint: Leaf
  later: Leaf
  fresh_opt: Leaf


def make(
  *,
  first: float = 5.0,
  second: float = 1.0,
  alpha: float = 0.5,
  boost_epochs: int = 4,
  joint_epochs: int = 4,
  faithful: bool = False,
) -> Method:
  """The ReconBoost method.

  Args:
    first, second: w_1 > 0 and w_2 ≥ 0.
    alpha: weight α ≥ 0 of the agreement term.
    boost_epochs, joint_epochs: a > 0 and b ≥ 0, epochs of the two phases;
      officially 4 and 4.
    faithful: see deviation 1.
  """
  check_range("first", first, 1e-9, 1e6)
  check_range("second", second, 0, 1e6)
  check_range("alpha", alpha, 0, 1e6)
  check_range("boost_epochs", boost_epochs, 1, 1e6)
  check_range("joint_epochs", joint_epochs, 0, 1e6)

  def step(problem, state, batch, key, apply):
    memory, names = state.method, problem.modalities
    here = {m: memory.turn == i for i, m in enumerate(names)}

    def loss(outputs, params):
      del params
      own = boosts(outputs, batch, first, second)
      agree = agreements(outputs, batch, faithful)
      boost = sum(
        jnp.where(here[m], own[m] + alpha * memory.later * agree[m], 0.0)
        for m in names
      )
      cls = _terms.cross_entropy(outputs.logits, batch)
      value = jnp.where(memory.joint > 0, cls, boost)
      return value, {"cls": cls, "boost": boost}

    done = differentiate(loss, problem, state, batch, key)
    moved = apply(done.state, done.grads, turn(problem, here, memory))
    return scale_held(problem, moved, state, memory.joint), done.metrics

  def init(problem, state, key):
    del key
    _needs.extra(problem, "scale", "reconboost", "boost")
    zero = scalar(0.0)
    return State(_phases.count(0), zero, zero, state.opt_state)

  def between_epochs(problem, state, data, epoch):
    del data
    stage, within = divmod(epoch, boost_epochs + joint_epochs)
    if within not in (0, boost_epochs):
      return state
    memory = state.method.replace(
      turn=_phases.count(stage % len(problem.modalities)),
      joint=scalar(within == boost_epochs),
      later=scalar(stage > 0),
    )
    fresh = memory.fresh_opt
    return state.replace(method=memory, opt_state=fresh)

  return Method(step=step, init=init, between_epochs=between_epochs)


def turn(problem, here, memory):
  """{owner: 1 or 0}: 1 for the encoder in turn, and for all in phase 2."""
  return {
    o: jnp.maximum(memory.joint, here[o].astype(jnp.float32))
    if o in here
    else 1.0
    for o in set(jax.tree.leaves(problem.owner))
  }


def scale_held(problem, moved, state, joint):
  """``moved``, but with the old λ_b in phase 1 despite weight decay."""

  def keep(new, old, owner):
    is_scale = owner == SHARED and new.ndim == 0
    return jnp.where(joint > 0, new, old) if is_scale else new

  params = jax.tree.map(keep, moved.params, state.params, problem.owner)
  return moved.replace(params=params)


def boosts(outputs, batch, first, second):
  """{modality: boosting loss}."""
  unimodal, scale = outputs.unimodal, outputs.extra["scale"]
  classes = outputs.logits.shape[-1]
  unimodal = {
    m: missing.where(outputs.present, m, o, 0) for m, o in unimodal.items()
  }
  total = _terms.total(unimodal)
  found = {}
  for m, logits in unimodal.items():
    others = _terms.true_class(scale * (total - logits), batch.labels)
    each = _terms.each(logits, batch)
    weighted = (first - second * others) * each / classes
    found[m] = losses.masked_mean(weighted, batch.having(m))
  return found


def agreements(outputs, batch, faithful):
  """{modality: mean squared difference to predictions of the previous one}."""
  p = {m: jax.nn.softmax(o) for m, o in outputs.unimodal.items()}
  names, sg = list(p), jax.lax.stop_gradient
  found = {}
  for i, m in enumerate(names):
    mine = sg(p[m]) if faithful else p[m]
    previous = names[i - 1]
    each = ((mine - sg(p[previous])) ** 2).mean(axis=-1)
    found[m] = losses.masked_mean(each, batch.having(m, previous))
  return found
