"""Names and config.json of vision transformers, of transformers and of timm."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmg_jax.errors import InputError
from dmg_jax.model.encoders import pretrained
from dmg_jax.model.encoders._tensors import exact, pictures
from dmg_jax.model.encoders._tensors.exact import Place, fused
from dmg_jax.model.encoders._tensors.pictures import HUGGING, TIMM, is_timm
from dmg_jax.model.encoders._tensors.transformer import chosen
from dmg_jax.model.encoders.resnet import IMAGENET_MEAN, IMAGENET_STD

# {model_type: class of transformers}
FAMILY = {
  "vit": "ViTModel",
  "dinov2": "Dinov2Model",
  "dinov2_with_registers": "Dinov2WithRegistersModel",
}
_PREFIXES = ("vit.", "dinov2.", "dinov2_with_registers.", "model.", "module.")
_ATTENTION = {
  f"layer_#/{name}": f"encoder.layer.#.attention.attention.{name}"
  for name in ("query", "key", "value")
} | {"layer_#/attention": "encoder.layer.#.attention.output.dense"}
_HUGGING = {
  "class_token": Place("embeddings.cls_token", ones=2),
  "registers": Place("embeddings.register_tokens", ones=1),
  "position_embedding": Place("embeddings.position_embeddings", ones=1),
  "patch_embedding": "embeddings.patch_embeddings.projection",
  "last_norm": "layernorm",
  "pooler": "pooler.dense",
  "project": "classifier",
  **_ATTENTION,
}
PLAIN = {
  **_HUGGING,
  "layer_#/attention_norm": "encoder.layer.#.layernorm_before",
  "layer_#/output_norm": "encoder.layer.#.layernorm_after",
  "layer_#/hidden": "encoder.layer.#.intermediate.dense",
  "layer_#/output": "encoder.layer.#.output.dense",
}
_DINO = {
  **_HUGGING,
  "layer_#/attention_norm": "encoder.layer.#.norm1",
  "layer_#/output_norm": "encoder.layer.#.norm2",
  "layer_#/attention_scale": "encoder.layer.#.layer_scale1.lambda1",
  "layer_#/output_scale": "encoder.layer.#.layer_scale2.lambda1",
  "layer_#/hidden": "encoder.layer.#.mlp.fc1",
  "layer_#/output": "encoder.layer.#.mlp.fc2",
}
_DINO_GATED = {
  **_DINO,
  **fused("encoder.layer.#.mlp.weights_in", "layer_#/gate", "layer_#/hidden"),
  "layer_#/output": "encoder.layer.#.mlp.weights_out",
}
_TIMM = {
  "class_token": Place("cls_token", ones=2),
  "registers": Place("reg_token", ones=1),
  "position_embedding": Place("pos_embed", ones=1),
  "patch_embedding": "patch_embed.proj",
  "last_norm": "norm",
  "project": "head",
  **fused("blocks.#.attn.qkv", "layer_#/query", "layer_#/key", "layer_#/value"),
  "layer_#/attention": "blocks.#.attn.proj",
  "layer_#/attention_norm": "blocks.#.norm1",
  "layer_#/output_norm": "blocks.#.norm2",
  "layer_#/attention_scale": "blocks.#.ls1.gamma",
  "layer_#/output_scale": "blocks.#.ls2.gamma",
  "layer_#/hidden": "blocks.#.mlp.fc1",
  "layer_#/output": "blocks.#.mlp.fc2",
}
_TIMM_GATED = {
  **_TIMM,
  **fused("blocks.#.mlp.fc1", "layer_#/gate", "layer_#/hidden"),
}
# What files may have beside the encoder: heads of tasks, masked patches.
_IGNORED = (
  r"embeddings\.mask_token",
  r"mask_token",
  r"pooler\.dense\.(weight|bias)",
  r"(classifier|decoder|head)\..*",
)
# {key of config.json: option}
_KEYS = {
  "hidden_size": "width",
  "num_hidden_layers": "depth",
  "num_attention_heads": "heads",
  "intermediate_size": "hidden",
  "image_size": "image_size",
  "patch_size": "patch",
  "hidden_dropout_prob": "dropout",
  "attention_probs_dropout_prob": "attention_dropout",
  "layer_norm_eps": "epsilon",
  "hidden_act": "activation",
  "qkv_bias": "bias",
}
# Widths of timm's models whose heads are not 64 wide.
_HEADS = {1280: 16, 1408: 16, 1664: 16}


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The options that follow from a config.json of transformers.

  Raises:
    ValueError: the model belongs to another family, or its pictures or patches
      are not square.
  """
  kind = config.get("model_type") or config.get("architecture")
  if kind not in FAMILY:
    raise InputError(
      f"config.json describes the model {kind!r}, which is not a ViT; "
      f"supported: model_type {', '.join(FAMILY)}, and timm's vit_* and deit_*"
    )
  made = {"model_type": kind, **chosen(config, _KEYS)}
  if kind == "vit":
    made.setdefault("epsilon", 1e-12)
  else:
    gated = bool(config.get("use_swiglu_ffn", False))
    ratio = config.get("mlp_ratio", 4)
    hidden = _hidden(made.get("width", 768), ratio, gated)
    made |= {"hidden": hidden, "gated": gated, "scaled": True}
    made |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    if kind == "dinov2_with_registers":
      made["registers"] = config.get("num_register_tokens", 4)
      made["antialias"] = True
  for option, value in made.items():
    if isinstance(value, list) and len(set(value)) != 1:
      raise InputError(f"{option} must be one number, got {value!r}")
    made[option] = value[0] if isinstance(value, list) else value
  return made


