r"""AGM: balances the learning speed of Shapley-attributed unimodal logits.

Let f(S) be the fused logits when the inputs of the modalities outside S are
zero (read-out R4), and f(∅) = 0:

.. math:: \mu_m = \sum_{S \not\ni m} \frac{|S|!\,(M - |S| - 1)!}{M!}
  (f(S \cup m) - f(S)), \qquad \sum_m \mu_m = f(\text{all})
.. math:: s_m = \mathrm{CE}(\mu_m, y), \quad
  r_m = e^{\frac{M}{M-1} (\bar s - s_m)}, \quad
  \kappa_m = e^{\alpha \min(\hat r_m - r_m,\, 10)}

r̂ is r computed from the running means τ of s over all previous steps. κ_m
multiplies the gradient that flows into μ_m: the loss is the cross-entropy of
Σ_m [κ_m μ_m + sg((1 - κ_m) μ_m)], where sg stops the gradient. Works with any
fusion and any number of modalities, at the cost of 2^M - 2 extra forward passes
per step; a single modality keeps κ = 1.

Reference: Li, Li, Hu, et al., "Boosting Multi-modal Model Performance with
Adaptive Gradient Modulation", ICCV 2023, eqs. 4-12. Official:
lihong2303/AGM_ICCV2023. As there, the ablated passes run in evaluation mode and
carry gradients.

Deviations:
1. The official gradient clipping (global norm to 1 if an entry of the head's
   gradient exceeds 1) is available as ``clip=True``. It is off by default,
   because it is not part of the paper and acts at any α.
2. After epoch ``end``, κ is 1 again; the official code keeps the last κ.
"""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses, trees
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, differentiate, scalar
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "gradient",
  "∂/∂μ_m ← κ_m ∂/∂μ_m, μ Shapley values of the logits",
  "Li et al., ICCV 2023",
)


class State(struct.PyTreeNode):
  """State of AGM.

  Attributes:
    mean: {modality: []}, running means τ of the losses s.
    count: [], number of steps in the means.
    active: [], 1 in epochs with modulation, else 0.
  """

  mean: dict[str, Leaf]
  count: Leaf
  active: Leaf


def make(
  *, alpha: float = 1.0, start: int = 0, end: int = 20, clip: bool = False
) -> Method:
  """The AGM method.

  Args:
    alpha: strength α in [0, 8]; 0 gives joint training.
    start, end: first and last epoch with modulation, 0-based.
    clip: see deviation 1.
  """
  check_range("alpha", alpha, 0, 8)  # exp(10 α) must fit a float32.
  check_range("start", start, 0, 1e9)

  def step(problem, state, batch, key, apply):
    def loss(outputs, params):
      mu = shapley(subsets(problem, params, state.stats, batch, outputs))
      s = {m: floored(v, batch, m) for m, v in mu.items()}
      s = _terms.filled(s, batch)
      kappa = coefficients(s, state.method, alpha)
      each = {m: k * mu[m] + sg((1 - k) * mu[m]) for m, k in kappa.items()}
      value = _terms.cross_entropy(_terms.total(each), batch)
      terms = {**_terms.named("kappa", kappa), **_terms.named("score", s)}
      return value, {"cls": value, **terms}

    done = differentiate(loss, problem, state, batch, key)
    grads = clipped(problem, done.grads) if clip else done.grads
    s = {m: done.metrics[f"score_{m}"] for m in problem.modalities}
    mstate = remember(state.method, s)
    return apply(done.state.replace(method=mstate), grads), done.metrics

  def init(problem, state, key):
    del state, key
    zero = scalar(0.0)
    mean = dict.fromkeys(problem.modalities, zero)
    return State(mean, zero, scalar(start <= 0 <= end))

  def between_epochs(problem, state, data, epoch):
    del problem, data
    active = scalar(start <= epoch <= end)
    return state.replace(method=state.method.replace(active=active))

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    ablates_inputs=True,
    diagnostics=("kappa", "score"),
  )


sg = jax.lax.stop_gradient


def subsets(problem, params, stats, batch, outputs):
  """{S: f(S)} for all non-empty sets S of modalities."""
  names = problem.modalities
  found = {frozenset(names): outputs.logits}
  rows = jnp.ones_like(batch.mask)
  for size in range(1, len(names)):
    for chosen in itertools.combinations(names, size):
      shown = {m: rows * (m in chosen) for m in names}
      ablated, _ = problem.forward(
        params, stats, batch.inputs, None, False, batch.present, shown=shown
      )
      found[frozenset(chosen)] = ablated.logits
  return found


def shapley(f):
  """{modality: μ_m} from ``{set: logits}``, sorted by name."""
  everyone = max(f, key=len)
  total = math.factorial(len(everyone))
  mu = {}
  for m in sorted(everyone):
    parts = []
    for s in (s for s in f if m in s):
      rest = s - {m}
      ways = math.factorial(len(rest)) * math.factorial(len(everyone) - len(s))
      parts.append(ways / total * (f[s] - f[rest] if rest else f[s]))
    mu[m] = sum(parts)
  return mu


def floored(logits, batch, *modality):
  """s_m: the weighted mean of -log max(p[y], 1e-8), without gradient."""
  p = jnp.maximum(_terms.true_class(logits, batch.labels), 1e-8)
  each = losses.weighted(-jnp.log(p), batch)
  return losses.masked_mean(each, batch.having(*modality))


def relative(s):
  """{modality: r_m} from losses s; 1 for a single modality."""
  count = len(s)
  if count == 1:
    return {m: jnp.ones_like(v) for m, v in s.items()}
  mean = _terms.total(s) / count
  return {m: jnp.exp(count / (count - 1) * (mean - v)) for m, v in s.items()}


def coefficients(s, memory, alpha):
  """{modality: κ_m}; 1 in epochs without modulation."""
  now, before = relative(s), relative(memory.mean)
  return {
    m: jnp.where(
      memory.active > 0,
      jnp.exp(alpha * jnp.minimum(before[m] - now[m], 10.0)),
      1.0,
    )
    for m in s
  }


def remember(memory, s):
  """The state with the losses of one more step in the running means."""
  n = memory.count + 1
  mean = {
    m: (memory.mean[m] * (n - 1) / n + v / n).astype(memory.mean[m].dtype)
    for m, v in s.items()
  }
  return memory.replace(mean=mean, count=n)


def clipped(problem, grads):
  """``grads`` at global norm ≤ 1 if an entry of a head's gradient exceeds 1."""
  largest = [
    jnp.abs(g).max()
    for g, o in zip(
      jax.tree.leaves(grads), jax.tree.leaves(problem.owner), strict=True
    )
    if o not in problem.modalities and g.ndim > 1
  ]
  norm = trees.norm(grads)
  too_large = jnp.stack(largest).max() > 1
  factor = jnp.where(too_large, 1 / jnp.maximum(norm, 1.0), 1.0)
  return trees.scale(factor, grads)
