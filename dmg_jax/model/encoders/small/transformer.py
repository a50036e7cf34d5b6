"""Sequences read all at once: a Transformer's encoder."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from dmg_jax.errors import InputError
from dmg_jax.model.encoders.small import _attention, _blocks, _parts, _sequence

POOLINGS = ("mean", "cls")
POSITIONS = ("sinusoidal", "learned")
_GROWTH = 4  # Hidden units of a layer, times its width.
_EPSILON = 1e-5
_ROWS = 256  # Of a table of sinusoids, whose square is the longest sequence.
_KERNEL = nn.initializers.lecun_normal()
_TABLE = nn.initializers.normal(0.02)


def sinusoids(count: Any, width: int) -> Float[Array, "t w"]:
  """Positions as sines and cosines, [count width].

  ``P[t, 2i] = sin(t / 10000^(2i/w))`` and ``P[t, 2i+1]`` the cosine of the
  same (Vaswani et al. 2017). If ``count`` is a symbol, as in a program for any
  number of steps, by ``t = 256 q + r`` and the sums of angles.
  """
  if isinstance(count, int):
    return jnp.asarray(_waves(np.arange(count), width)[0], jnp.float32)
  t, few = jnp.arange(count), np.arange(_ROWS)

  def rows(table, index):
    return jnp.asarray(table, jnp.float32)[index]

  a, a_other = (rows(x, t // _ROWS) for x in _waves(few * _ROWS, width))
  b, b_other = (rows(x, t % _ROWS) for x in _waves(few, width))
  even = (jnp.arange(width) % 2 == 0)[None]
  return jnp.where(even, a * b_other + a_other * b, a * b - a_other * b_other)


def _waves(t: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
  """Sines and cosines of t [n], in turn, and cosines and sines, [n w]."""
  i = np.arange(width)
  angles = t[:, None] / 10000.0 ** (i // 2 * 2 / width)
  even, sine, cosine = i % 2 == 0, np.sin(angles), np.cos(angles)
  return np.where(even, sine, cosine), np.where(even, cosine, sine)


def _affine(rows: int, columns: int) -> Callable[[Any], Any]:
  def draw(key):
    kernel = _KERNEL(key, (rows, columns), jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(columns, jnp.float32)}

  return draw


def _norm(width: int) -> _blocks.Weights:
  ones, zeros = jnp.ones(width, jnp.float32), jnp.zeros(width, jnp.float32)
  return {"scale": ones, "bias": zeros}


def _layer(width: int) -> Callable[[Any], Any]:
  """Draws the weights of a layer."""
  sizes = {
    "query": (width, width),
    "key": (width, width),
    "value": (width, width),
    "out": (width, width),
    "hidden": (width, _GROWTH * width),
    "shrunk": (_GROWTH * width, width),
  }

  def draw(key):
    keys = jax.random.split(key, len(sizes))
    made = {
      name: _affine(*size)(k)
      for k, (name, size) in zip(keys, sizes.items(), strict=True)
    }
    return {**made, "norm_0": _norm(width), "norm_1": _norm(width)}

  return draw


def _normed(x: Array, p: _blocks.Weights) -> Array:
  """LayerNorm with an affine map."""
  x = x - x.mean(axis=-1, keepdims=True)
  x = x * lax.rsqrt((x * x).mean(axis=-1, keepdims=True) + _EPSILON)
  axes = tuple(range(x.ndim - 1))
  return x * jnp.expand_dims(p["scale"], axes) + jnp.expand_dims(
    p["bias"], axes
  )


def _apply(
  p: _blocks.Weights,
  x: Float[Array, "n b s w"],
  mask: Bool[Array, "n b s"],
  heads: int,
  key: Any,
  rate: float,
  dtype: Any,
) -> Float[Array, "n b s w"]:
  """A layer: attention, then a network of one hidden layer, both residual."""

  affine = functools.partial(_blocks.affine, dtype=dtype)

  def project(x):
    x = _normed(x, p["norm_0"])
    return tuple(affine(x, **p[k]) for k in ("query", "key", "value"))

  def rest(at):
    x, mixed, block = at
    mixed = affine(mixed, **p["out"])
    x = x + _blocks.dropped(mixed, _sequence.key_at(key, 0), block, rate)
    h = nn.relu(affine(_normed(x, p["norm_1"]), **p["hidden"]))
    h = affine(h, **p["shrunk"])
    return x + _blocks.dropped(h, _sequence.key_at(key, 1), block, rate)

  q, k, v = lax.map(project, x)
  mixed = _attention.attend(q, k, v, mask, heads, dtype)
  return lax.map(rest, (x, mixed, jnp.arange(x.shape[0])))


class Transformer(nn.Module):
  """Sequences to features: a Transformer's encoder, with norms before.

  Steps ``x_t`` become ``h_t = W x_t + b + P_t`` with positions P. Each layer is
  ``h ← h + A(N(h))`` and ``h ← h + F(N(h))``, where N is LayerNorm,
  ``F(h) = W₂ relu(W₁ h + b₁) + b₂`` with 4 w hidden units, and A is attention
  over the real steps of a sample, by ``heads`` heads side by side:
  ``softmax(Q Kᵀ / √e) V`` with ``Q, K, V`` linear in h, of size e = w / heads a
  head, and a linear map of the result. A last N comes before the pooling.
  (Vaswani et al., *Attention is all you need*, NeurIPS 2017; norms before each
  part as in Xiong et al., *On layer normalization in the Transformer
  architecture*, ICML 2020.)

  Padding has no influence: see ``_blocks``. The mean of a sample without steps
  is zero.

  Attributes:
    vocab_size: number of words, padding included, if samples are word numbers
      [t]; set from the data.
    features: size ``d`` of the output.
    width: w, of a step inside, a multiple of heads.
    layers: number of layers.
    heads: of attention.
    positions: ``sinusoidal``, or ``learned`` for the first ``longest`` steps.
    longest: number of learned positions.
    pooling: ``mean`` over steps, or ``cls``, the output of a learned step that
      stands before the others.
    dropout: probability of dropping an entry of what a layer adds, of the
      embedded steps, and before the linear layer at the end.
    dtype: dtype of products, ``float32`` or ``bfloat16``; weights, states, sums
      and features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = _sequence.KINDS
  axes = 2  # A sample is [t d], or word numbers [t].
  ragged = True
  vocab_size: int | None = None
  features: int = 64
  width: int = 64
  layers: int = 2
  heads: int = 4
  positions: str = "sinusoidal"
  longest: int = 1024
  pooling: str = "mean"
  dropout: float = 0.0
  dtype: str = "float32"
  remat: bool = False

  def __post_init__(self):
    choices = {"positions": POSITIONS, "pooling": POOLINGS}
    _sequence.check(self, choices)
    if self.width % self.heads:
      raise InputError(
        f"width of Transformer must be a multiple of heads, got {self.width} "
        f"and {self.heads}"
      )
    super().__post_init__()

  @property
  def stages(self) -> int:
    """Number of stages before the last: all up to what is pooled, [b w]."""
    return 1

  @nn.compact
  def __call__(
    self, x: Any, train: bool, first: int = 0, last: int | None = None
  ) -> Float[Array, "b _"]:
    x = self._pooled(x, train) if first == 0 else x
    return x if last == 1 else _sequence.end(self, x, train)

  def _pooled(self, x: Any, train: bool) -> Float[Array, "b w"]:
    """All layers and the pooling."""
    x, mask = _sequence.steps(x, self.width, self.vocab_size)
    positions = self._positions(x.shape[1])
    key = _sequence.key(self, train)
    if self.pooling == "cls":
      x = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))
      mask = jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)
    x, mask = _blocks.split(x), _blocks.split(mask)
    own = _sequence.key_at(key, self.layers)
    x = _blocks.drop(self._embedded(x, positions), own, self.dropout)
    layer, dtype = _apply, _parts.chosen(self.dtype)
    if self.remat:
      layer = jax.checkpoint(_apply, static_argnums=(3, 5, 6))
    for i in range(self.layers):
      p = self.param(f"layer_{i}", _layer(self.width))
      own = _sequence.key_at(key, i)
      x = layer(p, x, mask, self.heads, own, self.dropout, dtype)
    norm = self.param("norm", lambda _: _norm(self.width))
    x = lax.map(lambda x: _normed(x, norm), x)
    if self.pooling == "cls":
      mask = jnp.zeros_like(mask).at[0, :, 0].set(True)
    return _blocks.mean(x, mask)

  def _positions(self, steps: Any) -> Float[Array, "t w"]:
    """Of the steps of a batch, that of a learned step first."""
    before = int(self.pooling == "cls")
    if self.positions == "sinusoidal":
      return sinusoids(steps + before, self.width)
    if steps > self.longest:
      raise InputError(
        f"Transformer has {self.longest} learned positions, a batch has "
        f"{steps} steps: set longest={steps} or more, or "
        "positions=sinusoidal"
      )
    shape = (self.longest + before, self.width)
    return self.param("positions", _TABLE, shape, jnp.float32)[: steps + before]

  def _embedded(
    self, x: Float[Array, "n b s d"], positions: Float[Array, "t w"]
  ) -> Float[Array, "n b s w"]:
    """Steps with their positions; a learned step at the first place."""
    p = self.param("embed", _affine(x.shape[-1], self.width))
    own = jnp.zeros(self.width, jnp.float32)
    if self.pooling == "cls":
      own = self.param("cls", _TABLE, (self.width,), jnp.float32)
    at = _blocks.split(positions[None])
    place = jnp.arange(x.shape[0] * x.shape[2]).reshape(x.shape[0], -1)
    first = (place == 0) & (self.pooling == "cls")

    def embed(block):
      x, at, first = block
      h = _blocks.affine(x, **p, dtype=_parts.chosen(self.dtype))
      h = jnp.where(first[None, :, None], own[None, None], h)
      return h + jnp.broadcast_to(at, h.shape)

    return lax.map(embed, (x, at, first))
