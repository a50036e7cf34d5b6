"""Names and config.json of Swin transformers, of transformers and of timm.

timm since 0.9 has the merging of patches at the beginning of a stage
(``layers.1.downsample``), before that and in Microsoft's own files it was at
the end of the one before (``layers.0.downsample``). Both are read.
"""

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
from dmg_jax.model.encoders._tensors.exact import fused
from dmg_jax.model.encoders._tensors.pictures import HUGGING, TIMM, is_timm
from dmg_jax.model.encoders._tensors.transformer import chosen

_PREFIXES = ("swin.", "model.", "module.")
_BLOCK = "encoder.layers.#.blocks.#"
_BLOCK_TIMM = "layers.#.blocks.#"
_HUGGING = {
  "patch_embedding": "embeddings.patch_embeddings.projection",
  "patch_norm": "embeddings.norm",
  "last_norm": "layernorm",
  "project": "classifier",
  "merge_#/norm": "encoder.layers.#.downsample.norm",
  "merge_#/reduction": "encoder.layers.#.downsample.reduction",
  **{
    f"stage_#/block_#/{name}": f"{_BLOCK}.attention.self.{name}"
    for name in ("query", "key", "value")
  },
  "stage_#/block_#/position_bias": (
    f"{_BLOCK}.attention.self.relative_position_bias_table"
  ),
  "stage_#/block_#/attention": f"{_BLOCK}.attention.output.dense",
  "stage_#/block_#/attention_norm": f"{_BLOCK}.layernorm_before",
  "stage_#/block_#/output_norm": f"{_BLOCK}.layernorm_after",
  "stage_#/block_#/hidden": f"{_BLOCK}.intermediate.dense",
  "stage_#/block_#/output": f"{_BLOCK}.output.dense",
}
_TIMM = {
  "patch_embedding": "patch_embed.proj",
  "patch_norm": "patch_embed.norm",
  "last_norm": "norm",
  "merge_#/norm": "layers.#.downsample.norm",
  "merge_#/reduction": "layers.#.downsample.reduction",
  **fused(
    f"{_BLOCK_TIMM}.attn.qkv",
    "stage_#/block_#/query",
    "stage_#/block_#/key",
    "stage_#/block_#/value",
  ),
  "stage_#/block_#/position_bias": (
    f"{_BLOCK_TIMM}.attn.relative_position_bias_table"
  ),
  "stage_#/block_#/attention": f"{_BLOCK_TIMM}.attn.proj",
  "stage_#/block_#/attention_norm": f"{_BLOCK_TIMM}.norm1",
  "stage_#/block_#/output_norm": f"{_BLOCK_TIMM}.norm2",
  "stage_#/block_#/hidden": f"{_BLOCK_TIMM}.mlp.fc1",
  "stage_#/block_#/output": f"{_BLOCK_TIMM}.mlp.fc2",
}
# Heads of tasks, masked patches, and what follows from the sizes.
_IGNORED = (
  r"(classifier|decoder|head)\..*",
  r"embeddings\.mask_token",
  r".*\.relative_position_index",
  r".*\.attn_mask",
)
# {key of config.json: option}
_KEYS = {
  "embed_dim": "width",
  "depths": "depths",
  "num_heads": "heads",
  "patch_size": "patch",
  "mlp_ratio": "ratio",
  "qkv_bias": "bias",
  "hidden_dropout_prob": "dropout",
  "attention_probs_dropout_prob": "attention_dropout",
  "drop_path_rate": "drop_path",
  "layer_norm_eps": "epsilon",
  "hidden_act": "activation",
}


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """The options that follow from a config.json of transformers.

  Raises:
    ValueError: the model belongs to another family, or has a part that this
      encoder does not have.
  """
  kind = config.get("model_type") or config.get("architecture")
  if kind != "swin":
    raise InputError(
      f"config.json describes the model {kind!r}, which is not a Swin "
      "transformer; supported: model_type swin, and timm's swin_*"
    )
  if config.get("use_absolute_embeddings"):
    raise InputError(
      "config.json sets use_absolute_embeddings, which swin.Swin does not "
      "support"
    )
  made = chosen(config, _KEYS)
  if "window_size" in config:
    count = len(made.get("depths", (2, 2, 6, 2)))
    made["windows"] = (config["window_size"],) * count
  made = {k: tuple(v) if isinstance(v, list) else v for k, v in made.items()}
  if isinstance(made.get("patch"), tuple):
    if len(set(made["patch"])) != 1:
      raise InputError(f"patch must be one number, got {made['patch']!r}")
    made["patch"] = made["patch"][0]
  return made


