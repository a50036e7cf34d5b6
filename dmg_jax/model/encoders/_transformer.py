"""Transformer blocks that several encoders share."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from dmg_jax.errors import InputError, unknown

_tanh_gelu = functools.partial(nn.gelu, approximate=True)
# {name in a Hugging Face config.json: activation}
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_new": _tanh_gelu,
  "gelu_pytorch_tanh": _tanh_gelu,
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
  "relu": nn.relu,
  "silu": nn.silu,
}
DTYPES = ("float32", "bfloat16", "float64")
_INIT = nn.initializers.normal(0.02)


def check(encoder: nn.Module) -> None:
  """Raises ``ValueError`` for invalid options of a transformer."""
  options = vars(encoder)
  for name, known in (("activation", ACTIVATIONS), ("dtype", DTYPES)):
    if options[name] not in known:
      raise unknown(name, options[name], known)
  width, heads = options["width"], options["heads"]
  if heads < 1 or width < 1 or width % heads:
    raise InputError(f"width {width} must be a multiple of heads, got {heads}")
  for name in ("dropout", "attention_dropout"):
    if not 0 <= options.get(name, 0) < 1:
      raise InputError(f"{name} must lie in [0, 1), got {options[name]!r}")


def embed(count: int, encoder: nn.Module, name: str) -> nn.Embed:
  """An embedding table of ``count`` vectors of the encoder's width."""
  options = vars(encoder)
  return nn.Embed(
    count,
    options["width"],
    dtype=options["dtype"],
    embedding_init=_INIT,
    name=name,
  )


def dense(
  features: int, dtype: str, name: str, use_bias: bool = True
) -> nn.Dense:
  """A linear layer with the initial weights of BERT, N(0, 0.02²)."""
  return nn.Dense(features, use_bias, dtype=dtype, kernel_init=_INIT, name=name)


def norm(epsilon: float, dtype: str, name: str) -> nn.LayerNorm:
  """LayerNorm with a numerically stable variance."""
  return nn.LayerNorm(epsilon, dtype, use_fast_variance=False, name=name)


def project(
  encoder: nn.Module, x: Float[Array, "... _"]
) -> Float[Array, "... d"]:
  """Features of size ``encoder.features`` in float32 or wider."""
  options = vars(encoder)
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  if not options["features"]:
    return x
  return nn.Dense(options["features"], name="project")(x)


def layers_above(
  path: tuple[str, ...], depth: int, embeddings: Collection[str]
) -> int:
  """Layers from a weight to the features, see ``fine_tuning``.

  Args:
    path: names of the weight in its encoder.
    depth: number of layers, which are called ``layer_0``, ``layer_1``, ...
    embeddings: names of what comes before the first layer.
  """
  if path[0] in embeddings:
    return depth + 1
  name, _, number = path[0].rpartition("_")
  return depth - int(number) if name == "layer" else 0


def aligned(vectors: Array, x: Array) -> Array:
  """``vectors`` with leading axes and dtype, so that they go with ``x``."""
  shape = (1,) * (x.ndim - vectors.ndim) + vectors.shape
  return vectors.reshape(shape).astype(x.dtype)


def attention(
  layer: nn.Module,
  x: Float[Array, "... t d"],
  train: bool,
  mask: Array | None = None,
  bias: Array | None = None,
) -> Float[Array, "... t d"]:
  """Self-attention of several heads, and a linear layer.

  Args:
    layer: has the options ``heads``, ``bias``, ``attention_dropout`` and
      ``dtype`` (see ``Block``), and gets the weights ``query``, ``key``,
      ``value`` and ``attention``.
    x: tokens.
    train: with dropout.
    mask: where a query may see a key, [... heads t t] or 1 in their place.
    bias: added to the scores, likewise.
  """
  o = vars(layer)
  *before, width = x.shape
  query, key, value = (
    dense(width, o["dtype"], name, o["bias"])(x).reshape(
      *before, o["heads"], -1
    )
    for name in ("query", "key", "value")
  )
  drops = train and o["attention_dropout"] > 0
  weights = nn.dot_product_attention_weights(
    query,
    key,
    bias=bias,
    mask=mask,
    broadcast_dropout=False,
    dropout_rng=layer.make_rng("dropout") if drops else None,
    dropout_rate=o["attention_dropout"],
    deterministic=not drops,
    dtype=jnp.dtype(o["dtype"]),
    force_fp32_for_softmax=o["dtype"] == "bfloat16",
  )
  weights = weights.astype(value.dtype)
  x = jnp.einsum("...hqk,...khd->...qhd", weights, value)
  return dense(width, o["dtype"], "attention")(x.reshape(*before, width))


