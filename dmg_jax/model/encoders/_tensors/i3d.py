"""Converts I3D's weights from and to the names of pytorch-i3d.

``Mixed_3b.b1a.conv3d.weight`` becomes ``params["Mixed_3b"]["b1a"]["conv3d"]
["kernel"]``, and running statistics become ``batch_stats``. A convolution with
axes [o i t h w] in torch has axes [t h w i o] here. The linear output layer is
called ``project``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax.errors import InputError

# {(collection, leaf) here: leaf in pytorch-i3d}
_LEAVES = {
  ("params", "kernel"): "weight",
  ("params", "scale"): "weight",
  ("params", "bias"): "bias",
  ("batch_stats", "mean"): "running_mean",
  ("batch_stats", "var"): "running_var",
}
OWN = "dmg_jax"  # Key of options that no other library has.
_FIRST = "Conv3d_1a_7x7.conv3d.weight"
_IGNORED = ("logits.", ".num_batches_tracked")  # A prefix and a suffix.


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """Options of ``I3D`` from our config.json; pytorch-i3d has none.

  Raises:
    ValueError: the config describes another architecture.
  """
  kind = config.get("model_type", "i3d")
  if kind != "i3d":
    raise InputError(
      f"config.json describes the architecture {kind!r}; I3D reads 'i3d'"
    )
  return dict(config.get(OWN, {}))


def read(module, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """{"params": ..., "batch_stats": ...} from the tensors of pytorch-i3d.

  The classifier ``logits`` and batch counters are left out. ``project`` is
  absent from the result if the tensors have none. The first convolution keeps
  the number of input channels of the tensors.

  Raises:
    ValueError: a tensor is missing, unexpected, or has another shape.
  """
  given = {k: np.asarray(v) for k, v in tensors.items() if not _ignored(k)}
  if _FIRST not in given or given[_FIRST].ndim != 5:
    raise InputError(
      f"these are not the weights of an I3D: there is no tensor {_FIRST!r} "
      "with five axes. Tensors need the names of pytorch-i3d; the first one "
      f"here is {next(iter(given), 'none')!r}"
    )
  want = _shapes(module, given[_FIRST].shape[1])
  own = {k: v for k, v in want.items() if not k[1].startswith("project")}
  if any(k.startswith("project.") for k in given):
    own = want
  _compare({name: shape for (_, name), shape in own.items()}, given)
  found = {path: _here(given[name]) for path, name in own}
  return flax.traverse_util.unflatten_dict(found)


def write(
  module, variables: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """Tensors in the naming of pytorch-i3d, and a config; inverts ``read``."""
  flat = flax.traverse_util.flatten_dict(
    {k: variables[k] for k in ("params", "batch_stats")}
  )
  tensors = {}
  for path, value in flat.items():
    name = _name(path)
    tensors[name] = np.ascontiguousarray(_there(np.asarray(value)))
    if path[-1] == "mean":
      count = name.replace("running_mean", "num_batches_tracked")
      tensors[count] = np.zeros((), np.int64)
  config = {
    "model_type": "i3d",
    "architectures": ["InceptionI3d"],
    "in_channels": tensors[_FIRST].shape[1],
    OWN: {"width": module.width, "features": module.features},
  }
  return tensors, config


def _ignored(name: str) -> bool:
  first, last = _IGNORED
  return name.startswith(first) or name.endswith(last)


def _name(path: tuple[str, ...]) -> str:
  collection, *layers, leaf = path
  return ".".join([*layers, _LEAVES[collection, leaf]])


def _shapes(module, channels: int) -> dict[Any, tuple[int, ...]]:
  """{(path here, name in pytorch-i3d): shape in pytorch-i3d}."""
  x = jax.ShapeDtypeStruct((1, 8, 32, 32, channels), jnp.float32)
  made = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), x)
  flat: Any = flax.traverse_util.flatten_dict(made)
  return {
    (path, _name(path)): _turned(v.shape, there=True)
    for path, v in flat.items()
  }


def _turned(axes: tuple[int, ...], there: bool) -> tuple[int, ...]:
  """Axes of a kernel in the other order; axes of vectors stay."""
  if there:
    return (*axes[::-1][:2], *axes[:-2]) if len(axes) > 1 else axes
  return (*axes[2:], axes[1], axes[0]) if len(axes) > 1 else axes


def _here(tensor: np.ndarray) -> np.ndarray:
  return tensor.transpose(_turned(tuple(range(tensor.ndim)), there=False))


def _there(array: np.ndarray) -> np.ndarray:
  return array.transpose(_turned(tuple(range(array.ndim)), there=True))


def _compare(
  want: Mapping[str, tuple[int, ...]], given: Mapping[str, np.ndarray]
) -> None:
  """Raises ``ValueError`` with the first differences in names and shapes."""
  problems = [f"{k} is missing" for k in want if k not in given]
  problems += [f"{k} is unexpected" for k in given if k not in want]
  problems += [
    f"{k} has shape {given[k].shape}, but this network has {shape}"
    for k, shape in want.items()
    if k in given and given[k].shape != shape
  ]
  if problems:
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise InputError(
      f"these are not the weights of this I3D: {'; '.join(problems[:3])}{more}"
      " (the published network has width=64)"
    )
