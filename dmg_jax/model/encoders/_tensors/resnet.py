"""Converts ResNet's weights from and to timm, torchvision and transformers.

``layer1_0/conv1/kernel`` becomes ``layer1.0.conv1.weight`` with axes
[out in h w]. BatchNorm's ``scale, bias, mean, var`` become ``weight, bias,
running_mean, running_var``. The output layer ``project`` becomes ``fc``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dmg_jax.errors import InputError

PREFIXES = ("", "resnet.", "module.", "model.", "backbone.")
OWN = "dmg_jax"  # Key of options that no other library has.

_LEAVES = {
  "kernel": "weight",
  "scale": "weight",
  "bias": "bias",
  "mean": "running_mean",
  "var": "running_var",
}
# Substitutions from the names of transformers, applied in this order.
_RENAMED = (
  (r"^embedder\.embedder\.convolution\.", "conv1."),
  (r"^embedder\.embedder\.normalization\.", "bn1."),
  (
    r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.",
    lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.0.",
  ),
  (
    r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.",
    lambda m: f"layer{int(m[1]) + 1}.{m[2]}.downsample.1.",
  ),
  (
    r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.",
    lambda m: f"layer{int(m[1]) + 1}.{m[2]}.conv{int(m[3]) + 1}.",
  ),
  (
    r"^encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.",
    lambda m: f"layer{int(m[1]) + 1}.{m[2]}.bn{int(m[3]) + 1}.",
  ),
  (r"^classifier\.1\.", "fc."),
)


def options_of(
  config: Mapping[str, Any], layouts: Mapping[int, tuple[int, ...]]
) -> dict[str, Any]:
  """Options of ``ResNet`` from a config of timm, of transformers or our own.

  Raises:
    ValueError: the config describes another architecture.
  """
  if OWN in config:
    return dict(config[OWN])
  if config.get("model_type") == "resnet":
    return _of_transformers(config, layouts)
  name = str(config.get("architecture", config.get("model_type")))
  found = re.fullmatch(r"(?:tv_)?resnet(\d+)", name)
  if not found or int(found[1]) not in layouts:
    known = ", ".join(f"resnet{depth}" for depth in layouts)
    raise InputError(
      f"config.json describes the architecture {name!r}, which is not a "
      f"ResNet; choose weights of {known}"
    )
  made = {"depth": int(found[1]), "norm": "batch"}
  pictures = config.get("pretrained_cfg", {})
  for key in ("mean", "std"):
    if key in pictures:
      made[key] = tuple(pictures[key])
  return made


def _of_transformers(config, layouts) -> dict[str, Any]:
  for key in ("downsample_in_first_stage", "downsample_in_bottleneck"):
    if config.get(key, False):
      raise InputError(f"config.json sets {key}, which ResNet does not support")
  if config.get("hidden_act", "relu") != "relu":
    raise InputError(
      f"config.json has the activation {config['hidden_act']!r}; ResNet "
      "supports only 'relu'"
    )
  deep = config.get("layer_type", "bottleneck") == "bottleneck"
  blocks = tuple(config.get("depths", (3, 4, 6, 3)))
  widths = tuple(config.get("hidden_sizes", (256, 512, 1024, 2048)))
  width = config.get("embedding_size", 64)
  made = {"norm": "batch", "width": width}
  usual = tuple(width * (4 if deep else 1) * 2**i for i in range(len(blocks)))
  for depth, layout in layouts.items():
    if (layout, usual, depth >= 50) == (blocks, widths, deep):
      return {**made, "depth": depth}
  return {
    **made,
    "depth": 50 if deep else 18,
    "blocks": blocks,
    "widths": widths,
  }


def read(module: Any, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Variables of ``module`` with the values of ``tensors``.

  ``fc`` becomes ``project`` if its size is ``features``; otherwise it is left
  out. The first convolution keeps the number of input channels of the file.

  Raises:
    ValueError: tensors are missing, unexpected, or have other shapes.
  """
  named = _plain(tensors)
  if "conv1.weight" not in named:
    raise InputError(
      "the weights have no tensor 'conv1.weight': they do not belong to a "
      "ResNet"
    )
  left = {n for n in named if not n.endswith("num_batches_tracked")}
  left -= {"fc.weight", "fc.bias"}
  channels = named["conv1.weight"].shape[1]
  expected: dict[Any, Any] = flatten_dict(_shapes(module, channels))
  missing, found = [], {}
  for path, like in expected.items():
    name = _name(path[1:])
    left.discard(name)
    if path[1] == "project" and not _same_size(named, module.features):
      continue
    if name in named:
      found[path] = _to_linen(name, named[name], like.shape)
    else:
      missing.append(name)
  if missing or left:
    what, names = ("lack", missing) if missing else ("also hold", sorted(left))
    raise InputError(
      f"the weights {what} {len(names)} tensors, starting with {names[0]!r}: "
      f"they do not belong to a ResNet with depth={module.depth} and "
      f"norm={module.norm!r}"
    )
  return unflatten_dict(found)


