"""Layers, weight names and config.json shared by the two CLIP towers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from dmg_jax.errors import InputError
from dmg_jax.model.encoders import _transformer as transformer
from dmg_jax.model.encoders._tensors.transformer import Names, chosen

_LAYERS = "encoder.layers"
_INNER = {
  "query": "self_attn.q_proj",
  "key": "self_attn.k_proj",
  "value": "self_attn.v_proj",
  "attention": "self_attn.out_proj",
  "attention_norm": "layer_norm1",
  "hidden": "mlp.fc1",
  "output": "mlp.fc2",
  "output_norm": "layer_norm2",
}
VISION = Names(
  {
    "class_embedding": "embeddings.class_embedding",
    "patch_embedding": "embeddings.patch_embedding",
    "position_embedding": "embeddings.position_embedding",
    "first_norm": "pre_layrnorm",
    "last_norm": "post_layernorm",
    "projection": "visual_projection",
  },
  _LAYERS,
  _INNER,
  "class_embedding",
  "vision_model.",
  ("projection",),
)
TEXT = Names(
  {
    "token_embedding": "embeddings.token_embedding",
    "position_embedding": "embeddings.position_embedding",
    "last_norm": "final_layer_norm",
    "projection": "text_projection",
  },
  _LAYERS,
  _INNER,
  "token_embedding",
  "text_model.",
  ("projection",),
)
# What comes before the first layer.
EMBEDDINGS = (
  "class_embedding", "patch_embedding", "position_embedding", "first_norm",
  "token_embedding",
)  # fmt: skip
# {key of config.json: option}
_KEYS = {
  "projection_dim": "projection",
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "heads",
  "intermediate_size": "hidden",
  "attention_dropout": "attention_dropout",
  "layer_norm_eps": "epsilon",
  "hidden_act": "activation",
}
VISION_KEYS = {
  **_KEYS,
  "image_size": "image_size",
  "patch_size": "patch",
  "num_channels": "channels",
}
TEXT_KEYS = {
  **_KEYS,
  "vocab_size": "vocab_size",
  "max_position_embeddings": "positions",
  "eos_token_id": "eos",
}


def features(tower: nn.Module, x: Float[Array, "... d"]) -> jax.Array:
  """Features of ``x``: LayerNorm, CLIP's projection, and ``project``."""
  o = vars(tower)
  x = transformer.norm(o["epsilon"], o["dtype"], "last_norm")(x)
  if o["projection"]:
    x = transformer.dense(o["projection"], o["dtype"], "projection", False)(x)
  return transformer.project(tower, x)


def options(
  config: Mapping[str, Any], tower: str, keys: Mapping[str, str]
) -> dict[str, Any]:
  """The options of a tower, ``vision`` or ``text``, from a config.json.

  Raises:
    ValueError: the model belongs to another family, or its pictures or patches
      are not square.
  """
  kind, own = config.get("model_type", ""), f"clip_{tower}_model"
  if kind not in ("clip", own):
    raise InputError(
      f"model_type {kind!r} is not a CLIP model with a {tower} tower; "
      f"supported: 'clip', {own!r}"
    )
  inner = config.get(f"{tower}_config") or {} if kind == "clip" else config
  found = chosen(inner, keys)
  if kind == "clip" and config.get("projection_dim"):
    found["projection"] = config["projection_dim"]
  # The config of a tower without projection still gives a projection size.
  if config.get("architectures") == [f"CLIP{tower.title()}Model"]:
    found["projection"] = 0
  for option, value in found.items():
    if isinstance(value, list | tuple):
      if len(set(value)) != 1:
        raise InputError(f"{option} must be one number, got {value!r}")
      found[option] = value[0]
  return found


def config(tower: nn.Module, name: str, keys: Mapping[str, str]) -> dict:
  """The contents of config.json for a tower, ``vision`` or ``text``."""
  o = vars(tower)
  found = {key: o[option] for key, option in keys.items()}
  model = f"CLIP{name.title()}Model"
  if o["projection"]:
    model += "WithProjection"
  else:
    del found["projection_dim"]
  found |= {"architectures": [model], "model_type": f"clip_{name}_model"}
  return found
