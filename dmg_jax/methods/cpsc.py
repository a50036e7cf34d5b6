r"""CPSC: features and gradients count as much as a conformal predictor trusts.

.. math:: L = 2 \Bigl(.8\, \mathrm{CE}(o) + .2 \sum_m \mathrm{CE}(o_m) +
  \mathrm{mean}_{j<l}\, D(o_j, o_l) + \sum_m \bigl[.8\, \mathrm{mean}_i\,
  D(v_{m,i}, z_m) - .2\, \mathrm{mean}_{i<j}\, D(v_{m,i}, v_{m,j})\bigr]\Bigr)

v are the variants of the fusion ``components``, and D is the Jensen-Shannon
divergence of two softmaxes. From epoch ``start`` on, o_m are the logits of the
mean of three of .95 z_m + .05 v_{m,i} ‖z_m‖ / ‖v_{m,i}‖, those of the largest
reliability, and the gradient of sample s for the encoders is multiplied by
.6 + .6 r_s, with r_s and the choice of variants by

.. math:: R(p, c) = \begin{cases} 1 / \mathrm{rank}_p(c) & p_c \ge 1 - \tau \\
  0 & \text{otherwise} \end{cases} \quad
  \tau = \text{the } \lceil (n + 1)(1 - \alpha) \rceil \text{-th smallest }
  1 - p_y

p are the predictions of the heads as they were before the epoch: of a variant,
with c the label, for the choice; of the chosen features together, with c the
class that the model predicts, for r. τ is measured before the epoch on the
``outer`` split, for every modality and for the mean of the logits. The
prediction is o of the features themselves.

Needs the fusion ``components`` (read-out R2). Supports any number of
modalities.

Reference: Jiang, Gu, Hu, Hou, Yao, Shen, Shen, Xu, "Multimodal Learning on
Low-Quality Data with Conformal Predictive Self-Calibration", CVPR 2026.
Official: XunCHN/CPSC, CPSC_CREMAD.

Deviations (``faithful=True`` follows the official code in 1 to 4):
1. The official D is ``losses.divergence``, with the arguments of both KL
   divergences the other way round.
2. The official τ has the place ⌈n (1 - α)⌉ + 1.
3. The official code takes the mean of r over the batch; the paper's gradients
   are calibrated by sample.
4. For r, all official heads read the features of the first modality, and τ is
   that of the first.
5. Officially, 16 training samples are held out for τ. ``start`` is 70 of 150
   epochs on CREMA-D and 7 of 50 on MVSA-Single.
6. Where variants tie, the first are chosen; torch.topk says nothing of ties.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dmg_jax import losses
from dmg_jax.errors import InputError
from dmg_jax.methods import _conformal, _needs, _terms
from dmg_jax.methods._adapters import (
  check_range,
  differentiate,
  own_key,
  scalar,
)
from dmg_jax.types import Card, Leaf, Method, Outputs

CARD = Card(
  "objective",
  "CE(o) + Σ CE(o_m) + D(o_j, o_l) + IB(v_m), z_m and ∇ by reliability",
  "Jiang et al., CVPR 2026",
)
_CHOSEN = 3


class State(struct.PyTreeNode):
  """State of CPSC.

  Attributes:
    active: [], 1 from epoch ``start`` on, else 0.
    heads: the weights that are no encoder's, as they were before the epoch.
    limit: {modality or "fused": []}, τ.
  """

  active: Leaf
  heads: list[Leaf]
  limit: dict[str, Leaf]


def make(
  *,
  alpha: float = 0.2,
  start: int = 7,
  mix: float = 0.05,
  faithful: bool = False,
) -> Method:
  """The CPSC method.

  Args:
    alpha: miscoverage α in (0, 1) of the conformal predictor.
    start: 0-based epoch from which it acts.
    mix: share of the variants in [0, 1].
    faithful: see deviations 1 to 4.
  """
  check_range("alpha", alpha, 1e-6, 1 - 1e-6)
  check_range("start", start, 0, 1e9)
  check_range("mix", mix, 0, 1)

  def step(problem, state, batch, key, apply):
    memory = state.method

    def fuse(params, z, present=None):
      return problem.fuse(params, state.stats, z, own_key(key), True, present)

    def loss(outputs, params):
      now = functools.partial(fuse, params)
      old = functools.partial(fuse, with_heads(problem, params, memory.heads))
      raw = outputs.extra["variants"]
      used = chosen(outputs.features, raw, old, memory, batch, mix)
      trust = trusted(problem, used, now, old, memory, batch, faithful)
      factor = jnp.where(memory.active > 0, 0.6 + 0.6 * trust, 1)[:, None]
      z = {m: scaled(v, factor) for m, v in outputs.features.items()}
      raw = now(z).extra["variants"]
      used = chosen(z, raw, old, memory, batch, mix)
      fused = now(used, batch.present)
      value, terms = objective(fused, z, raw, batch, faithful)
      trust = losses.masked_mean(trust, batch.mask)
      return value, {**terms, "reliability": trust}

    done = differentiate(loss, problem, state, batch, key)
    return apply(done.state, done.grads), done.metrics

  def init(problem, state, key):
    del key
    _needs.extra(problem, "variants", "cpsc", "components")
    if faithful and len(set(problem.sizes.values())) > 1:
      raise InputError(
        f"cpsc with faithful=True needs features of equal size, got "
        f"{problem.sizes}: give the encoders the same `features`"
      )
    limit = {h: scalar(1.0) for h in (*problem.modalities, "fused")}
    return State(scalar(0.0), own_heads(problem, state.params), limit)

  def between_epochs(problem, state, data, epoch):
    if epoch < start:
      return state
    batches = data.batches("outer")
    limit = _conformal.limits(problem, state, batches, alpha, faithful)
    heads = own_heads(problem, state.params)
    return state.replace(method=State(scalar(1.0), heads, limit))

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    diagnostics=("reliability",),
  )


def objective(fused, z, raw, batch, faithful):
  """``(L, terms)``, from the logits of the chosen features."""
  apart = losses.divergence if faithful else losses.jensen_shannon
  cls = _terms.cross_entropy(fused.logits, batch)
  own = _terms.own(Outputs(fused.logits, fused.unimodal, z), batch)
  match = losses.over_pairs(apart, fused.unimodal, batch)
  spread = {m: variety(z[m], raw[m], batch.having(m), apart) for m in z}
  spread = _terms.total(spread)
  value = 2 * (0.8 * cls + 0.2 * _terms.total(own) + match + spread)
  terms = {"cls": cls, **_terms.named("cls", own)}
  return value, {**terms, "matching": match, "variants": spread}


def variety(z, raw, mask, apart):
  """.8 of the divergence from z, minus .2 of that between variants."""
  _, count, d = raw.shape
  same = jnp.repeat(z, count, axis=0)
  near = apart(raw.reshape(-1, d), same, jnp.repeat(mask, count))
  one, two = np.triu_indices(count, 1)
  pairs = (raw[:, i].reshape(-1, d) for i in (one, two))
  return 0.8 * near - 0.2 * apart(*pairs, jnp.repeat(mask, len(one)))


def chosen(z, raw, old, memory, batch, mix):
  """{modality: mean of the most reliable variants}; z before ``start``."""
  made = {}
  for m, v in raw.items():
    ratio = length(z[m])[:, None] / jnp.maximum(length(v), 1e-8)
    made[m] = (1 - mix) * z[m][:, None] + mix * v * ratio
  logits = old({m: v.reshape(-1, v.shape[-1]) for m, v in made.items()})
  found = {}
  for m, v in made.items():
    labels = jnp.repeat(batch.labels, v.shape[1])
    sure = _conformal.reliability(logits.unimodal[m], labels, memory.limit[m])
    sure = sure.reshape(v.shape[:2])
    _, best = jax.lax.top_k(sure, min(_CHOSEN, v.shape[1]))
    mean = jnp.take_along_axis(v, best[:, :, None], axis=1).mean(axis=1)
    found[m] = jnp.where(memory.active > 0, mean, z[m])
  return found


def trusted(problem, z, now, old, memory, batch, faithful):
  """r [b], without a gradient."""
  classes = now(z, batch.present).logits.argmax(axis=-1)
  first = problem.modalities[0]
  seen = dict.fromkeys(z, z[first]) if faithful else z
  limit = memory.limit[first if faithful else "fused"]
  r = _conformal.reliability(old(seen, batch.present).logits, classes, limit)
  if faithful:
    r = jnp.full_like(r, losses.masked_mean(r, batch.mask))
  return r


def length(x):
  """Norm along the last axis [... 1]; zero has a zero gradient."""
  square = (x * x).sum(axis=-1, keepdims=True)
  return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def scaled(z, factor):
  """``z``, whose gradient is multiplied by ``factor``."""
  still = jax.lax.stop_gradient(z)
  factor = jax.lax.stop_gradient(factor).astype(z.dtype)
  return still + factor * (z - still)


def own_heads(problem, params):
  """Copies of the weights that are no encoder's."""
  pairs = zip(
    jax.tree.leaves(params), jax.tree.leaves(problem.owner), strict=True
  )
  return [jnp.copy(w) for w, o in pairs if o not in problem.modalities]


def with_heads(problem, params, heads):
  """``params`` with other weights where they are no encoder's."""
  rest, (leaves, tree) = iter(heads), jax.tree.flatten(params)
  owners = jax.tree.leaves(problem.owner)
  merged = [
    w if o in problem.modalities else next(rest)
    for w, o in zip(leaves, owners, strict=True)
  ]
  return tree.unflatten(merged)
