r"""MLA: trains modalities in turn through one shared head, without fused loss.

Each batch takes one optimiser step per modality m, in fixed order, on
``{encoder m, head}`` with the gradient of

.. math:: L_m = \mathrm{CE}(W^\top z_m + b, y), \qquad
  \nabla W \leftarrow P\, \nabla W

.. math:: r = \mathrm{mean}_i z_{m,i}, \quad k = P r, \quad
  P \leftarrow P - \frac{k k^\top}{\lambda + r^\top k}, \quad
  P \leftarrow P / \|P\|_F, \quad \lambda = 0.1^{1 + i/n}

for batch i of n in the epoch. P starts as the identity, and the very first step
is not projected. The prediction weights modalities by confidence, per sample:

.. math:: o = \sum_m w_m o_m, \quad w = \mathrm{softmax}_m(-H(\mathrm{softmax}\,
  o_m))

Needs the fusion ``shared_head``. Supports any number of modalities.

Reference: Zhang, Yoon, Bansal, Yao, "Multimodal Representation Learning by
Alternating Unimodal Adaptation", CVPR 2024. Official: Cecile-hi/
Multimodal-Learning-with-Alternating-Unimodal-Adaptation.

Deviations:
1. The official code tests for a parameter name that never matches, so it trains
   without projection, which is ``projection="off"``. ``"scalar"`` is the rule
   of the paper.
2. The official denominator is the matrix λ + k rᵀ, with element-wise division:
   ``projection="outer"``.
3. The official dynamic weights are a softmax over the batch; here it is taken
   per sample, over modalities. ``weights="equal"`` averages.
4. Encoders are frozen when it is not their turn; in the official code they
   drift with momentum.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import missing
from dmg_jax.errors import InputError, unknown
from dmg_jax.methods import _terms
from dmg_jax.types import SHARED, Card, Leaf, Method

CARD = Card(
  "phases", "per modality: CE(head(z_m)), ∇W ← P ∇W", "Zhang et al., CVPR 2024"
)

PROJECTIONS = ("scalar", "outer", "off")
WEIGHTS = ("entropy", "equal")


class State(struct.PyTreeNode):
  """State of MLA.

  Attributes:
    projection: [d d], P.
    substeps: [], number of optimiser steps so far.
    batches: [], number of batches per epoch.
  """

  projection: Leaf
  substeps: Leaf
  batches: Leaf


def make(*, projection: str = "scalar", weights: str = "entropy") -> Method:
  """The MLA method.

  Args:
    projection: ``scalar``, ``outer`` or ``off``, see deviations 1 and 2.
    weights: ``entropy`` or ``equal``, see deviation 3.
  """
  for name, choices in ((projection, PROJECTIONS), (weights, WEIGHTS)):
    if name not in choices:
      raise unknown("option", name, choices)

  def step(problem, state, batch, key, apply):
    turn_stats, terms = state.stats, {}
    for position, m in enumerate(problem.modalities):
      (value, (z, stats)), grads = jax.value_and_grad(_loss, has_aux=True)(
        state.params, m, problem, turn_stats, batch, key
      )
      # Encoder m still has its old weights in its turn, so the first forward
      # pass already gives the statistics of every turn.
      state = state.replace(stats=stats) if position == 0 else state
      count, rows = len(problem.modalities), batch.having(m)
      mstate = _remember(state, z, rows, count, projection)
      if projection != "off":
        first = state.method.substeps == 0
        grads = _project(problem, grads, mstate.projection, first)
      state = apply(state.replace(method=mstate), grads, _turn(problem, m))
      terms[f"cls_{m}"] = value
    return state, {"loss": sum(terms.values()), **terms}

  def between_epochs(problem, state, data, epoch):
    del problem, epoch
    batches = jnp.asarray(data.steps_per_epoch, jnp.int32)
    return state.replace(method=state.method.replace(batches=batches))

  def predict(outputs, method_state):
    del method_state
    return fuse(outputs.unimodal, weights, outputs.present)

  return Method(
    step=step, init=_init, between_epochs=between_epochs, predict=predict
  )


def fuse(unimodal, weights="entropy", present=None):
  """Mean of the unimodal logits, weighted by confidence per sample [b k]."""
  logits = jnp.stack(list(unimodal.values()))
  log_p = jax.nn.log_softmax(logits)
  entropy = -(jnp.exp(log_p) * log_p).sum(axis=-1, keepdims=True)
  equal = jnp.zeros_like(entropy)
  scores = -entropy if weights == "entropy" else equal
  w = missing.softmax(dict(zip(unimodal, scores, strict=True)), present)
  return (w * logits).sum(axis=0)


def _init(problem, state, key):
  del key
  head = [
    p
    for p, o in zip(
      jax.tree.leaves(state.params),
      jax.tree.leaves(problem.owner),
      strict=True,
    )
    if o == SHARED and p.ndim == 2
  ]
  if len(head) != 1 or "shared head" not in problem.readout:
    raise InputError(
      "mla needs a fusion with one linear head shared by all modalities: use "
      "fusion=shared_head"
    )
  d, dtype = head[0].shape[0], head[0].dtype
  zero = jnp.zeros((), jnp.int32)
  return State(jnp.eye(d, dtype=dtype), zero, zero + 1)


def _loss(params, m, problem, stats, batch, key):
  outputs, stats = problem.run(params, stats, batch, key, True)
  value = _terms.cross_entropy(outputs.unimodal[m], batch, m)
  return value, (outputs.features[m], stats)


def _turn(problem, m):
  owners = set(jax.tree.leaves(problem.owner))
  return {o: 1.0 if o in (m, SHARED) else 0.0 for o in owners}


def _remember(state, z, mask, modalities, projection):
  """The method state with ``P`` updated by the features of this turn."""
  memory = state.method
  batch_of_epoch = (memory.substeps // modalities) % memory.batches
  wide = jnp.promote_types(z.dtype, jnp.float32)
  progress = batch_of_epoch.astype(wide) / memory.batches
  lam = jnp.power(0.1, 1 + progress).astype(z.dtype)
  weight = mask.astype(z.dtype)
  r = (z * weight[:, None]).sum(axis=0) / jnp.maximum(weight.sum(), 1)
  p = memory.projection
  k = p @ r
  dot = jnp.outer(k, r) if projection == "outer" else jnp.dot(r, k)
  new = p - jnp.outer(k, k) / (lam + dot)
  new = new / jnp.linalg.norm(new)
  first = memory.substeps == 0
  return memory.replace(
    projection=jnp.where(first, p, new), substeps=memory.substeps + 1
  )


def _project(problem, grads, p, first):
  """Gradients with ``P ∇W`` for the matrix of the head, others unchanged."""

  def change(g, owner):
    if owner != SHARED or g.ndim != 2:
      return g
    return jnp.where(first, g, p @ g)

  return jax.tree.map(change, grads, problem.owner)
