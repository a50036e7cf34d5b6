"""A predictor as a file: StableHLO with its weights, by ``jax.export``.

``predictor.jaxexport`` needs nothing but jax::

  exported = jax.export.deserialize(open("predictor.jaxexport", "rb").read())
  probabilities = exported.call({"image": pictures, "text": words})

Its input is {modality: [b ...]}, with shapes and dtypes as ``predictor.json``
has them, its output {"fused" or modality: [b k]}. It is one program for any
number of samples b, lowered for CPU and CUDA; where a model cannot be, for
less, which ``predictor.json`` tells (``batch``, ``platforms``, ``notes``).
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from dmg_jax.errors import InputError, MissingPackageError
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
) -> tuple[jax.export.Exported, list[str]]:
  """The program with the variables inside, and what it is not able to.

  Args:
    variables: arrays on the host.
    function: pure, of variables and {modality: [b ...]}.
    shapes: {modality: (shape of a sample, dtype)}.
    batch_size: b where the model works with a fixed number only.

  Raises:
    ValueError: it cannot be lowered at all.
  """
  inside = jax.jit(lambda inputs: function(variables, inputs))
  (symbol,) = jax.export.symbolic_shape("b")
  here = (jax.export.default_export_platform(),)
  notes = []
  for b, platforms in (
    (symbol, PLATFORMS), (symbol, here), (batch_size, PLATFORMS),
    (batch_size, here),
  ):  # fmt: skip
    arguments = {
      m: jax.ShapeDtypeStruct((b, *shape), dtype)
      for m, (shape, dtype) in shapes.items()
    }
    try:
      return jax.export.export(inside, platforms=platforms)(arguments), notes
    # A primitive without a rule for a platform or size may raise anything.
    except Exception as error:
      reason = " ".join(str(error).split())[:300]
      notes.append(f"not for b = {b} on {', '.join(platforms)}: {reason}")
  raise InputError("the model cannot be exported: " + "; ".join(notes))


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
    wanted = {m: np.dtype(s["dtype"]) for m, s in facts["modalities"].items()}
  # Flatbuffers raise anything about a damaged file.
  except Exception as error:
    raise InputError(
      f"{folder} holds no usable predictor ({error}): write it again, with "
      "--mode=export"
    ) from error
  return facts, lambda x: call(
    {m: np.asarray(x[m], t) for m, t in wanted.items()}
  )