def _hidden(width: int, ratio: float, gated: bool) -> int:
  """DINOv2's hidden layer: with SwiGLU ⅔ as many, a multiple of 8."""
  hidden = int(width * ratio)
  return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def _ratio(module: Any) -> int:
  """DINOv2's ``mlp_ratio``, which must be whole; 0 if it is not."""
  for ratio in range(1, 65):
    if _hidden(module.width, ratio, module.gated) == module.hidden:
      return ratio
  return 0


def options_of_folder(folder: Path) -> dict[str, Any]:
  """The options that follow from a folder; with timm's names from its shapes.

  Raises:
    ValueError: as ``options_of``, or the number of heads is not known.
  """
  shapes = pretrained.read_shapes(folder)
  here = (folder / pretrained.CONFIG).exists()
  timm = is_timm(shapes)
  if not here and not timm:
    pretrained.read_config(folder)  # Says what is missing.
  config = pretrained.read_config(folder) if here else {}
  if "model_type" in config or not timm:
    made = options_of(config)
  else:
    name = str(config.get("architecture", "vit"))
    if not re.match(r"(vit|deit3?)(_|$)", name):
      options_of(config)
    made = _of_timm(config, exact.plain_shapes(shapes, TIMM, _PREFIXES))
  return {**made, **pretrained.read_normalisation(folder)}


