"""Names and config.json of audio spectrogram transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmg_jax.errors import InputError
from dmg_jax.model.encoders._tensors import exact, vit
from dmg_jax.model.encoders._tensors.pictures import HUGGING
from dmg_jax.model.encoders._tensors.transformer import chosen

KIND = "audio-spectrogram-transformer"
_PREFIXES = ("audio_spectrogram_transformer.", "model.", "module.")
_TABLE = {
  **vit.PLAIN,
  "distillation_token": exact.Place("embeddings.distillation_token", ones=2),
}
_IGNORED = (r"classifier\..*",)
# {key of config.json: option}
_KEYS = {
  "num_mel_bins": "bins",
  "max_length": "frames",
  "patch_size": "patch",
  "frequency_stride": "frequency_stride",
  "time_stride": "time_stride",
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "heads",
  "intermediate_size": "hidden",
  "hidden_dropout_prob": "dropout",
  "attention_probs_dropout_prob": "attention_dropout",
  "layer_norm_eps": "epsilon",
  "hidden_act": "activation",
  "qkv_bias": "bias",
}


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The options that follow from a config.json of transformers.

  Raises:
    ValueError: the model belongs to another family.
  """
  kind = config.get("model_type") or config.get("architecture")
  if kind != KIND:
    raise InputError(
      f"config.json describes the model {kind!r}, which is not an AST; "
      f"supported: model_type {KIND}"
    )
  return chosen(config, _KEYS)


def channels_of(tensors: Mapping[str, np.ndarray]) -> int:
  """Input channels of the patches' kernel.

  Raises:
    ValueError: there is no such kernel.
  """
  kernel = exact.plain(tensors, HUGGING, _PREFIXES)[HUGGING]
  return kernel.shape[1] if kernel.ndim == 4 else 1


def read(
  shapes: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The module's ``params`` from tensors of transformers.

  The head of a classifier is left out: it has a LayerNorm of its own.

  Raises:
    ValueError: tensors are missing, left over, or have other shapes.
  """
  found = exact.plain(tensors, HUGGING, _PREFIXES)
  table = {k: v for k, v in _TABLE.items() if k != exact.HEAD}
  return exact.read(shapes, table, found, _IGNORED)


def write(
  module: Any, params: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Tensors and config.json for ``AutoModel``; inverts ``read``."""
  config = {key: getattr(module, option) for key, option in _KEYS.items()}
  config |= {"architectures": ["ASTModel"], "model_type": KIND}
  return exact.write(params, _TABLE), config