def options_of_folder(folder: Path) -> dict[str, Any]:
  """The options that follow from a folder; with timm's names from its shapes.

  Raises:
    ValueError: as ``options_of``.
  """
  shapes = pretrained.read_shapes(folder)
  timm = is_timm(shapes)
  if not timm or (folder / pretrained.CONFIG).exists():
    config = pretrained.read_config(folder)
  else:
    config = {}
  name = str(config.get("architecture", "swin_"))
  if "model_type" in config or not timm or not name.startswith("swin_"):
    made = options_of(config)
  else:
    made = _of_timm(config, exact.plain_shapes(shapes, TIMM, _PREFIXES))
  return {**made, **pretrained.read_normalisation(folder)}


def _of_timm(
  config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Any]:
  width, patch = pictures.patches_of(shapes)
  pattern = r"layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_bias_table"
  tables = {
    (int(found[1]), int(found[2])): shape
    for name, shape in shapes.items()
    if (found := re.fullmatch(pattern, name))
  }
  stages = range(1 + max((stage for stage, _ in tables), default=-1))
  first = [tables.get((stage, 0), (1, 1)) for stage in stages]
  hidden = shapes.get("layers.0.blocks.0.mlp.fc1.weight", (4 * width,))[0]
  made: dict[str, Any] = {
    "width": width,
    "patch": patch,
    "depths": tuple(sum(s == stage for s, _ in tables) for stage in stages),
    "heads": tuple(shape[1] for shape in first),
    "windows": tuple((math.isqrt(shape[0]) + 1) // 2 for shape in first),
    "ratio": hidden / width,
    "bias": "layers.0.blocks.0.attn.qkv.bias" in shapes,
  }
  return made | pictures.normalisation_of(config)


def channels_of(tensors: Mapping[str, np.ndarray]) -> int:
  """Input channels of the patches' kernel.

  Raises:
    ValueError: there is no such kernel.
  """
  return pictures.channels_of(tensors, _PREFIXES)


def read(
  module: Any, shapes: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, Any]:
  """The module's ``params`` from tensors of transformers or timm.

  Raises:
    ValueError: tensors are missing, left over, or have other shapes.
  """
  timm = is_timm(tensors)
  found = exact.plain(tensors, TIMM if timm else HUGGING, _PREFIXES)
  # The first stage has a merging only if it stands at its end.
  late = not timm or any(n.startswith("layers.0.downsample.") for n in found)
  table: dict[str, Any] = dict(_TIMM if timm else _HUGGING)
  if timm:
    table["project"] = "head.fc" if "head.fc.weight" in found else "head"
  by_stage = _staged(shapes, module.depths, late)
  made = exact.read(by_stage, table, found, _IGNORED)
  return _flattened(made, module.depths, late)


def write(
  module: Any, params: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Tensors and config.json for ``AutoModel`` of transformers.

  With timm's names if windows differ, which transformers cannot represent.
  """
  if len(set(module.windows)) > 1:
    tensors = exact.write(_staged(params, module.depths, False), _TIMM)
    known = {"mean": list(module.mean), "std": list(module.std)}
    return tensors, {"architecture": "swin_", "pretrained_cfg": known}
  tensors = exact.write(_staged(params, module.depths, True), _HUGGING)
  config = {key: getattr(module, option) for key, option in _KEYS.items()}
  config = {
    k: list(v) if isinstance(v, tuple) else v for k, v in config.items()
  }
  return tensors, {
    **config,
    "window_size": module.windows[0],
    "num_channels": tensors[HUGGING].shape[1],
    "architectures": ["SwinModel"],
    "model_type": "swin",
  }


def _staged(
  params: Mapping[str, Any], depths: tuple[int, ...], late: bool
) -> dict[str, Any]:
  """Layers by stage and number within it; mergings by the file's stage."""
  made: dict[str, Any] = {}
  for name, value in params.items():
    kind, _, number = name.partition("_")
    if kind == "layer":
      stage, block = _place(int(number), depths)
      made.setdefault(f"stage_{stage}", {})[f"block_{block}"] = value
    elif kind == "merge":
      made[f"merge_{int(number) - late}"] = value
    else:
      made[name] = value
  return made


def _flattened(
  params: Mapping[str, Any], depths: tuple[int, ...], late: bool
) -> dict[str, Any]:
  """Inverts ``_staged``."""
  made: dict[str, Any] = {}
  for name, value in params.items():
    kind, _, number = name.partition("_")
    if kind == "stage":
      start = sum(depths[: int(number)])
      for block, inner in value.items():
        made[f"layer_{start + int(block.removeprefix('block_'))}"] = inner
    elif kind == "merge":
      made[f"merge_{int(number) + late}"] = value
    else:
      made[name] = value
  return made


def _place(number: int, depths: tuple[int, ...]) -> tuple[int, int]:
  for stage, depth in enumerate(depths):
    if number < depth:
      return stage, number
    number -= depth
  raise AssertionError(number)
