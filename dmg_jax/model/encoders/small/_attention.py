"""Attention in tiles, the softmax of a query growing from tile to tile."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from dmg_jax.model.encoders.small import _blocks

TILE = 32  # Steps: large enough for products that are worth their call.


def attend(
  q: Float[Array, "n b s w"],
  k: Float[Array, "n b s w"],
  v: Float[Array, "n b s w"],
  mask: Bool[Array, "n b s"],
  heads: int,
  dtype: Any = None,
) -> Float[Array, "n b s w"]:
  """``softmax(Q Kᵀ / √e) V`` over the keys in ``mask``, head by head.

  Queries and keys go tile by tile. For a query with scores s the running
  maximum m, sum l and mean's numerator o become, with a tile of keys,
  ``m' = max(m, max s)``, ``l' = l e^(m−m') + Σ e^(s−m')`` and
  ``o' = o e^(m−m') + Σ e^(s−m') v`` (Milakov & Gimelshein 2018; Dao et al.,
  *FlashAttention*, 2022). o / l does not depend on m, so no derivative goes
  through it. A tile of padding multiplies by 1 and adds 0.

  Products are computed in ``dtype`` if one is given; m, l and o are not.

  Tiles of scores are computed anew in the derivative: memory is linear in T.
  """
  blocks, _, steps, width = q.shape

  def tiles(x):
    x = _blocks.split(_blocks.join(x), TILE)
    return x.reshape(*x.shape[:3], heads, width // heads)

  real = _blocks.split(_blocks.join(mask), TILE)
  keys = tiles(k * (width // heads) ** -0.5), tiles(v), real
  found = lax.map(lambda q: _tile(q, keys, dtype), tiles(q))
  found = _blocks.join(found.reshape(*found.shape[:3], width))
  return _blocks.split(found[:, : blocks * steps], steps)


@functools.partial(jax.checkpoint, static_argnums=(2,))
def _tile(
  q: Float[Array, "b t h e"],
  keys: tuple[
    Float[Array, "m b t h e"], Float[Array, "m b t h e"], Bool[Array, "m b t"]
  ],
  dtype: Any,
) -> Float[Array, "b t h e"]:
  """Attention of a tile of queries to all tiles of keys."""
  low = jnp.finfo(q.dtype).min

  def add(sofar, tile):
    most, mass, mixed = sofar
    k, v, real = tile
    real = real[:, None, None, :]
    scores = _product("bqhe,bkhe->bhqk", q, k, dtype)
    scores = jnp.where(real, scores, low)
    new = jnp.maximum(most, lax.stop_gradient(scores.max(axis=-1)))
    parts = jnp.where(real, jnp.exp(scores - new[..., None]), 0)
    shrink = jnp.exp(most - new)
    mass = mass * shrink + parts.sum(axis=-1)
    mixed = mixed * shrink[..., None]
    mixed = mixed + _product("bhqk,bkhe->bhqe", parts, v, dtype)
    return (new, mass, mixed), None

  batch, steps, heads, size = q.shape
  rows = jnp.zeros((batch, heads, steps), q.dtype)
  start = (
    jnp.full_like(rows, low),
    rows,
    jnp.zeros((*rows.shape, size), q.dtype),
  )
  (_, mass, mixed), _ = lax.scan(add, start, keys)
  mixed = mixed / jnp.where(mass > 0, mass, 1)[..., None]
  return jnp.moveaxis(mixed, 1, 2)


def _product(sums: str, x: Array, y: Array, dtype: Any) -> Array:
  """``einsum`` in ``dtype`` if one is given, as the dtype of ``x``."""
  if dtype is None:
    return jnp.einsum(sums, x, y)
  return jnp.einsum(sums, x.astype(dtype), y.astype(dtype)).astype(x.dtype)
