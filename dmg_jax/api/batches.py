"""Batches in the forms that ``Loop`` takes, as ``Batch``es."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from dmg_jax.api.outputs import LackingError
from dmg_jax.errors import InputError, unknown
from dmg_jax.types import Batch, Problem

_LABELS = ("labels", "label")
_REST = ("mask", "index", "present")


def batch_of(given: Any, problem: Problem) -> Batch:
  """A batch in any form, see ``Loop``, checked.

  Args:
    given: the batch.
    problem: whose modalities and classes it should have.

  Raises:
    InputError: other modalities or lengths, labels that are no classes, no
      index where the problem needs one.
  """
  if isinstance(given, Batch):
    parts = vars(given)
  elif isinstance(given, Mapping):
    parts = _parts(given)
  elif isinstance(given, tuple | list) and len(given) == 2:
    parts = {"inputs": given[0], "labels": given[1]}
  else:
    raise InputError(
      "a batch is (inputs, labels), a dictionary with 'labels', or a Batch; "
      f"got {type(given).__name__}"
    )
  return _checked(parts, problem)


def _checked(parts: Mapping[str, Any], problem: Problem) -> Batch:
  names = problem.modalities
  for m in parts["inputs"]:
    if m not in names:
      raise unknown("modality of a batch", str(m), names)
  if set(parts["inputs"]) != set(names):
    raise InputError(
      f"a batch needs the modalities {', '.join(names)}; got "
      f"{', '.join(parts['inputs']) or 'none'}"
    )
  inputs = {m: arrays(parts["inputs"][m]) for m in names}
  labels = _labels(parts["labels"], problem.classes)
  mask, index = parts.get("mask"), parts.get("index")
  if index is None and _counts(problem):
    raise InputError(
      "the problem was bound with samples, so every batch needs 'index' [b], "
      "the positions of its samples in the training split"
    )
  size = len(labels)
  mask = np.ones(size, np.float32) if mask is None else _host(mask)
  index = np.arange(size) if index is None else _host(index)
  weight = None if parts.get("weight") is None else _host(parts["weight"])
  present = present_of(parts.get("present"), names)
  rest = {"mask": mask, "index": index, "weight": weight, "present": present}
  found = {**inputs, **rest}
  for name, x in jax.tree_util.tree_leaves_with_path(found):
    if len(x) != size:
      where = jax.tree_util.keystr(name)
      raise InputError(f"a batch has {size} labels, but {len(x)} at {where}")
  return Batch(
    inputs,
    labels,
    mask.astype(np.float32),
    index.astype(np.int32),
    weight,
    present and {m: x.astype(np.float32) for m, x in present.items()},
  )


def _counts(problem: Problem) -> bool:
  """Whether it keeps something for each training sample."""
  try:
    return bool(problem.samples)
  except LackingError:
    return False


def _parts(given: Mapping[str, Any]) -> dict[str, Any]:
  """A dictionary's inputs, labels, mask and index."""
  parts = dict(given)
  labels = [k for k in _LABELS if k in parts]
  if not labels:
    raise InputError(
      f"a batch needs 'labels', got {', '.join(map(str, given)) or 'nothing'}"
    )
  made = {"labels": parts.pop(labels[0])}
  made.update({k: parts.pop(k) for k in _REST if k in parts})
  made["inputs"] = parts.pop("inputs", parts)
  if parts is not made["inputs"] and parts:
    raise unknown(
      "part of a batch", next(iter(parts)), ("inputs", *_LABELS, *_REST)
    )
  return made


def present_of(given: Any, names: tuple[str, ...]) -> dict[str, Any] | None:
  """Which modalities are there, {modality: [b]}; ``None``: all of them."""
  if not given:
    return None
  for m in given:
    if m not in names:
      raise unknown("modality in 'present'", str(m), names)
  return {m: _host(x) for m, x in given.items()}


def _host(x: Any) -> Any:
  """Arrays of the device stay there, all else becomes NumPy's."""
  return x if isinstance(x, jax.Array) else np.asarray(x)


def arrays(tree: Any) -> Any:
  """A tree of arrays, none of them copied if it is NumPy's or JAX's."""
  return jax.tree.map(_host, tree)


def _labels(labels: Any, classes: int) -> Any:
  """int32 [b]; those on the host are checked."""
  labels = _host(labels)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise InputError(
      f"labels must be whole numbers [b], got {labels.dtype}"
      f"{list(labels.shape)}"
    )
  bad = isinstance(labels, np.ndarray) and ((labels < 0) | (labels >= classes))
  if np.any(bad):
    raise InputError(
      f"labels must lie in [0, {classes - 1}], as the logits have {classes} "
      f"classes; got {labels[bad][0]}"
    )
  return labels.astype(np.int32)
