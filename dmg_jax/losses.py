"""Losses, per sample where possible, and the masked mean over a batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from dmg_jax.errors import InputError
from dmg_jax.types import Batch


def masked_mean(
  values: Float[Array, " b"], mask: Float[Array, " b"]
) -> Float[Array, ""]:
  """Mean of ``values`` where ``mask`` is 1; zero if it is 1 nowhere.

  The sum is taken in float32 or wider.
  """
  dtype = jnp.promote_types(values.dtype, jnp.float32)
  mask = mask.astype(dtype)
  total = jnp.where(mask > 0, values.astype(dtype), 0.0) * mask
  return total.sum() / jnp.maximum(mask.sum(), 1.0)


def cross_entropy(
  logits: Float[Array, "b k"], labels: Int[Array, " b"]
) -> Float[Array, " b"]:
  """``-log softmax(logits)[label]`` per sample, in nats."""
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  return optax.softmax_cross_entropy_with_integer_labels(
    logits.astype(dtype), labels
  )


def soft_cross_entropy(
  logits: Float[Array, "b k"], targets: Float[Array, "b k"]
) -> Float[Array, " b"]:
  """``-Σ_k target_k log softmax(logits)_k`` per sample, in nats."""
  dtype = jnp.promote_types(logits.dtype, jnp.float32)
  return optax.softmax_cross_entropy(logits.astype(dtype), targets)


def weighted(values: Float[Array, " b"], batch: Batch) -> Float[Array, " b"]:
  """Losses of single samples, each times ``batch.weight`` if there is one."""
  return values if batch.weight is None else values * batch.weight


def with_class_weights(
  batch: Batch, weights: np.ndarray | None, relative: bool = True
) -> Batch:
  r"""The batch with the weight of its class at each sample.

  .. math:: \frac{\sum_i w_{y_i} \ell_i}{\sum_i w_{y_i}}
    = \frac{1}{n} \sum_i \frac{w_{y_i}}{\bar w} \ell_i

  With ``relative``, weights are divided by their mean over the batch, padding
  left out, so the mean of a loss is PyTorch's weighted mean (the left side).
  It is zero for a batch of classes without weight.

  Args:
    batch: any batch.
    weights: [k], one of each class; ``None`` leaves the batch as it is.
    relative: see above.
  """
  if weights is None:
    return batch
  own = jnp.asarray(weights, jnp.float32)[batch.labels]
  if relative:
    mean = masked_mean(own, batch.mask)
    own = jnp.where(mean > 0, own / jnp.where(mean > 0, mean, 1.0), 0.0)
  return batch.replace(weight=own)


def unit(z: Float[Array, "b d"]) -> Float[Array, "b d"]:
  """Rows of ``z`` at unit length; zero rows and their gradients stay zero."""
  dtype = jnp.promote_types(z.dtype, jnp.float32)
  z = z.astype(dtype)
  square = jnp.sum(z * z, axis=-1, keepdims=True)
  positive = square > 0
  norm = jnp.sqrt(jnp.where(positive, square, 1.0))
  return jnp.where(positive, z / norm, 0.0)


def info_nce(
  x: Float[Array, "b d"],
  y: Float[Array, "b d"],
  mask: Float[Array, " b"],
  temperature: float | Float[Array, ""] = 0.1,
) -> Float[Array, ""]:
  r"""Symmetric InfoNCE between two modalities of the same samples.

  .. math:: -\frac{1}{2 n} \sum_i \Bigl[
    \log \frac{e^{s_{ii}/\tau}}{\sum_k e^{s_{ik}/\tau}} +
    \log \frac{e^{s_{ii}/\tau}}{\sum_k e^{s_{ki}/\tau}} \Bigr],
    \quad s_{ik} = \cos(x_i, y_k)

  where n counts the samples whose mask is 1; the others are neither anchors nor
  negatives. The loss is ``log n`` if all features are equal.

  Args:
    x: features of one modality.
    y: features of the other modality, of the same size.
    mask: 1 for samples, 0 for padding.
    temperature: τ > 0; the paper gives no value.

  Raises:
    ValueError: the feature sizes differ.

  Reference: van den Oord et al., 2018; the paper's L_MM, §3.2.
  """
  if x.shape != y.shape:
    raise InputError(
      "matching needs features of equal size, got "
      f"{x.shape[-1]} and {y.shape[-1]}: give the encoders the same `features`"
    )
  similarity = unit(x) @ unit(y).T / temperature
  valid = mask > 0
  lowest = jnp.finfo(similarity.dtype).min
  rows = jnp.where(valid[None, :], similarity, lowest)
  columns = jnp.where(valid[:, None], similarity, lowest)
  positive = jnp.diagonal(similarity)
  loss = 0.5 * (
    jax.nn.logsumexp(rows, axis=1) + jax.nn.logsumexp(columns, axis=0)
  )
  return masked_mean(loss - positive, mask)


def divergence(
  p_logits: Float[Array, "b k"],
  q_logits: Float[Array, "b k"],
  mask: Float[Array, " b"],
) -> Float[Array, ""]:
  r"""Arithmetic-geometric divergence between two unimodal predictions.

  .. math:: \sum_k m_k \bigl(\log m_k - \tfrac12 \log p_k q_k\bigr),
    \quad m = \tfrac12 (p + q)

  Zero if and only if p = q, and unbounded. The paper's released code minimises
  it instead of InfoNCE and calls it Jensen-Shannon, which has the arguments of
  the KL divergences the other way round.

  Reference: Taneja, 1995; njustkmg/NeurIPS24-LFM, ``Alignment``.
  """
  log_p = jax.nn.log_softmax(p_logits)
  log_q = jax.nn.log_softmax(q_logits)
  log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0).astype(log_p.dtype)
  each = jnp.exp(log_m) * (log_m - 0.5 * (log_p + log_q))
  return masked_mean(each.sum(axis=-1), mask)


def jensen_shannon(
  p_logits: Float[Array, "b k"],
  q_logits: Float[Array, "b k"],
  mask: Float[Array, " b"],
) -> Float[Array, ""]:
  r"""The mean Jensen-Shannon divergence of two softmaxes, in nats.

  .. math:: \tfrac12 \mathrm{KL}(p \| m) + \tfrac12 \mathrm{KL}(q \| m),
    \quad m = \tfrac12 (p + q)

  It lies in [0, log 2] and is zero if and only if p = q.

  Reference: Lin, IEEE Transactions on Information Theory, 1991.
  """
  log_p = jax.nn.log_softmax(p_logits)
  log_q = jax.nn.log_softmax(q_logits)
  log_m = jnp.logaddexp(log_p, log_q) - jnp.log(2.0).astype(log_p.dtype)
  each = jnp.exp(log_p) * (log_p - log_m) + jnp.exp(log_q) * (log_q - log_m)
  return masked_mean(0.5 * each.sum(axis=-1), mask)


def nt_xent(
  features: Mapping[str, Float[Array, "b d"]], batch: Batch, temperature: float
) -> Float[Array, ""]:
  r"""Supervised contrastive loss (NT-Xent) over features of all modalities.

  .. math:: -\frac{1}{|P|} \sum_{(i, p) \in P} \log \frac{e^{s_{ip} / \tau}}
    {e^{s_{ip} / \tau} + \sum_{n: y_n \ne y_i} e^{s_{in} / \tau}}

  P are the ordered pairs of different features of one class, whatever their
  modalities, and s are cosines. Zero if there is no pair. Missing features are
  left out, and the weight of a pair is that of its first sample.

  Args:
    features: of each modality, of one size.
    batch: its labels, mask, weights and ``present`` are read.
    temperature: τ > 0.

  Reference: Khosla et al., NeurIPS 2020, with one positive in each denominator.
  """
  z = jnp.concatenate([unit(x) for x in features.values()])
  there = jnp.concatenate([batch.having(m) for m in features]) > 0
  labels = jnp.tile(batch.labels, len(features))
  s = z @ z.T / temperature
  pair = there[:, None] & there[None, :] & ~jnp.eye(len(z), dtype=bool)
  same = labels[:, None] == labels[None, :]
  lowest = jnp.finfo(s.dtype).min
  others = jax.nn.logsumexp(jnp.where(pair & ~same, s, lowest), axis=1)
  each = jnp.logaddexp(s, others[:, None]) - s
  positive = (pair & same).astype(s.dtype)
  number = jnp.maximum(positive.sum(), 1)
  if batch.weight is not None:
    positive *= jnp.tile(batch.weight, len(features))[:, None]
  return (jnp.where(positive > 0, each, 0.0) * positive).sum() / number


def over_pairs(
  loss: Callable[[Array, Array, Array], Array],
  values: Mapping[str, Array],
  batch: Batch,
) -> Array:
  """Mean of ``loss(x, y, mask)`` over unordered pairs of modalities.

  The mask of a pair marks the samples that have both modalities. Pairs that no
  sample has are left out. Zero for a single modality, which has no other to be
  matched with.

  Args:
    loss: of a pair.
    values: {modality: [b ...]}.
    batch: its ``mask`` and ``present`` are read.
  """
  pairs = list(itertools.combinations(values, 2))
  if not pairs:
    return jnp.zeros((), jnp.promote_types(batch.mask.dtype, jnp.float32))
  masks = [batch.having(*pair) for pair in pairs]
  each = jnp.stack(
    [
      loss(values[a], values[b], mask)
      for (a, b), mask in zip(pairs, masks, strict=True)
    ]
  )
  if batch.present is None:
    return each.mean()
  return masked_mean(each, jnp.stack([mask.max() for mask in masks]))
