"""I3D's weights under pytorch-i3d's names, and back.

``Mixed_3b.b1a.conv3d.weight`` is ``params["Mixed_3b"]["b1a"]["conv3d"]
["kernel"]``; running statistics are ``batch_stats``. A convolution [o i t h w]
of torch is [t h w i o] here. A linear layer behind the net is ``project``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax.errors import InputError

# Leaf here -> leaf there.
_LEAVES = {
  ("params", "kernel"): "weight",
  ("params", "scale"): "weight",
  ("params", "bias"): "bias",
  ("batch_stats", "mean"): "running_mean",
  ("batch_stats", "var"): "running_var",
}
OWN = "dmg_jax"  # key of the options that no other library has
_FIRST = "Conv3d_1a_7x7.conv3d.weight"
_IGNORED = ("logits.", ".num_batches_tracked")  # begin or end of names


def options_of(config: Mapping[str, Any]) -> dict[str, Any]:
  """Options of ``I3D`` by a config of ours; pytorch-i3d has none to read.

  Raises:
    ValueError: another architecture.
  """
  kind = config.get("model_type", "i3d")
  if kind != "i3d":
    raise InputError(
      f"config.json is of the architecture {kind!r}; I3D reads 'i3d'"
    )
  return dict(config.get(OWN, {}))


def read(module, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """{"params": ..., "batch_stats": ...} of pytorch-i3d's ``tensors``.

  The classifier ``logits`` and counters of batches are left out; without
  ``project.weight`` that layer is absent from the result. The first convolution
  has as many input channels as the tensors.

  Raises:
    ValueError: a tensor is missing, has another shape, or is one too many.
  """
  given = {k: np.asarray(v) for k, v in tensors.items() if not _ignored(k)}
  if _FIRST not in given or given[_FIRST].ndim != 5:
    raise InputError(
      f"no I3D: there is no tensor {_FIRST!r} of five axes; tensors have "
      f"pytorch-i3d's names, the first here is {next(iter(given), 'none')!r}"
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
  """pytorch-i3d's tensors and their config; the inverse of ``read``."""
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
  """{(path here, name there): shape there}."""
  x = jax.ShapeDtypeStruct((1, 8, 32, 32, channels), jnp.float32)
  made = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), x)
  flat: Any = flax.traverse_util.flatten_dict(made)
  return {
    (path, _name(path)): _turned(v.shape, there=True)
    for path, v in flat.items()
  }


def _turned(axes: tuple[int, ...], there: bool) -> tuple[int, ...]:
  """A kernel's axes in the other order; those of vectors as they are."""
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
  """Raises ``ValueError`` with the first differences of names and shapes."""
  problems = [f"{k} is missing" for k in want if k not in given]
  problems += [f"{k} is one too many" for k in given if k not in want]
  problems += [
    f"{k} has shape {given[k].shape} where this net has {shape}"
    for k, shape in want.items()
    if k in given and given[k].shape != shape
  ]
  if problems:
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    raise InputError(
      f"these are not the weights of this I3D: {'; '.join(problems[:3])}{more}"
      " (option width is 64 for the published net)"
    )
