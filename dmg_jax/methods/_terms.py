"""Cross-entropies and true-class scores that most methods share."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.types import Batch, Outputs


def each(logits: jax.Array, batch: Batch) -> jax.Array:
  """``CE(o, y)`` of each sample [b] times its weight, in nats."""
  return losses.weighted(losses.cross_entropy(logits, batch.labels), batch)


def cross_entropy(
  logits: jax.Array, batch: Batch, *modalities: str
) -> jax.Array:
  """``CE(o, y)``, the masked and weighted mean over the batch, in nats.

  Samples that lack one of the ``modalities`` do not count.
  """
  return losses.masked_mean(each(logits, batch), batch.having(*modalities))


def own(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
  """{modality: cross-entropy of its unimodal logits, where it is there}."""
  return {m: cross_entropy(o, batch, m) for m, o in outputs.unimodal.items()}


def total(values: Mapping[str, jax.Array]) -> jax.Array:
  """The sum of the values."""
  return functools.reduce(operator.add, values.values())


def named(prefix: str, values: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """``{"prefix_m": value}``, for metrics."""
  return {f"{prefix}_{m}": value for m, value in values.items()}


def true_class(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """``softmax(o)[y]`` of each sample [b], without a gradient."""
  p = jax.nn.softmax(jax.lax.stop_gradient(logits))
  return jnp.take_along_axis(p, labels[:, None], axis=-1)[:, 0]


def largest(x: jax.Array) -> jax.Array:
  """The largest entry of each row [b].

  In a tie the gradient goes to the first entry. ``max`` would divide it by the
  number of ties, which becomes 0/0 if the compiler evaluates ``x`` twice with
  different rounding.
  """
  first = jax.lax.stop_gradient(x).argmax(axis=-1)
  return jnp.take_along_axis(x, first[:, None], axis=-1)[:, 0]


def scores(
  logits: Mapping[str, jax.Array], batch: Batch
) -> dict[str, jax.Array]:
  """{modality: s_m}, the sum of true-class probabilities over the batch.

  With missing modalities, n times the mean over the samples that have m.
  """
  if batch.present is None:
    return {
      m: (true_class(o, batch.labels) * batch.mask).sum() + 1e-12
      for m, o in logits.items()
    }
  means = {
    m: losses.masked_mean(true_class(o, batch.labels), batch.having(m))
    for m, o in logits.items()
  }
  known = filled(means, batch)
  return {m: s * batch.mask.sum() + 1e-12 for m, s in known.items()}


def filled(
  values: Mapping[str, jax.Array], batch: Batch
) -> dict[str, jax.Array]:
  """``values`` with the mean of the others for what no sample has."""
  if batch.present is None:
    return dict(values)
  there = {m: batch.having(m).max() > 0 for m in values}
  known = jnp.stack([jnp.where(there[m], v, 0.0) for m, v in values.items()])
  number = jnp.stack(list(there.values())).sum()
  mean = known.sum() / jnp.maximum(number, 1)
  return {m: jnp.where(there[m], v, mean) for m, v in values.items()}


def ratios(score: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """{modality: s_m / mean of the others}; 1 for a single modality."""
  others = len(score) - 1
  if not others:
    return {m: jnp.ones_like(s) for m, s in score.items()}
  whole = total(score)
  return {m: s * others / (whole - s) for m, s in score.items()}