def remat(block: type[nn.Module], train: int) -> Any:
  """A block whose activations are computed anew for the gradient.

  Args:
    block: a module; its weights keep their names if it is given one.
    train: place of the argument ``train``, itself being the first.
  """
  return nn.remat(block, static_argnums=(train,))


class Block(nn.Module):
  """Self-attention and an MLP, each with residual connection and LayerNorm.

  Attributes:
    heads: number of attention heads.
    hidden: size of the hidden layer of the MLP.
    activation: activation of the hidden layer, one of ``ACTIVATIONS``.
    epsilon: epsilon of LayerNorm.
    norm_first: LayerNorm before each part (CLIP), else after the sum (BERT).
    dropout: dropout rate of the output of each part.
    attention_dropout: dropout rate of attention weights.
    bias: whether queries, keys and values have a bias.
    scaled: each part is multiplied by a vector of weights (LayerScale).
    gated: the MLP is SwiGLU, silu(gate(x)) hidden(x) before ``output``.
    dtype: dtype of the computation; softmax and the moments of LayerNorm are
      computed in float32 or wider.
  """

  heads: int
  hidden: int
  activation: str = "gelu"
  epsilon: float = 1e-12
  norm_first: bool = False
  dropout: float = 0.0
  attention_dropout: float = 0.0
  bias: bool = True
  scaled: bool = False
  gated: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... t d"],
    mask: Bool[Array, "... _ t"] | None,
    train: bool,
  ) -> Float[Array, "... t d"]:
    """``mask`` marks the keys that a query may see, [... t t] or [... 1 t]."""
    for name, part in (
      ("attention", functools.partial(self._attention, mask=mask)),
      ("output", self._perceptron),
    ):
      normed = norm(self.epsilon, self.dtype, f"{name}_norm")
      added = part(normed(x) if self.norm_first else x, train=train)
      added = nn.Dropout(self.dropout, deterministic=not train)(added)
      x = x + self._scale(added, f"{name}_scale")
      x = x if self.norm_first else normed(x)
    return x

  def _scale(self, x, name: str):
    if not self.scaled:
      return x
    scale = self.param(name, nn.initializers.ones, (x.shape[-1],), jnp.float32)
    return x * aligned(scale, x)

  def _attention(self, x, mask, train: bool):
    mask = None if mask is None else mask[..., None, :, :]
    return attention(self, x, train, mask)

  def _perceptron(self, x, train: bool):
    del train
    inner = dense(self.hidden, self.dtype, "hidden")(x)
    if self.gated:
      inner *= nn.silu(dense(self.hidden, self.dtype, "gate")(x))
    else:
      inner = ACTIVATIONS[self.activation](inner)
    return dense(x.shape[-1], self.dtype, "output")(inner)


_OPTIONS = {f.name for f in dataclasses.fields(Block)} - {"parent", "name"}


def layer(encoder: nn.Module, number: int, **more: Any) -> Block:
  """Layer ``number`` of an encoder.

  Args:
    encoder: options that it shares with ``Block`` by name are the layer's.
    number: from 0.
    **more: other options of the layer, which come first.
  """
  options = {k: v for k, v in vars(encoder).items() if k in _OPTIONS}
  kind = remat(Block, 3) if vars(encoder)["remat"] else Block
  return kind(**{**options, **more}, name=f"layer_{number}")
