"""Names and config.json of wav2vec 2.0 and HuBERT, as transformers has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmg_jax.errors import InputError
from dmg_jax.model.encoders._tensors import exact
from dmg_jax.model.encoders._tensors.exact import Place
from dmg_jax.model.encoders._tensors.transformer import chosen

# {model_type: class of transformers}
FAMILY = {"wav2vec2": "Wav2Vec2Model", "hubert": "HubertModel"}
ANCHOR = "feature_projection.projection.weight"
_PREFIXES = ("wav2vec2.", "hubert.", "model.", "module.")
_CONV = "encoder.pos_conv_embed.conv"
_LAYER = "encoder.layers.#"
_TABLE = {
  "conv_#": "feature_extractor.conv_layers.#.conv",
  "conv_#_norm": "feature_extractor.conv_layers.#.layer_norm",
  "projection_norm": "feature_projection.layer_norm",
  "feature_projection": "feature_projection.projection",
  "position_conv/bias": f"{_CONV}.bias",
  "norm": "encoder.layer_norm",
  "layer_#/query": f"{_LAYER}.attention.q_proj",
  "layer_#/key": f"{_LAYER}.attention.k_proj",
  "layer_#/value": f"{_LAYER}.attention.v_proj",
  "layer_#/attention": f"{_LAYER}.attention.out_proj",
  "layer_#/attention_norm": f"{_LAYER}.layer_norm",
  "layer_#/hidden": f"{_LAYER}.feed_forward.intermediate_dense",
  "layer_#/output": f"{_LAYER}.feed_forward.output_dense",
  "layer_#/output_norm": f"{_LAYER}.final_layer_norm",
}
# Of the weight-normed convolution, in new files and in old ones.
_NEW = {
  "position_conv/magnitude": Place(
    f"{_CONV}.parametrizations.weight.original0", ones=2
  ),
  "position_conv/direction": f"{_CONV}.parametrizations.weight.original1",
}
_OLD = {
  "position_conv/magnitude": Place(f"{_CONV}.weight_g", ones=2),
  "position_conv/direction": f"{_CONV}.weight_v",
}
# What files have beside the encoder: masked frames, heads of tasks.
_IGNORED = (
  r"masked_spec_embed",
  r"layer_weights",
  r"(lm_head|projector|classifier|quantizer|project_q|project_hid)\..*",
  r"(tdnn|feature_extractor_head|objective)\..*",
)
# {key of config.json: option}
_KEYS = {
  "conv_dim": "widths",
  "conv_kernel": "kernels",
  "conv_stride": "strides",
  "conv_bias": "conv_bias",
  "feat_extract_norm": "conv_norm",
  "feat_extract_activation": "conv_activation",
  "feat_proj_layer_norm": "feature_norm",
  "num_conv_pos_embeddings": "position_kernel",
  "num_conv_pos_embedding_groups": "position_groups",
  "do_stable_layer_norm": "norm_first",
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "heads",
  "intermediate_size": "hidden",
  "hidden_dropout": "dropout",
  "attention_dropout": "attention_dropout",
  "layer_norm_eps": "epsilon",
  "hidden_act": "activation",
}
# Options of transformers that this encoder does not have.
_REFUSED = ("add_adapter", "adapter_attn_dim", "conv_pos_batch_norm")


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The options that follow from a config.json of transformers.

  Raises:
    ValueError: the model belongs to another family, or has a part that this
      encoder does not have.
  """
  kind = config.get("model_type")
  if kind not in FAMILY:
    name = kind or config.get("architecture")
    raise InputError(
      f"config.json describes the model {name!r}, which is neither wav2vec 2.0 "
      f"nor HuBERT; supported: model_type {', '.join(FAMILY)}"
    )
  for key in _REFUSED:
    if config.get(key):
      raise InputError(
        f"config.json sets {key}, which wav2vec2.Wav2Vec2 does not support"
      )
  made = {"model_type": kind, **chosen(config, _KEYS)}
  return {k: tuple(v) if isinstance(v, list) else v for k, v in made.items()}


def read(
  shapes: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The module's ``params`` from tensors of transformers.

  Raises:
    ValueError: tensors are missing, left over, or have other shapes.
  """
  found = exact.plain(tensors, ANCHOR, _PREFIXES)
  old = f"{_CONV}.weight_g" in found or f"{_CONV}.weight_v" in found
  table = {**_TABLE, **(_OLD if old else _NEW)}
  return exact.read(shapes, table, found, _IGNORED)


def write(
  module: Any, params: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Tensors and config.json for ``AutoModel``; inverts ``read``."""
  config = {key: getattr(module, option) for key, option in _KEYS.items()}
  config = {
    k: list(v) if isinstance(v, tuple) else v for k, v in config.items()
  }
  config |= {
    "num_feat_extract_layers": len(module.widths),
    "architectures": [FAMILY[module.model_type]],
    "model_type": module.model_type,
    # Training draws no masks, for which files would need one tensor more.
    "mask_time_prob": 0.0,
    "mask_feature_prob": 0.0,
  }
  return exact.write(params, {**_TABLE, **_NEW}), config
