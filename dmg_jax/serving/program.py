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
``predictor.json`` says which T: ``{"multiple_of": 8, "at_least": 64}``, or one
number where the model cannot be lowered for any.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from data_pipelines.core import sequences
from data_pipelines.disk.faults import whole, writing
from dmg_jax.errors import InputError, MissingPackageError
from dmg_jax.model.encoders._layers import conv
from dmg_jax.serving.batching import PRESENT
from dmg_jax.tracking.logging import write_json

PROGRAM, FACTS = "predictor.jaxexport", "predictor.json"
PLATFORMS = ("cpu", "cuda")
LEAST = 8  # Units of T: two tiles of attention, as a loop has two turns.

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
    buckets: {ragged modality: its buckets}; T is any multiple of ``unit``, from
      ``LEAST`` of them on, or else the largest bucket.

  Raises:
    ValueError: it cannot be lowered at all.
  """
  inside = jax.jit(lambda inputs: function(variables, inputs))
  here = (jax.export.default_export_platform(),)
  notes: list[str] = []
  for size, extents in _attempts(batch_size, buckets or {}):
    steps = dict(zip(buckets or {}, extents, strict=True))
    arguments = _arguments(size, shapes, optional, steps)
    for platforms in (PLATFORMS, here):
      try:
        with conv.without_products():
          made = jax.export.export(inside, platforms=platforms)(arguments)
        return made, notes
      # A primitive without a rule for a platform or size may raise anything.
      except Exception as error:
        reason = " ".join(str(error).split())[:300]
        where = f"{_sizes(size, steps)} on {', '.join(platforms)}"
        notes.append(f"not for {where}: {reason}")
  raise InputError("the model cannot be exported: " + "; ".join(notes))


def _attempts(
  batch_size: int, buckets: Mapping[str, Sequence[int]]
) -> list[tuple[Any, Sequence[Any]]]:
  """(b, T of each ragged modality), the most general first."""
  b, *free = symbols(buckets)
  if not buckets:
    return [(b, []), (batch_size, [])]
  (alone,) = symbols({})  # Of a scope in which nothing else is bounded.
  most = [max(lengths) for lengths in buckets.values()]
  return [(b, free), (alone, most), (batch_size, free), (batch_size, most)]


def unit(buckets: Sequence[int]) -> int:
  """What T is a multiple of: it divides all buckets."""
  return math.gcd(sequences.MULTIPLE, *buckets)


def symbols(buckets: Mapping[str, Sequence[int]]) -> tuple[Any, ...]:
  """Sizes that are open: b, and T of each ragged modality."""
  found, names = ["b"], []
  for m, lengths in buckets.items():
    names.append(f"t_{re.sub('[^A-Za-z0-9_]', '_', m)}")
    found.append(f"{unit(lengths)}*{names[-1]}")
  least = [f"{name} >= {LEAST}" for name in names]
  made = jax.export.symbolic_shape(", ".join(found), constraints=least)
  return tuple(made)


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
  exported: jax.export.Exported, buckets: Mapping[str, Sequence[int]]
) -> dict[str, int | dict[str, int]]:
  """{ragged modality: which T the program takes}, see the module."""
  ((arguments,), _) = jax.tree.unflatten(exported.in_tree, exported.in_avals)
  found = {m: arguments[m][sequences.MASK].shape[1] for m in buckets}
  units = {m: unit(lengths) for m, lengths in buckets.items()}
  return {
    m: t
    if isinstance(t, int)
    else {"multiple_of": units[m], "at_least": LEAST * units[m]}
    for m, t in found.items()
  }


def write(
  folder: Path, exported: jax.export.Exported, facts: Mapping[str, Any]
) -> None:
  """Writes both files, whole; ``facts`` go into ``predictor.json``.

  Raises:
    WriteError: they cannot be written.
  """
  content = bytes(exported.serialize())
  with writing(folder, PROGRAM):
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / PROGRAM) as part:
      part.write_bytes(content)
      (folder / FACTS).unlink(missing_ok=True)  # Never beside another program.
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
