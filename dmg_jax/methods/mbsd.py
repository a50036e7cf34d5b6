r"""MBSD: distils, per sample, from the better modality into the worse one.

.. math:: L = \mathrm{CE}(o) + \sum_m \mathrm{CE}(o_m) + \lambda\,
  \mathrm{mean}_{j<l}\, \frac{1}{n} \sum_i w_i \bigl[\mathrm{KL}(p_s \| p_t) +
  \tfrac{1}{k} \| p_s - p_t \|^2\bigr], \quad w_i = |p_{j,i}[y] - p_{l,i}[y]|

where, for a pair (j, l) of modalities, s is the one with the larger probability
of the true class and t is the other. w is zero where neither modality predicts
the true class. p_s and w carry no gradient. Supports any number of modalities.

Reference: Liu, Xie, et al., "Multi-Modal Pre-training with Self-Distillation",
WSDM 2023, as in GeWu-Lab/BalanceBenchmark.

Deviations (``faithful=True`` follows the toolkit's code):
1. The toolkit passes a probability to a KL function that expects a logarithm,
   which turns the term into ``p_t[y] (log p_t[y] - p_s[y])`` of the true class.
2. Its second term is computed on logits (on probabilities for three
   modalities), and w and p_s carry a gradient, so the stronger modality also
   learns from the weaker.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, from_loss
from dmg_jax.methods.joint import classification
from dmg_jax.types import Card, Method

CARD = Card(
  "objective",
  "CE(o) + Σ CE(o_m) + w (KL(p_s‖p_t) + ‖p_s - p_t‖²/k)",
  "Liu et al., WSDM 2023",
)


def make(*, weight: float = 1.0, faithful: bool = False) -> Method:
  """The MBSD method.

  Args:
    weight: weight λ ≥ 0 of the distillation.
    faithful: use the terms of the toolkit, see the deviations.
  """
  check_range("weight", weight, 0, 1e6)

  def loss(outputs, batch, method_state):
    del method_state
    cls, terms = classification(outputs, batch)
    own = _terms.own(outputs, batch)
    theirs = functools.partial(toolkit, on_logits=len(own) == 2)
    pair = theirs if faithful else distil
    extra = losses.over_pairs(
      lambda a, b, mask: losses.masked_mean(pair(a, b, batch.labels), mask),
      outputs.unimodal,
      batch,
    )
    value = cls + _terms.total(own) + weight * extra
    return value, {**terms, **_terms.named("cls", own), "distil": extra}

  return from_loss(loss)


def weights(a: jax.Array, b: jax.Array, labels: jax.Array) -> jax.Array:
  """w [b]: difference of true-class probabilities, 0 if both are wrong."""
  right = (a.argmax(axis=-1) == labels) | (b.argmax(axis=-1) == labels)
  one, two = -losses.cross_entropy(a, labels), -losses.cross_entropy(b, labels)
  first = jax.lax.stop_gradient(one >= two)
  gap = jnp.exp(one) - jnp.exp(two)
  return jnp.where(right, jnp.where(first, gap, -gap), 0.0)


def distil(a: jax.Array, b: jax.Array, labels: jax.Array) -> jax.Array:
  """The distillation term per sample [b] for a pair of unimodal logits."""
  w = jax.lax.stop_gradient(weights(a, b, labels))
  one, two = (_terms.true_class(o, labels) for o in (a, b))
  first = (one >= two)[:, None]
  strong = jax.lax.stop_gradient(jnp.where(first, a, b))
  weak = jnp.where(first, b, a)
  log_s, log_w = jax.nn.log_softmax(strong), jax.nn.log_softmax(weak)
  p_s, p_w = jnp.exp(log_s), jnp.exp(log_w)
  kl = (p_s * (log_s - log_w)).sum(axis=-1)
  return w * (kl + ((p_s - p_w) ** 2).mean(axis=-1))


def toolkit(
  a: jax.Array, b: jax.Array, labels: jax.Array, on_logits: bool = True
) -> jax.Array:
  """``distil`` as the toolkit computes it, with gradients everywhere."""
  one, two = -losses.cross_entropy(a, labels), -losses.cross_entropy(b, labels)
  first = jax.lax.stop_gradient(one >= two)
  log_weak = jnp.where(first, two, one)
  strong, weak = jnp.exp(jnp.where(first, one, two)), jnp.exp(log_weak)
  w = weights(a, b, labels)
  apart = a - b if on_logits else jax.nn.softmax(a) - jax.nn.softmax(b)
  return w * ((apart**2).mean(axis=-1) + weak * (log_weak - strong))
