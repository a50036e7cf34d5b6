"""BERT and its family, with the options of a Hugging Face config.json.

The stages are the embeddings and then each layer. Maps are [b t d] and zero at
padding, by which later stages recognise it. Code that changes a map between
stages must keep those zeros (scaling channels does).

Reference: Devlin, Chang, Lee, Toutanova, "BERT", NAACL 2019; Liu et al.,
"RoBERTa", arXiv 1907.11692; Sanh et al., "DistilBERT", arXiv 1910.01108. Code:
huggingface/transformers.

Deviations:
1. A text that is all padding has zeros as token vectors; in the reference code
   it has the result of attention over padding.
2. DistilBERT applies dropout to the output of attention, too, as BERT does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from dmg_jax.errors import InputError, unknown
from dmg_jax.model.encoders import _transformer as transformer
from dmg_jax.model.encoders._tensors import transformer as tensors_

POOLINGS = ("cls", "pooled", "mean")
_EMBEDDINGS = {
  "word_embeddings": "embeddings.word_embeddings",
  "position_embeddings": "embeddings.position_embeddings",
  "token_type_embeddings": "embeddings.token_type_embeddings",
  "embeddings_norm": "embeddings.LayerNorm",
  "pooler": "pooler.dense",
}
_BERT = tensors_.Names(
  _EMBEDDINGS,
  "encoder.layer",
  {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "hidden": "intermediate.dense",
    "output": "output.dense",
    "output_norm": "output.LayerNorm",
  },
  "word_embeddings",
)
_DISTIL = tensors_.Names(
  _EMBEDDINGS,
  "transformer.layer",
  {
    "query": "attention.q_lin",
    "key": "attention.k_lin",
    "value": "attention.v_lin",
    "attention": "attention.out_lin",
    "attention_norm": "sa_layer_norm",
    "hidden": "ffn.lin1",
    "output": "ffn.lin2",
    "output_norm": "output_layer_norm",
  },
  "word_embeddings",
)
_FAMILY = {
  "bert": ("BertModel", _BERT),
  "roberta": ("RobertaModel", _BERT),
  "xlm-roberta": ("XLMRobertaModel", _BERT),
  "camembert": ("CamembertModel", _BERT),
  "distilbert": ("DistilBertModel", _DISTIL),
}
# Families whose positions start after the id of the padding token and do not
# count padding.
_ROBERTA = ("roberta", "xlm-roberta", "camembert")
# {key of config.json: option}
_KEYS = {
  "vocab_size": "vocab_size",
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "heads",
  "intermediate_size": "hidden",
  "max_position_embeddings": "positions",
  "type_vocab_size": "types",
  "hidden_dropout_prob": "dropout",
  "attention_probs_dropout_prob": "attention_dropout",
  "layer_norm_eps": "epsilon",
  "hidden_act": "activation",
  "pad_token_id": "pad",
}
_DISTIL_KEYS = {
  "vocab_size": "vocab_size",
  "dim": "width",
  "n_layers": "depth",
  "n_heads": "heads",
  "hidden_dim": "hidden",
  "max_position_embeddings": "positions",
  "dropout": "dropout",
  "attention_dropout": "attention_dropout",
  "activation": "activation",
  "pad_token_id": "pad",
}


class Bert(nn.Module):
  """Tokens to features; the defaults are those of BERT-base.

  Attributes:
    vocab_size: number of tokens.
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      ``width``, without that layer.
    width: size of embeddings and layers.
    depth: number of layers.
    heads: number of attention heads.
    hidden: size of the hidden layer of each MLP.
    positions: rows of the position table.
    types: rows of the segment table, of which the first is used; 0 means no
      table.
    dropout: dropout rate of the embeddings and of the output of each part of a
      layer.
    attention_dropout: dropout rate of attention weights.
    epsilon: epsilon of LayerNorm.
    activation: ``gelu``, ``gelu_new``, ``relu``, ...
    pad: id of the padding token.
    pooling: ``cls`` (the first token), ``pooled`` (BERT's pooler: tanh of a
      linear layer of the first token) or ``mean`` (over all tokens but
      padding).
    model_type: as in config.json: ``bert``, ``roberta``, ``xlm-roberta``,
      ``camembert`` or ``distilbert``.
    pretrained: Hugging Face name or folder of the initial weights.
    dtype: dtype of the computation, ``float32`` or ``bfloat16``; weights and
      features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("text",)
  vocab_size: int
  features: int = 0
  width: int = 768
  depth: int = 12
  heads: int = 12
  hidden: int = 3072
  positions: int = 512
  types: int = 2
  dropout: float = 0.1
  attention_dropout: float = 0.1
  epsilon: float = 1e-12
  activation: str = "gelu"
  pad: int = 0
  pooling: str = "cls"
  model_type: str = "bert"
  pretrained: str = ""
  dtype: str = "float32"
  remat: bool = False

  @property
  def stages(self) -> int:
    """Number of stages that return maps: the embeddings and each layer."""
    return self.depth + 1

  def layers_above(self, path: tuple[str, ...]) -> int:
    """Layers from a weight to the features, see ``fine_tuning``."""
    embeddings = _EMBEDDINGS.keys() - {"pooler"}
    return transformer.layers_above(path, self.depth, embeddings)

  @nn.compact
  def __call__(
    self,
    x: Int[Array, "b t"] | Float[Array, "b t d"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    self._check()
    last = self.stages + 1 if last is None else last
    real = x != self.pad if first == 0 else (x != 0).any(axis=-1)
    if first == 0:
      x = self._embed(x, real, train)
    for i in range(max(first, 1), min(last, self.stages)):
      x = transformer.layer(self, i - 1)(x, real[:, None, :], train)
      x = jnp.where(real[..., None], x, 0)
    if last <= self.stages:
      return x
    return transformer.project(self, self._pool(x, real))

  def _check(self) -> None:
    transformer.check(self)
    for name, known in (("pooling", POOLINGS), ("model_type", _FAMILY)):
      value = getattr(self, name)
      if value not in known:
        raise unknown(name, value, known)

  def _embed(
    self, tokens: Int[Array, "b t"], real: Bool[Array, "b t"], train: bool
  ) -> Float[Array, "b t d"]:
    length = tokens.shape[1]
    start = self.pad + 1 if self.model_type in _ROBERTA else 0
    if length > self.positions - start:
      raise InputError(
        f"texts of {length} tokens, but the encoder has "
        f"{self.positions - start} positions: set the data's max_words to at "
        "most that number"
      )
    places = jnp.broadcast_to(jnp.arange(length), tokens.shape)
    if start:
      places = jnp.cumsum(real, axis=1) * real + self.pad
    x = transformer.embed(self.vocab_size, self, "word_embeddings")(tokens)
    x += transformer.embed(self.positions, self, "position_embeddings")(places)
    if self.types:
      types = transformer.embed(self.types, self, "token_type_embeddings")
      x += types(jnp.zeros_like(tokens))
    x = transformer.norm(self.epsilon, self.dtype, "embeddings_norm")(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return jnp.where(real[..., None], x, 0)

  def _pool(
    self, x: Float[Array, "b t d"], real: Bool[Array, "b t"]
  ) -> Float[Array, "b d"]:
    if self.pooling == "mean":
      count = jnp.maximum(real.sum(axis=1, keepdims=True), 1)
      return x.sum(axis=1) / count.astype(x.dtype)
    if self.pooling == "pooled":
      return jnp.tanh(
        transformer.dense(self.width, self.dtype, "pooler")(x[:, 0])
      )
    return x[:, 0]

  @classmethod
  def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that follow from a Hugging Face config.json.

    Raises:
      ValueError: the model belongs to another family.
    """
    kind = config.get("model_type", "bert")
    if kind not in _FAMILY:
      raise InputError(
        f"model_type {kind!r} does not belong to the BERT family; supported: "
        f"{', '.join(_FAMILY)}"
      )
    embedding = config.get("position_embedding_type") or "absolute"
    if embedding != "absolute":
      raise InputError(
        f"position_embedding_type {embedding!r} is not supported; only "
        "'absolute' is"
      )
    own = {"types": 0} if kind == "distilbert" else {}
    own |= {"pad": 1} if kind in _ROBERTA else {}
    own |= {"depth": 6} if kind == "distilbert" else {}
    keys = _DISTIL_KEYS if kind == "distilbert" else _KEYS
    return {"model_type": kind, **own, **tensors_.chosen(config, keys)}

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ...}`` from the tensors of a file, without ``project``.

    Names may have any prefix, such as ``bert.``; other weights are ignored. The
    word table may have up to 127 more rows than ``vocab_size``, because sizes
    are rounded up; these rows are dropped.

    Raises:
      ValueError: weights are missing or have other shapes.
    """
    example = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = tensors_.shapes_of(self, example)
    names = _FAMILY[self.model_type][1]
    words = ("word_embeddings",)
    return {"params": tensors_.read(shapes, names, tensors, words)}

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """{name: array} and config.json for ``AutoModel`` of transformers.

    ``project`` belongs to the task and is left out. Only ``pooled`` has a
    pooler; without it, load the files by
    ``AutoModel.from_pretrained(folder, add_pooling_layer=False)``.
    """
    model, names = _FAMILY[self.model_type]
    keys = _DISTIL_KEYS if self.model_type == "distilbert" else _KEYS
    config = {key: getattr(self, option) for key, option in keys.items()}
    config |= {"architectures": [model], "model_type": self.model_type}
    return tensors_.write(variables["params"], names), config