def _of_timm(
  config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
  width, patch = pictures.patches_of(shapes)
  blocks = {int(n.split(".")[1]) for n in shapes if n.startswith("blocks.")}
  first = shapes.get("blocks.0.mlp.fc1.weight", (4 * width,))[0]
  hidden = shapes.get("blocks.0.mlp.fc2.weight", (width, first))[-1]
  scaled = "blocks.0.ls1.gamma" in shapes
  registers = shapes.get("reg_token", (1, 0))[1]
  kind = "dinov2_with_registers" if registers else "dinov2"
  made: dict[str, Any] = {
    "model_type": kind if scaled else "vit",
    "width": width,
    "patch": patch,
    "depth": len(blocks),
    "hidden": hidden,
    "gated": first == 2 * hidden,
    "bias": "blocks.0.attn.qkv.bias" in shapes,
    "scaled": scaled,
    "registers": registers,
    "epsilon": 1e-6,
    "antialias": True,
  }
  heads = config.get("model_args", {}).get("num_heads", _HEADS.get(width))
  made |= {"heads": heads} if heads else {}
  made["image_size"] = _side(shapes) * patch
  if "fc_norm.weight" in shapes:
    made |= {"pooling": "mean", "pool_first": True}
  return made | pictures.normalisation_of(config)


def _side(shapes: Mapping[str, tuple[int, ...]]) -> int:
  """Number of patches along a side of the position table."""
  places = shapes.get("pos_embed", (1, 1))[1]
  side = math.isqrt(places)
  if side**2 not in (places, places - 1):
    raise InputError(
      f"pos_embed has {places} positions, but patches of square pictures and "
      "a class token have a square number, or one more"
    )
  return side


def table_of(module: Any, timm: bool = False) -> exact.Table:
  """Where the weights of a ``ViT`` stand."""
  if timm:
    table = dict(_TIMM_GATED if module.gated else _TIMM)
    return {**table, "last_norm": "fc_norm"} if module.pool_first else table
  if module.model_type == "vit":
    return PLAIN
  return _DINO_GATED if module.gated else _DINO


def read(
  module: Any, shapes: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The module's ``params`` from tensors of transformers or timm.

  Raises:
    ValueError: tensors are missing, left over, or have other shapes.
  """
  timm = is_timm(tensors)
  found = exact.plain(tensors, TIMM if timm else HUGGING, _PREFIXES)
  if timm:
    found = _with_class_position(found)
  ignored = _IGNORED
  if not timm and module.pooling == "pooled":
    ignored = tuple(p for p in _IGNORED if not p.startswith("pooler"))
  table = table_of(module, timm)
  return exact.read(shapes, table, found, ignored)


def channels_of(tensors: Mapping[str, np.ndarray]) -> int:
  """Input channels of the patches' kernel.

  Raises:
    ValueError: there is no such kernel.
  """
  return pictures.channels_of(tensors, _PREFIXES)


def _with_class_position(
  tensors: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
  """Positions of patches alone get a zero for the class token's."""
  table = tensors.get("pos_embed")
  if table is None or table.ndim != 3:
    return dict(tensors)
  if math.isqrt(table.shape[1]) ** 2 != table.shape[1]:
    return dict(tensors)
  table = np.pad(table, ((0, 0), (1, 0), (0, 0)))
  return {**tensors, "pos_embed": table}


def write(
  module: Any, params: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Tensors and config.json for transformers, or with timm's names.

  The latter for networks that no class of transformers can represent.
  """
  timm = not _in_transformers(module)
  tensors = exact.write(params, table_of(module, timm))
  if timm:
    arguments = {"num_heads": module.head_count}
    config = {"architecture": "vit", "model_args": arguments}
    known = {"mean": list(module.mean), "std": list(module.std)}
    return tensors, {**config, "pretrained_cfg": known}
  return tensors, config_of(module, tensors[HUGGING].shape[1])


def _in_transformers(module: Any) -> bool:
  if module.model_type == "vit":
    odd = module.scaled or module.gated or module.registers
    return not odd and not module.pool_first
  plain = module.model_type == "dinov2"
  counts = plain == (module.registers == 0)
  usual = counts and _ratio(module) and not module.pool_first
  return bool(module.scaled and usual)


def config_of(module: Any, channels: int) -> dict[str, Any]:
  """The contents of config.json for ``AutoModel`` of transformers."""
  config = {key: getattr(module, option) for key, option in _KEYS.items()}
  config["num_attention_heads"] = module.head_count
  config["num_channels"] = channels
  if module.model_type != "vit":
    del config["intermediate_size"]
    config |= {
      "mlp_ratio": _ratio(module),
      "use_swiglu_ffn": module.gated,
      "use_mask_token": False,
    }
  if module.model_type == "dinov2_with_registers":
    config["num_register_tokens"] = module.registers
  model = FAMILY[module.model_type]
  return config | {"architectures": [model], "model_type": module.model_type}
