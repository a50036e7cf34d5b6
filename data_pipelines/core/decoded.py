"""Decoded splits, kept beside prepared data so that they open at once.

To read and decode 100,000 records takes most of a minute; to read the arrays
that come out takes a fraction of a second. So the arrays of a split of
``LEAST`` samples or more are kept in one file, named by a hash of all that they
depend on. The files may be deleted at any time: they are made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_pipelines.core.sequences import Ragged
from data_pipelines.core.source import (
  CACHE_BYTES,
  Arrays,
  Cached,
  Source,
  cache_if_small,
)
from data_pipelines.core.spec import ModalitySpec

FOLDER = "decoded"  # in the folder of the prepared data
LEAST = 1000  # samples of a split
_FORMAT = 1
_KEPT = 3  # files of a split, which differ in the settings


def source(
  folder: pathlib.Path,
  split: str,
  read: Callable[[], Source],
  count: int,
  modalities: Mapping[str, ModalitySpec],
  settings: Any,
) -> Source:
  """The samples of a split, in memory if they are small enough.

  Args:
    folder: of the prepared data.
    split: its name.
    read: opens the split; its samples are decoded on access.
    count: samples in it.
    modalities: {name: spec} of decoded samples.
    settings: all that decoding depends on besides, in JSON's types; ``None`` if
      it is not known, and then no file is used.
  """
  size = count * sum(s.nbytes for s in modalities.values())
  if settings is None or count < LEAST or size > CACHE_BYTES:
    return cache_if_small(read(), modalities)
  specs = {
    m: (s.kind, s.shape, str(s.dtype), s.vocab_size, *["ragged"] * s.ragged)
    for m, s in modalities.items()
  }
  text = json.dumps([_FORMAT, split, specs, settings], sort_keys=True)
  key = hashlib.sha256(text.encode()).hexdigest()[:16]
  path = folder / FOLDER / f"{split}-{key}.npz"
  arrays = _load(path, count, modalities)
  if arrays is not None:
    return Cached.of(arrays)
  made = Cached(read(), modalities)
  # A folder that cannot be written to is no fault: reading is slower then.
  with contextlib.suppress(OSError):
    _save(path, made.arrays)
    _clear(path.parent, split)
  return made


def _load(
  path: pathlib.Path, count: int, modalities: Mapping[str, ModalitySpec]
) -> Arrays | None:
  """What ``_save`` wrote; ``None`` if it is not there, or not whole."""
  try:
    with path.open("rb") as whole, np.load(whole, allow_pickle=False) as file:
      inputs = {m: _loaded(file, m, s) for m, s in modalities.items()}
      labels, ids = file["label"], json.loads(file["id"].tobytes())
      present = {
        m: file[f"present_{m}"] for m, s in modalities.items() if s.optional
      }
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None
  fits = (
    len(ids) == count
    and labels.shape == (count,)
    and all(_fits(inputs[m], count, s) for m, s in modalities.items())
    and all(p.shape == (count,) for p in present.values())
  )
  return Arrays(inputs, labels, ids, present) if fits else None


def _loaded(file: Any, m: str, spec: ModalitySpec) -> Any:
  array = file[f"input_{m}"]
  return Ragged(array, file[f"steps_{m}"]) if spec.ragged else array


def _fits(found: Any, count: int, spec: ModalitySpec) -> bool:
  if isinstance(found, Ragged):
    alike = spec.fits(found.flat.shape) and found.flat.dtype == spec.dtype
    return alike and len(found) == count
  return found.shape == (count, *spec.shape) and found.dtype == spec.dtype


def _save(path: pathlib.Path, arrays: Arrays) -> None:
  masks = {f"present_{m}": p for m, p in arrays.present.items()}
  path.parent.mkdir(exist_ok=True)
  number, name = tempfile.mkstemp(".part", f"{path.name}.", path.parent)
  part = pathlib.Path(name)
  try:
    with os.fdopen(number, "wb") as file:
      np.savez(
        file,
        allow_pickle=False,
        label=arrays.labels,
        id=np.frombuffer(json.dumps(arrays.ids).encode(), np.uint8),
        **_parts(arrays.inputs),
        **masks,
      )
    part.chmod(0o644)
    os.replace(part, path)
  finally:
    part.unlink(missing_ok=True)


def _parts(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """By their names in the file."""
  made = {}
  for m, array in inputs.items():
    if isinstance(array, Ragged):
      made[f"steps_{m}"], array = array.lengths, array.flat
    made[f"input_{m}"] = array
  return made


def _clear(folder: pathlib.Path, split: str) -> None:
  """Deletes the oldest files of a split."""
  files = sorted(
    folder.glob(f"{split}-*.npz"), key=lambda p: p.stat().st_mtime_ns
  )
  for path in files[:-_KEPT]:
    path.unlink(missing_ok=True)
