"""Mixtures of two modalities on the sphere, as logits of their common head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import missing


def pairs(mixed: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
  """``(a, b, value)`` for each entry of ``{a: {b: value}}``."""
  for a, inner in mixed.items():
    for b, value in inner.items():
      yield a, b, value


def mixture(found: Mapping[str, Any], share: Any) -> Float[Array, "b k"]:
  """o_ab with λ_a = ``share`` and λ_b = 1 - ``share``."""
  angle = found["angle"][:, None]
  one = jnp.sin(share * angle) / jnp.sin(angle)
  two = jnp.sin((1 - share) * angle) / jnp.sin(angle)
  return one * found["first"] + two * found["second"] + found["bias"]


def average(
  values: Mapping[tuple[str, str], Float[Array, "b k"]],
  unimodal: Mapping[str, Float[Array, "b k"]],
  present: Mapping[str, Float[Array, " b"]] | None,
) -> Float[Array, "b k"]:
  """Mean over the pairs of a sample; that of o_m for one without a pair."""
  alone = missing.mean(unimodal, present)
  if not values:
    return alone
  if present is None:
    return jnp.stack(list(values.values())).mean(axis=0)
  ones = jnp.ones(alone.shape[:1], alone.dtype)
  there = jnp.stack(
    [
      missing.where(present, a, missing.where(present, b, ones, 0), 0)
      for a, b in values
    ]
  )
  number = there.sum(axis=0)[:, None]
  whole = (jnp.stack(list(values.values())) * there[:, :, None]).sum(axis=0)
  return jnp.where(number > 0, whole / jnp.maximum(number, 1), alone)
