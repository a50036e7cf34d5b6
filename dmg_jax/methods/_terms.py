"""Cross-entropies and true-class scores, as most methods need them."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.types import Batch, Outputs


def cross_entropy(logits: jax.Array, batch: Batch) -> jax.Array:
  """``CE(o, y)``: masked mean over the batch, in nats."""
  each = losses.cross_entropy(logits, batch.labels)
  return losses.masked_mean(each, batch.mask)


def own(outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
  """{modality: CE of its own logits}."""
  return {m: cross_entropy(o, batch) for m, o in outputs.unimodal.items()}


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

  Its derivative goes to the first of equals, while that of ``max`` counts them
  and is 0/0 where a compiler evaluates ``x`` twice and not quite the same.
  """
  first = jax.lax.stop_gradient(x).argmax(axis=-1)
  return jnp.take_along_axis(x, first[:, None], axis=-1)[:, 0]


def scores(
  logits: Mapping[str, jax.Array], batch: Batch
) -> dict[str, jax.Array]:
  """{modality: s_m}, the sum of its true-class probabilities."""
  return {
    m: (true_class(o, batch.labels) * batch.mask).sum() + 1e-12
    for m, o in logits.items()
  }


def ratios(score: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """{modality: s_m / mean of the others'}; 1 for a modality that is alone."""
  others = len(score) - 1
  if not others:
    return {m: jnp.ones_like(s) for m, s in score.items()}
  whole = total(score)
  return {m: s * others / (whole - s) for m, s in score.items()}
