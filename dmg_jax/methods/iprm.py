r"""IPRM: mixes pairs of modalities on the sphere, more of the one that lags.

.. math:: L = \sum_{ab} \mathrm{CE}(o_{ab}(\hat\lambda)) +
  \sum_m \mathrm{CE}(o_m), \qquad
  \hat\lambda_a = \frac{K_b}{K_a + K_b}, \quad
  K_m = \frac{1}{n} \sum_i \mathrm{KL}(p_m \| p_{ab}(\lambda))

o_ab(λ) are the logits of the mixture with the shares λ_a and λ_b = 1 - λ_a (see
the fusion ``slerp``). Each step first probes the mixture at λ, without a
gradient, and then learns with the share λ̂ that this probe gives. The next probe
is at λ ← α λ + (1 - α) λ̂; the first one is at 1/2. The prediction is
Σ_m o_m + mean_ab o_ab(λ). A pair counts where a sample has both modalities; for
a sample that lacks some, Σ_m is M times the mean over those that it has.

Needs the fusion ``slerp`` (read-out R2). Supports any number of modalities, in
pairs; one modality has none and is trained alone.

Reference: Yang, Wu, Jiang, "Towards Equilibrium: An Instantaneous Probe-and-
Rebalance Multimodal Learning Approach", IJCAI 2025. Official:
njustkmg/IJCAI25-IPRM, main_av.py and main_trimodal.py (``tri_cls``).

Deviations:
1. The official script for three modalities reads the third with the head of the
   second. Here each modality has its own head.
2. Its other variant, one head for a random pair in each step, is not
   implemented.
3. Where K_a + K_b = 0, or no sample of the batch has both modalities, λ̂ is λ;
   officially it is 0/0.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses, missing, spheres
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range, from_modulation, scalar
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "objective",
  "Σ CE(o_ab at λ̂) + Σ CE(o_m), λ̂_a = K_b/(K_a+K_b), K_m = KL(p_m‖p_ab)",
  "Yang et al., IJCAI 2025",
)


class State(struct.PyTreeNode):
  """State of IPRM.

  Attributes:
    probed: {a: {b: []}}, λ_a of the last probe.
    found: the same for λ̂_a that it gave.
  """

  probed: dict[str, dict[str, Leaf]]
  found: dict[str, dict[str, Leaf]]


def make(*, alpha: float = 0.8) -> Method:
  """The IPRM method.

  Args:
    alpha: α in [0, 1], how much λ keeps of its old value.
  """
  check_range("alpha", alpha, 0, 1)

  def loss(outputs, batch, mstate):
    after = probe(outputs, batch, mstate, alpha)
    own = _terms.own(outputs, batch)
    value = _terms.total(own)
    cls = jnp.zeros_like(value)
    for a, b, parts in spheres.pairs(outputs.extra["mixed"]):
      logits = spheres.mixture(parts, after.found[a][b])
      cls = cls + _terms.cross_entropy(logits, batch, a, b)
    return cls + value, {"cls": cls, **_terms.named("cls", own)}

  def modulate(problem, grads, outputs, batch, mstate, key):
    del key
    after = probe(outputs, batch, mstate, alpha)
    share = {m: average(after.found, m) for m in problem.modalities}
    return grads, after, _terms.named("share", share)

  def predict(outputs, mstate):
    mixed = {
      (a, b): spheres.mixture(parts, mstate.probed[a][b])
      for a, b, parts in spheres.pairs(outputs.extra["mixed"])
    }
    own = missing.projected(outputs.unimodal, outputs.present)
    if not mixed:
      return own
    return own + spheres.average(mixed, outputs.unimodal, outputs.present)

  return from_modulation(
    loss, modulate, init=_init, predict=predict, diagnostics=("share",)
  )


def _init(problem, state, key):
  del state, key
  _needs.extra(problem, "mixed", "iprm", "slerp")
  mixed = problem.outputs.extra["mixed"]
  half = {a: dict.fromkeys(inner, scalar(0.5)) for a, inner in mixed.items()}
  return State(half, half)


def probe(outputs, batch, mstate, alpha):
  """The state after the probe of this batch, without a gradient."""
  outputs = jax.lax.stop_gradient(outputs)
  now = jax.tree.map(
    lambda old, new: alpha * old + (1 - alpha) * new,
    mstate.probed,
    mstate.found,
  )
  found = {a: dict(inner) for a, inner in now.items()}
  for a, b, parts in spheres.pairs(outputs.extra["mixed"]):
    mixed = spheres.mixture(parts, now[a][b])
    apart = functools.partial(divergence, mixed, batch.having(a, b))
    one, two = apart(outputs.unimodal[a]), apart(outputs.unimodal[b])
    share = two / jnp.where(one + two > 0, one + two, 1)
    share = jnp.where(one + two > 0, share, now[a][b])
    found[a][b] = share.astype(now[a][b].dtype)
  return State(now, found)


def divergence(mixed, mask, own):
  """K_m, the mean of KL(softmax(own) ‖ softmax(mixed)), never below zero."""
  log_p, log_q = jax.nn.log_softmax(own), jax.nn.log_softmax(mixed)
  each = (jnp.exp(log_p) * (log_p - log_q)).sum(axis=-1)
  return jnp.maximum(losses.masked_mean(each, mask), 0)


def average(shares, modality):
  """The mean share of a modality over its pairs; 1 without a pair."""
  own = [s for a, _, s in spheres.pairs(shares) if a == modality]
  own += [1 - s for _, b, s in spheres.pairs(shares) if b == modality]
  return jnp.stack(own).mean() if own else jnp.ones(())
