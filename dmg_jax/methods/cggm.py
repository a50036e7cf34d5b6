r"""CGGM: damps the encoder whose classifier improved most, aligns directions.

Each modality has a classifier that learns from its features without changing
them. With ε_m, the classifier's accuracy on the batch, and Δ_m, its increase
since the last batch:

.. math:: L = \mathrm{CE}(o) + \lambda L_{gm} + \sum_m
  \mathrm{CE}(U_m^\top \mathrm{sg}(z_m) + c_m), \qquad
  B_m = \frac{\sum_{j \ne m} \Delta_j}{\sum_j \Delta_j}, \qquad
  g_{\theta_m} \leftarrow \rho B_m\, g_{\theta_m}
.. math:: L_{gm} = \frac{1}{M} \sum_m |B_m| - B_m \cos(G_m, \mathrm{sg}(C_m)),
  \quad G_m = \sum_i (p_i - y_i) z_{m,i}^\top, \quad
  C_m = \sum_i (p_{m,i} - y_i) z_{m,i}^\top

for the weights θ_m of encoder m; sg stops the gradient. C_m is the gradient of
the classifier's weights and G_m that of a linear head on z_m which is fed the
fused prediction p: a block of the fused head, where that is linear. B carries
no gradient. The classifiers are the heads of the fusion ``own_heads``; with
other fusions they are its unimodal read-outs, whose weights the fused
prediction shares. Supports any number of modalities; a single one has B = 1.

Reference: Guo, Jin, Chen, Zhao, "Classifier-guided Gradient Modulation for
Enhanced Multimodal Learning", NeurIPS 2024. Official: zrguo/CGGM.

Deviations (``faithful=True`` follows the official code in 1 and 2):
1. Where a classifier became worse, Δ_m is 0 here, and B = (M - 1) / M if none
   became better. Officially Σ Δ may be near zero or negative, which gives
   factors up to 1e8 of either sign. It clips the gradient at norm .8: set
   ``clip_norm`` of the optimiser with ``faithful=True``.
2. The official L_gm compares the last layers' weights, not their gradients, so
   it reaches the weights of the fused head alone. It is added one step late,
   with the weights of that step; ``faithful=True`` adds it in its own step.
3. The official classifiers are transformers with an optimiser of their own, at
   half the rate.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.errors import InputError
from dmg_jax.methods import _rates, _terms
from dmg_jax.methods._adapters import (
  check_range,
  differentiate,
  own_key,
  scalar,
)
from dmg_jax.types import SHARED, Card, Method

CARD = Card(
  "gradient",
  "g ← ρ B_m g, B_m = Σ_{j≠m} Δacc_j / Σ Δacc_j; + λ L_gm",
  "Guo et al., NeurIPS 2024",
)


def make(
  *, rho: float = 1.3, weight: float = 0.2, faithful: bool = False
) -> Method:
  """The CGGM method.

  Args:
    rho: factor ρ > 0 of the encoders' gradients.
    weight: weight λ ≥ 0 of L_gm; officially .2 (MOSI, IEMOCAP) and .05 (Food).
    faithful: see the deviations; needs the fusion ``own_heads``.
  """
  check_range("rho", rho, 1e-6, 1e6)
  check_range("weight", weight, 0, 1e6)

  def step(problem, state, batch, key, apply):
    def loss(outputs, params):
      own = _classifiers(problem, state, batch, own_key(key), outputs, params)
      acc = accuracies(own, batch, state.method)
      gain = {m: a - state.method[m] for m, a in acc.items()}
      b = coefficients(gain, faithful)
      if faithful:
        pair = last_layers(problem, params)
      else:
        pair = both_slopes(own, outputs, batch)
      terms = {
        "cls": _terms.cross_entropy(outputs.logits, batch),
        "direction": direction(b, *pair),
      }
      heads = {m: _terms.cross_entropy(o, batch, m) for m, o in own.items()}
      value = terms["cls"] + weight * terms["direction"] + _terms.total(heads)
      terms |= _terms.named("cls", heads) | _terms.named("accuracy", acc)
      return value, terms | _terms.named("coefficient", b)

    done = differentiate(loss, problem, state, batch, key)
    names, found = problem.modalities, done.metrics
    factors = {m: rho * found[f"coefficient_{m}"] for m in names}
    grads = _rates.scaled(problem, done.grads, factors)
    acc = {m: found[f"accuracy_{m}"] for m in names}
    return apply(done.state.replace(method=acc), grads), found

  def init(problem, state, key):
    del key
    if faithful:
      last_layers(problem, state.params)
    return {m: scalar(0.0) for m in problem.modalities}

  diagnostics = ("accuracy", "coefficient")
  return Method(step=step, init=init, diagnostics=diagnostics)


def _classifiers(problem, state, batch, key, outputs, params):
  """{modality: logits} of the classifiers, on features without gradient."""
  features = jax.lax.stop_gradient(outputs.features)
  given = params, state.stats, features, key, True, batch.present
  return problem.fuse(*given).unimodal


def accuracies(logits, batch, last):
  """{modality: accuracy on a batch}; the last one where nobody has it."""
  found = {}
  for m, o in logits.items():
    there = batch.having(m)
    right = (o.argmax(axis=-1) == batch.labels).astype(last[m].dtype)
    mean = losses.masked_mean(right, there).astype(last[m].dtype)
    found[m] = jnp.where(there.max() > 0, mean, last[m])
  return found


def coefficients(gain, faithful=False):
  """{modality: B_m} of the increases in accuracy; 1 for a single modality."""
  if len(gain) == 1:
    return {m: jnp.ones_like(d) for m, d in gain.items()}
  if faithful:
    whole = _terms.total(gain) + 1e-8
    return {m: (whole - d) / whole for m, d in gain.items()}
  gain = {m: jnp.maximum(d, 0) for m, d in gain.items()}
  whole, even = _terms.total(gain), 1 - 1 / len(gain)
  safe = jnp.where(whole > 0, whole, 1)
  return {m: jnp.where(whole > 0, 1 - d / safe, even) for m, d in gain.items()}


def both_slopes(own, outputs, batch):
  """``slopes`` of the fused logits, and of the classifiers."""
  fused = dict.fromkeys(own, outputs.logits)
  return [slopes(o, outputs.features, batch) for o in (fused, own)]


def slopes(logits, features, batch):
  """{modality: [k d]}, the gradient of a linear head on its features."""
  found = {}
  for m, o in logits.items():
    away = jax.nn.softmax(o) - jax.nn.one_hot(batch.labels, o.shape[-1])
    there = losses.weighted(batch.having(m), batch)[:, None]
    found[m] = (away * there).T @ features[m]
  return found


def last_layers(problem, params):
  """{modality: block of the fused head}, {modality: own head}, all [d k]."""
  names, found = problem.modalities, {}
  owners = jax.tree.leaves(problem.owner)
  for p, o in zip(jax.tree.leaves(params), owners, strict=True):
    if p.ndim == 2:
      found.setdefault(o, []).append(p)
  fused, *own = (
    found.get(o, []) for o in (SHARED, *map("{}/head".format, names))
  )
  ends = list(itertools.accumulate(problem.sizes[m] for m in names))
  if any(len(p) != 1 for p in (fused, *own)) or len(fused[0]) != ends[-1]:
    raise InputError(
      "cggm with faithful=True compares a linear fused head with a head per "
      "modality: use fusion=own_heads without a hidden layer"
    )
  blocks = jnp.split(fused[0], ends[:-1])
  heads = {m: p for m, (p,) in zip(names, own, strict=True)}
  return dict(zip(names, blocks, strict=True)), heads


def direction(b, one, two):
  """L_gm of the coefficients and two sets of arrays by modality.

  The second one carries no gradient.
  """
  two = jax.lax.stop_gradient(two)
  apart = {m: jnp.abs(v) - v * cosine(one[m], two[m]) for m, v in b.items()}
  return _terms.total(apart) / len(apart)


def cosine(a, b):
  """Cosine of two arrays, whose norms are at least 1e-8."""
  lengths = [jnp.sqrt(jnp.maximum((x * x).sum(), 1e-16)) for x in (a, b)]
  return (a * b).sum() / (lengths[0] * lengths[1])