def write(
  module: Any, variables: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Tensors and config in the layout of timm; inverts ``read``."""
  tensors: dict[str, np.ndarray] = {}
  for path, value in flatten_dict(dict(variables)).items():
    name, array = _name(path[1:]), np.asarray(value, np.float32)
    if path[-1] == "kernel":
      array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    tensors[name] = np.asarray(array, order="C")
    if path[-1] == "mean":
      count = name.replace("running_mean", "num_batches_tracked")
      tensors[count] = np.zeros((), np.int64)
  channels = tensors["conv1.weight"].shape[1]
  return tensors, _config(module, channels)


def _config(module: Any, channels: int) -> dict[str, Any]:
  names = ("depth", "features", "norm", "width", "blocks", "widths")
  own = {n: getattr(module, n) for n in (*names, "mean", "std")}
  own = {n: list(v) if isinstance(v, tuple) else v for n, v in own.items()}
  config = {
    "architecture": f"resnet{module.depth}",
    "num_classes": module.features,
    "num_features": module.channels[-1],
    "pretrained_cfg": {
      "input_size": [channels, 224, 224],
      "mean": list(module.mean),
      "std": list(module.std),
      "num_classes": module.features,
      "first_conv": "conv1",
      "classifier": "fc",
    },
    "model_args": {"in_chans": channels},
    OWN: own,
  }
  plain = module.norm == "batch" and module.width == 64
  if not plain or module.blocks or module.widths:
    del config["architecture"]  # timm has no name for such a network.
  return config


def _plain(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The tensors under the names of torchvision, without prefix."""
  anchors = ("conv1.weight", "embedder.embedder.convolution.weight")
  for prefix in PREFIXES:
    if any(prefix + anchor in tensors for anchor in anchors):
      named = {}
      for name, tensor in tensors.items():
        if not name.startswith((prefix, "classifier.1.")):
          continue
        name = name.removeprefix(prefix)
        for pattern, plain in _RENAMED:
          name = re.sub(pattern, plain, name)
        named[name] = tensor
      return named
  return {}


def _shapes(module: nn.Module, channels: int) -> Any:
  x = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(lambda k, v: module.init(k, v, False), key, x)


def _name(path: tuple[str, ...]) -> str:
  *modules, leaf = path
  parts = [re.sub(r"_(\d+)$", r".\1", part) for part in modules]
  parts = ["fc" if part == "project" else part for part in parts]
  return ".".join([*parts, _LEAVES[leaf]])


def _same_size(named: Mapping[str, np.ndarray], features: int) -> bool:
  return "fc.weight" in named and len(named["fc.weight"]) == features


def _to_linen(name: str, tensor: np.ndarray, shape: tuple[int, ...]):
  made = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
  if made.shape != shape:
    raise InputError(
      f"tensor {name!r} has shape {tensor.shape}, hence {made.shape} here, but "
      f"the encoder needs {shape}: check depth, width, blocks and widths"
    )
  return made
