"""Converts transformer weights from and to the layout of Hugging Face."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import numpy as np
from flax import traverse_util

from dmg_jax.errors import InputError

HEAD = "project"  # Belongs to the task, so checkpoints do not have it.
# Word tables may have this many extra rows: sizes are rounded up to 128.
_SPARE = 127
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
# Names of LayerNorm's weights in the oldest files.
_OLD = {".gamma": ".weight", ".beta": ".bias"}

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Names:
  """Names that Hugging Face gives to the modules of a model family.

  Attributes:
    outer: {module: its name}.
    layers: name that precedes the number of a layer.
    inner: {module of a block: its name within a layer}.
    anchor: module whose name reveals the prefix of the names in a file.
    prefix: prefix of all written names, except for modules in ``apart``.
    apart: modules outside the encoder itself.
  """

  outer: Mapping[str, str]
  layers: str
  inner: Mapping[str, str]
  anchor: str
  prefix: str = ""
  apart: tuple[str, ...] = ()

  def of(self, path: Path, prefix: str) -> str:
    """The name of a weight in a file whose names start with ``prefix``."""
    *modules, leaf = path
    if not modules:
      return prefix + self.outer[leaf]
    leaf = _LEAVES.get(leaf, leaf)
    if modules[0].startswith("layer_"):
      number = modules[0].removeprefix("layer_")
      module = f"{self.layers}.{number}.{self.inner[modules[1]]}"
    else:
      module = self.outer[modules[0]]
      if modules[0] in self.apart:
        prefix = prefix.removesuffix(self.prefix)
    return f"{prefix}{module}.{leaf}"


def read(
  shapes: Mapping[str, Any],
  names: Names,
  tensors: Mapping[str, np.ndarray],
  vocabulary: Sequence[str] = (),
) -> dict[str, Any]:
  """The weights of a module, without ``HEAD``, from the tensors of a file.

  Args:
    shapes: shapes of the module's ``params``.
    names: names of the weights in the file.
    tensors: {name: array} of the file.
    vocabulary: modules that are word tables; extra rows at the end of such a
      table in the file are dropped.

  Raises:
    ValueError: weights are missing or have other shapes.
  """
  tensors = {_renamed(name): array for name, array in tensors.items()}
  prefix = _prefix(names, tensors)
  found, missing, wrong = {}, [], []
  for path, its in _flat(shapes).items():
    name = names.of(path, prefix) if path[0] != HEAD else ""
    if not name:
      continue
    if name not in tensors:
      missing.append(name)
      continue
    array = _from_torch(path, np.asarray(tensors[name]))
    if path[0] in vocabulary and 0 < len(array) - its.shape[0] <= _SPARE:
      array = array[: its.shape[0]]
    if array.shape != its.shape:
      hint = _tokenizer_hint(array, its) if path[0] in vocabulary else ""
      wrong.append(f"{name} has shape {array.shape}, not {its.shape}{hint}")
    found[path] = np.asarray(array, its.dtype)
  if missing or wrong:
    raise InputError(_message(missing, wrong))
  return traverse_util.unflatten_dict(found)


def write(params: Mapping[str, Any], names: Names) -> dict[str, np.ndarray]:
  """{name: array} of all weights except those of ``HEAD``."""
  return {
    names.of(path, names.prefix): _to_torch(path, np.asarray(array))
    for path, array in _flat(params).items()
    if path[0] != HEAD
  }


def _flat(tree: Mapping[str, Any]) -> dict[Path, Any]:
  return cast(dict[Path, Any], traverse_util.flatten_dict(dict(tree)))


def shapes_of(module: nn.Module, example: jax.ShapeDtypeStruct) -> Any:
  """The shapes of a module's ``params`` for inputs like ``example``."""

  def init(key, x):
    return module.init(key, x, False)["params"]

  return jax.eval_shape(init, jax.random.key(0), example)


def chosen(
  config: Mapping[str, Any], options: Mapping[str, str]
) -> dict[str, Any]:
  """{option: value} of the keys that are set in a config.json."""
  return {
    option: config[key]
    for key, option in options.items()
    if config.get(key) is not None
  }


def _renamed(name: str) -> str:
  for old, new in _OLD.items():
    if name.endswith(old):
      return name.removesuffix(old) + new
  return name


def _prefix(names: Names, tensors: Mapping[str, Any]) -> str:
  """The prefix of the encoder's names in a file."""
  anchor = names.outer[names.anchor]
  if names.anchor != "class_embedding":
    anchor += ".weight"
  found = [
    name.removesuffix(anchor)
    for name in tensors
    if name == anchor or name.endswith(f".{anchor}")
  ]
  if not found:
    some = ", ".join(sorted(tensors)[:3])
    raise InputError(
      f"the file has no weight {anchor!r}, so it is not a checkpoint of this "
      f"encoder; its {len(tensors)} weights are {some}, ..."
    )
  return min(found, key=len)


def _from_torch(path: Path, array: np.ndarray) -> np.ndarray:
  """Linear [out in] to [in out]; convolution [out in h w] to [h w in out]."""
  if path[-1] != "kernel":
    return array
  return array.transpose((2, 3, 1, 0) if array.ndim == 4 else (1, 0))


def _to_torch(path: Path, array: np.ndarray) -> np.ndarray:
  if path[-1] == "kernel":
    array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
  return np.ascontiguousarray(array, np.float32)


def _tokenizer_hint(array: np.ndarray, its: Any) -> str:
  return (
    f": the data have {its.shape[0]} words, the file has {len(array)}; prepare "
    "the data with the checkpoint's tokenizer (option tokenizer)"
  )


def _message(missing: Sequence[str], wrong: Sequence[str]) -> str:
  parts = []
  for what, items in (("missing", missing), ("of another shape", wrong)):
    if items:
      more = f", and {len(items) - 3} more" if len(items) > 3 else ""
      parts.append(f"{what}: {'; '.join(items[:3])}{more}")
  return "the weights do not fit the encoder; " + "; ".join(parts)
