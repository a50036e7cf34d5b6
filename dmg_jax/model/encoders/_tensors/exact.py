"""Weights under the names of a file, none missing and none left over.

A ``Table`` says where the weights of a module stand in a file. Its keys are
paths below ``params`` with ``#`` for numbers, ``layer_#/query``; its values
``Place``s, or names. Each ``#`` of a name becomes the number of its key, in
order. A key that ends with a module covers ``kernel``, ``scale`` and ``bias``,
whose names get ``.weight`` and ``.bias``; a key may name a single weight, too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from flax import traverse_util

from dmg_jax.errors import InputError

HEAD = "project"  # Belongs to the task, so files may lack it.
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_NUMBER = re.compile(r"(?<=_)\d+")
# Torch's axes of a kernel by their number, in the order of Flax.
_AXES = {2: (1, 0), 3: (2, 1, 0), 4: (2, 3, 1, 0)}
# Weights whose axes have another order in torch.
_KERNELS = ("kernel", "direction")
_SHOWN = 3  # Names in a message.


@dataclasses.dataclass(frozen=True)
class Place:
  """Where a weight stands in a file.

  Attributes:
    name: of the tensor.
    part, parts: the weight is piece ``part`` of ``parts`` equal pieces of the
      tensor's first axis, as in a fused query, key and value.
    ones: number of axes of length 1 that only the tensor has, as its first.
  """

  name: str
  part: int = 0
  parts: int = 1
  ones: int = 0


Table = Mapping[str, Place | str]
Tensors = Mapping[str, np.ndarray]


def fused(name: str, *modules: str) -> dict[str, Place]:
  """Entries of a table for modules that are one tensor in the file."""
  count = len(modules)
  return {m: Place(name, i, count) for i, m in enumerate(modules)}


def place(path: Sequence[str], table: Table) -> Place | None:
  """Where a weight stands, or ``None`` if the table does not say."""
  whole = "/".join(path)
  key = _NUMBER.sub("#", whole)
  module, _, leaf = key.rpartition("/")
  if key in table:
    found, ending = table[key], ""
  elif module in table:
    found, ending = table[module], f".{_LEAVES.get(leaf, leaf)}"
  else:
    return None
  found = Place(found) if isinstance(found, str) else found
  numbers = iter(_NUMBER.findall(whole))
  name = re.sub("#", lambda _: next(numbers), found.name)
  return dataclasses.replace(found, name=name + ending)


def plain(
  tensors: Tensors, anchor: str, known: Iterable[str]
) -> dict[str, np.ndarray]:
  """The tensors without the prefix of the encoder's names.

  Args:
    tensors: of a file.
    anchor: name of a tensor that reveals the prefix.
    known: usual prefixes. Behind another one the encoder is a part of a larger
      model, whose other tensors are left out.

  Raises:
    ValueError: no name ends with the anchor.
  """
  found = [
    name.removesuffix(anchor)
    for name in tensors
    if name == anchor or name.endswith(f".{anchor}")
  ]
  if not found:
    some = ", ".join(sorted(tensors)[:_SHOWN])
    raise InputError(
      f"the file has no tensor {anchor!r}, so it does not belong to this "
      f"encoder; its {len(tensors)} tensors are {some}, ..."
    )
  prefix = min(found, key=len)
  whole = prefix in ("", *known)
  return {
    name.removeprefix(prefix): array
    for name, array in tensors.items()
    if whole or name.startswith(prefix)
  }


def plain_shapes(
  shapes: Mapping[str, tuple[int, ...]], anchor: str, known: Iterable[str]
) -> dict[str, tuple[int, ...]]:
  """``plain`` for shapes in place of tensors."""
  empty = {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}
  return {n: a.shape for n, a in plain(empty, anchor, known).items()}


def read(
  shapes: Mapping[str, Any],
  table: Table,
  tensors: Tensors,
  ignored: Sequence[str] = (),
) -> dict[str, Any]:
  """The weights of a module from the tensors of a file.

  Args:
    shapes: shapes of the module's ``params``.
    table: where its weights stand; ``HEAD`` is read if it is there and fits.
    tensors: of the file, without prefix.
    ignored: regular expressions of whole names that may be left over.

  Raises:
    ValueError: tensors are missing, left over, or have other shapes; with
      names.
  """
  found, missing, wrong, used = {}, [], [], set()
  for path, like in _flat(shapes).items():
    its = place(path, table)
    if its is None or (path[0] == HEAD and its.name not in tensors):
      assert path[0] == HEAD, path
      continue
    used.add(its.name)
    if its.name not in tensors:
      missing.append(its.name)
      continue
    tensor = np.asarray(tensors[its.name])
    array = _from_torch(path, tensor, its)
    if array is not None and array.shape == like.shape:
      found[path] = np.asarray(array, like.dtype)
    elif path[0] != HEAD:
      wrong.append(_unlike(path, its, tensor, like.shape))
  heads = {k for k in found if k[0] == HEAD}
  if len(heads) == 1:
    del found[heads.pop()]
  left = [
    name
    for name in sorted({*tensors} - used)
    if not any(re.fullmatch(pattern, name) for pattern in ignored)
  ]
  _refuse(missing, wrong, left)
  return cast(dict[str, Any], traverse_util.unflatten_dict(found))


def write(params: Mapping[str, Any], table: Table) -> dict[str, np.ndarray]:
  """{name: array} of all weights but those of ``HEAD``; inverts ``read``."""
  pieces: dict[str, dict[int, np.ndarray]] = {}
  for path, array in _flat(params).items():
    its = place(path, table) if path[0] != HEAD else None
    if its is None:
      continue
    array = np.asarray(array, np.float32)
    if path[-1] in _KERNELS:
      array = array.transpose(np.argsort(_AXES[array.ndim]))
    array = array.reshape((1,) * its.ones + array.shape)
    pieces.setdefault(its.name, {})[its.part] = array
  return {
    name: np.concatenate([parts[i] for i in sorted(parts)])
    for name, parts in pieces.items()
  }


def _flat(tree: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
  return cast(
    dict[tuple[str, ...], Any], traverse_util.flatten_dict(dict(tree))
  )


def _from_torch(
  path: Sequence[str], tensor: np.ndarray, its: Place
) -> np.ndarray | None:
  """The weight in Flax's layout; ``None`` if the tensor cannot hold it."""
  if tensor.shape[: its.ones] != (1,) * its.ones:
    return None
  array = tensor.reshape(tensor.shape[its.ones :])
  if its.parts > 1:
    if not array.ndim or len(array) % its.parts:
      return None
    array = np.split(array, its.parts)[its.part]
  if path[-1] in _KERNELS and array.ndim in _AXES:
    array = array.transpose(_AXES[array.ndim])
  return array


def _unlike(
  path: Sequence[str], its: Place, tensor: np.ndarray, shape: tuple[int, ...]
) -> str:
  wanted = shape
  if path[-1] in _KERNELS:
    wanted = tuple(shape[i] for i in np.argsort(_AXES[len(shape)]))
  if its.parts > 1:
    wanted = (wanted[0] * its.parts, *wanted[1:])
  wanted = (1,) * its.ones + wanted
  return f"{its.name} has shape {tensor.shape}, not {wanted}"


def _refuse(
  missing: Sequence[str], wrong: Sequence[str], left: Sequence[str]
) -> None:
  kinds = (
    ("missing", missing),
    ("of another shape", wrong),
    ("in the file only", left),
  )
  said = []
  for what, items in kinds:
    items = list(dict.fromkeys(items))
    if items:
      more = len(items) - _SHOWN
      tail = f", and {more} more" if more > 0 else ""
      said.append(f"{what}: {'; '.join(items[:_SHOWN])}{tail}")
  if said:
    raise InputError(f"the weights do not fit the encoder; {'; '.join(said)}")
