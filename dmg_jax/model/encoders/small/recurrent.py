"""Sequences read step by step: LSTM and GRU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from dmg_jax.model.encoders.small import _blocks, _parts, _sequence

POOLINGS = ("last", "mean")
_INPUT = nn.initializers.lecun_normal()
_STATE = nn.initializers.orthogonal()

State = tuple[Array, ...]
# (weights, projected input [b g], state, dtype) -> state, the output first.
Cell = Callable[[_blocks.Weights, Array, State, Any], State]


class _Kind(NamedTuple):
  """A cell, how many gates it has, and how many arrays its state is."""

  cell: Cell
  gates: int
  states: int


def _lstm(p, x, state, dtype):
  h, c = state
  i, f, g, o = jnp.split(x + _blocks.product(h, p["state"], dtype), 4, axis=-1)
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
  return nn.sigmoid(o) * jnp.tanh(c), c


def _gru(p, x, state, dtype):
  (h,) = state
  xr, xz, xn = jnp.split(x, 3, axis=-1)
  hr, hz, hn = jnp.split(_blocks.product(h, p["state"], dtype), 3, axis=-1)
  r, z = nn.sigmoid(xr + hr), nn.sigmoid(xz + hz)
  n = jnp.tanh(xn + r * (hn + p["state_bias"][None]))
  return ((1 - z) * n + z * h,)


_LSTM, _GRU = _Kind(_lstm, gates=4, states=2), _Kind(_gru, gates=3, states=1)


def _weights(kind: _Kind, width: int, size: int) -> Callable[[Any], Any]:
  """Draws the weights of a layer for inputs of ``size``."""

  def draw(key):
    ours, *gates = jax.random.split(key, kind.gates + 1)
    square = [_STATE(k, (width, width), jnp.float32) for k in gates]
    made = {
      "input": _INPUT(ours, (size, kind.gates * width), jnp.float32),
      "state": jnp.concatenate(square, axis=1),
      "bias": jnp.zeros(kind.gates * width, jnp.float32),
    }
    if kind is _LSTM:  # A fresh cell keeps what it has.
      made["bias"] = made["bias"].at[width : 2 * width].set(1.0)
    else:
      made["state_bias"] = jnp.zeros(width, jnp.float32)
    return made

  return draw


def _run(
  kind: _Kind,
  p: _blocks.Weights,
  x: Float[Array, "n b s d"],
  mask: Bool[Array, "n b s"],
  reverse: bool,
  dtype: Any,
) -> tuple[Float[Array, "b w"], Float[Array, "n b s w"]]:
  """The last state and all outputs of a layer in one direction.

  Padding leaves the state as it is, so that a sample that is read in reverse
  begins with its last step.
  """

  def step(state, at):
    projected, real = at
    new = kind.cell(p, projected, state, dtype)
    kept = [
      jnp.where(real[:, None], a, b) for a, b in zip(new, state, strict=True)
    ]
    return tuple(kept), kept[0]

  def block(state, at):
    values, real = at
    projected = _blocks.affine(values, p["input"], p["bias"], dtype)
    swapped = jnp.moveaxis(projected, 1, 0), real.T
    state, h = lax.scan(step, state, swapped, reverse=reverse)
    return state, jnp.moveaxis(h, 0, 1)

  x = x.astype(jnp.result_type(x, p["input"]))
  zeros = jnp.zeros((x.shape[1], p["state"].shape[0]), x.dtype)
  start = (zeros,) * kind.states
  state, h = lax.scan(block, start, (x, mask), reverse=reverse)
  return state[0], h


def _encode(encoder: Any, kind: _Kind, x: Any, train: bool) -> Array:
  """All layers and the pooling, [b w]; in both directions [b 2w]."""
  x, mask = _sequence.steps(x, encoder.width, encoder.vocab_size)
  x, mask = _blocks.split(x), _blocks.split(mask)
  key, ends = _sequence.key(encoder, train), []
  dtype = _parts.chosen(encoder.dtype)
  for i in range(encoder.layers):
    if i:
      x = _blocks.drop(x, _sequence.key_at(key, i), encoder.dropout)
    made = []
    for name in ("forward", "backward")[: 1 + encoder.bidirectional]:
      draw = _weights(kind, encoder.width, x.shape[-1])
      p = encoder.param(f"{name}_{i}", draw)
      made.append(_run(kind, p, x, mask, name == "backward", dtype))
    ends, outputs = zip(*made, strict=True)
    x = jnp.concatenate(outputs, axis=-1)
  if encoder.pooling == "mean":
    return _blocks.mean(x, mask)
  return jnp.concatenate(ends, axis=-1)


class _Recurrent(nn.Module):
  """What both kinds share; subclasses set ``cell``."""

  cell: ClassVar[_Kind]
  kinds = _sequence.KINDS
  axes = 2  # A sample is [t d], or word numbers [t].
  ragged = True
  vocab_size: int | None = None
  features: int = 64
  width: int = 64
  layers: int = 1
  bidirectional: bool = False
  pooling: str = "mean"
  dropout: float = 0.0
  dtype: str = "float32"

  def __post_init__(self):
    _sequence.check(self, {"pooling": POOLINGS})
    super().__post_init__()

  @property
  def stages(self) -> int:
    """Number of stages before the last: all up to what is pooled, [b w]."""
    return 1

  @nn.compact
  def __call__(
    self, x: Any, train: bool, first: int = 0, last: int | None = None
  ) -> Float[Array, "b _"]:
    x = _encode(self, self.cell, x, train) if first == 0 else x
    return x if last == 1 else _sequence.end(self, x, train)


class LSTM(_Recurrent):
  """Sequences to features: a long short-term memory.

  With σ the logistic function and ⊙ the product of entries, a step is
  ``i, f, o = σ(W x + U h + b)`` (each with weights of its own),
  ``g = tanh(W x + U h + b)``, ``c ← f ⊙ c + i ⊙ g`` and ``h ← o ⊙ tanh(c)``.
  (Hochreiter & Schmidhuber, *Long short-term memory*, Neural Computation 1997;
  the forget gate f is that of Gers, Schmidhuber & Cummins, *Learning to
  forget*, 2000, and its bias begins at 1.) Weights stand in the order i, f, g,
  o.

  Padding has no influence: see ``_blocks``. A sample without steps has the
  state zero.

  Attributes:
    vocab_size: number of words, padding included, if samples are word numbers
      [t]; set from the data.
    features: size ``d`` of the output.
    width: of the state, and of the embedding of words.
    layers: number of layers; each reads the outputs of the one below.
    bidirectional: whether each layer reads in both directions, with weights of
      their own, and puts both outputs side by side.
    pooling: ``mean`` of the outputs over steps, or the ``last`` state of each
      direction, that in reverse after the first step.
    dropout: probability of dropping an entry between layers and before the
      linear layer at the end.
    dtype: dtype of products, ``float32`` or ``bfloat16``; weights, states, sums
      and features are float32.
  """

  cell = _LSTM


class GRU(_Recurrent):
  """Sequences to features: gated recurrent units.

  With σ the logistic function and ⊙ the product of entries, a step is
  ``r, z = σ(W x + U h + b)`` (each with weights of its own),
  ``n = tanh(W x + b + r ⊙ (U h + c))`` and ``h ← (1 − z) ⊙ n + z ⊙ h``. (Cho
  et al., *Learning phrase representations using RNN encoder-decoder*, EMNLP
  2014; the reset gate r applies after the product with U, as in cuDNN and
  PyTorch.) Weights stand in the order r, z, n.

  Padding has no influence: see ``_blocks``. A sample without steps has the
  state zero. The attributes are those of ``LSTM``.
  """

  cell = _GRU
