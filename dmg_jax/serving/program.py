"""A predictor as a file: StableHLO with its weights, by ``jax.export``.

``predictor.jaxexport`` needs nothing but jax::

  exported = jax.export.deserialize(open("predictor.jaxexport", "rb").read())
  probabilities = exported.call({"image": pictures, "text": words})

Its input is {modality: [b ...]}, with shapes and dtypes as ``predictor.json``
has them, its output {"fused" or modality: [b k]}. It is one program for any
number of samples b, lowered for CPU and CUDA; where a model cannot be, for
less, which ``predictor.json`` tells (``batch``, ``platforms``, ``notes``).

*Missing modalities.* For each modality that samples may lack (``present`` in
``predictor.json``, which is absent if there is none), there is a further input
``present/<modality>``, float32 [b]: 1 where a sample has it, else 0. What
stands in a missing input has no influence, to the bit. The head of a missing
modality is NaN, ``fused`` never is::

  exported.call({
    "image": pictures, "text": words, "present/image": np.array([1, 0], "f4")
  })

*Sequences* of any length are ``{"values": [b T d], "mask": float32 [b T]}``,
with mask 1 for a step, 0 for padding at the end. ``steps`` of the modality in
``predictor.json`` says which T: any multiple of a number (``8*t_sensor``), or
one number where the model cannot be lowered for any.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from data_pipelines.core import sequences
from dmg_jax.errors import InputError, MissingPackageError
from dmg_jax.serving.batching import PRESENT
from dmg_jax.tracking.logging import write_json

PROGRAM, FACTS = "predictor.jaxexport", "predictor.json"
PLATFORMS = ("cpu", "cuda")

Shapes = Mapping[str, tuple[tuple[int, ...], Any]]


def require() -> None:
  """Raises ``ModuleNotFoundError`` if programs cannot be written or read."""
  if not importlib.util.find_spec("flatbuffers"):
    raise MissingPackageError(
      "jax.export needs the package flatbuffers for its files: "
      "pip install flatbuffers"
    )


def lower(
  variables: Any,
  function: Callable[[Any, Any], Any],
  shapes: Shapes,
  batch_size: int,
  optional: Sequence[str] = (),
  buckets: Mapping[str, Sequence[int]] | None = None,
) -> tuple[jax.export.Exported, list[str]]:
  """The program with the variables inside, and what it is not able to.

  Args:
    variables: arrays on the host.
    function: pure, of variables and {modality: [b ...]}, see the module.
    shapes: {modality: (shape of a sample, dtype)}.
    batch_size: b where the model works with a fixed number only.
    optional: modalities that samples may lack.
    buckets: {ragged modality: its buckets}; T is a multiple of what divides
      them, at most ``sequences.MULTIPLE``, or else the largest.

  Raises:
    ValueError: it cannot be lowered at all.
  """
  inside = jax.jit(lambda inputs: function(variables, inputs))
  b, *free = symbols(buckets or {})
  most = [max(lengths) for lengths in (buckets or {}).values()]
  here = (jax.export.default_export_platform(),)
  notes: list[str] = []
  for size in (b, batch_size):
    for extents in [free, most] if most else [[]]:
      steps = dict(zip(buckets or {}, extents, strict=True))
      arguments = _arguments(size, shapes, optional, steps)
      for platforms in (PLATFORMS, here):
        try:
          made = jax.export.export(inside, platforms=platforms)(arguments)
          return made, notes
        # A primitive without a rule for a platform or size may raise anything.
        except Exception as error:
          reason = " ".join(str(error).split())[:300]
          where = f"{_sizes(size, steps)} on {', '.join(platforms)}"
          notes.append(f"not for {where}: {reason}")
  raise InputError("the model cannot be exported: " + "; ".join(notes))


def symbols(buckets: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
  """Sizes that are open: b, and T of each ragged modality."""
  found = ["b"]
  for m, lengths in buckets.items():
    name = f"t_{re.sub('[^A-Za-z0-9_]', '_', m)}"
    factor = math.gcd(sequences.MULTIPLE, *lengths)
    found.append(f"{factor}*{name}" if factor > 1 else name)
  return tuple(jax.export.symbolic_shape(", ".join(found)))


def _sizes(size: Any, steps: Mapping[str, Any]) -> str:
  own = [f"T = {t} of {m}" for m, t in steps.items()]
  return ", ".join([f"b = {size}", *own])


def _arguments(
  size: Any, shapes: Shapes, optional: Sequence[str], steps: Mapping[str, Any]
) -> dict[str, Any]:
  """Shapes of the program's inputs."""
  made: dict[str, Any] = {}
  for m, (shape, dtype) in shapes.items():
    if m not in steps:
      made[m] = jax.ShapeDtypeStruct((size, *shape), dtype)
      continue
    values = (size, steps[m], *shape[1:])
    made[m] = {
      sequences.VALUES: jax.ShapeDtypeStruct(values, dtype),
      sequences.MASK: jax.ShapeDtypeStruct(values[:2], np.float32),
    }
  there = jax.ShapeDtypeStruct((size,), np.float32)
  return {**made, **{PRESENT + m: there for m in optional}}


def steps(
  exported: jax.export.Exported, ragged: Iterable[str]
) -> dict[str, int | str]:
  """{ragged modality: T, or what T must be, as ``8*t_sensor``}."""
  ((arguments,), _) = jax.tree.unflatten(exported.in_tree, exported.in_avals)
  found = {m: arguments[m][sequences.MASK].shape[1] for m in ragged}
  return {m: t if isinstance(t, int) else str(t) for m, t in found.items()}


def write(
  folder: Path, exported: jax.export.Exported, facts: Mapping[str, Any]
) -> None:
  """Writes both files, whole; ``facts`` go into ``predictor.json``."""
  folder.mkdir(parents=True, exist_ok=True)
  part = folder / f"{PROGRAM}.part"
  part.write_bytes(exported.serialize())
  (folder / FACTS).unlink(missing_ok=True)  # Never beside another program.
  part.replace(folder / PROGRAM)
  write_json(folder / FACTS, facts)


def read(
  folder: Path,
) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], dict[str, Any]]]:
  """The facts, and the compiled program.

  Raises:
    ValueError: the files are not what ``write`` wrote.
    ModuleNotFoundError: as ``require``.
  """
  require()
  try:
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    exported = jax.export.deserialize(
      bytearray((folder / PROGRAM).read_bytes())
    )
    call = jax.jit(exported.call)
    wanted = _dtypes(facts)
  # Flatbuffers raise anything about a damaged file.
  except Exception as error:
    raise InputError(
      f"{folder} holds no usable predictor ({error}): write it again, with "
      "--mode=export"
    ) from error
  return facts, lambda x: call(
    jax.tree.map(lambda t, v: np.asarray(v, t), wanted, dict(x))
  )


def _dtypes(facts: Mapping[str, Any]) -> dict[str, Any]:
  """Those of the program's inputs."""
  single = np.dtype(np.float32)
  made: dict[str, Any] = {}
  for m, stored in facts["modalities"].items():
    dtype = np.dtype(stored["dtype"])
    ragged = {sequences.VALUES: dtype, sequences.MASK: single}
    made[m] = ragged if "steps" in stored else dtype
  return {**made, **{PRESENT + m: single for m in facts.get("present", ())}}
