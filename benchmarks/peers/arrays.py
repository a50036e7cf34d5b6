"""Prepared data as plain arrays, for both sides: written and read."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.errors import DataError

SPLITS = ("train", "outer", "val", "test")
KINDS = ("picture", "words")


@dataclasses.dataclass(frozen=True)
class Arrays:
  """Two modalities of a data set.

  Attributes:
    kinds: {modality: ``picture`` ([n h w c] float32) or ``words`` ([n t]
      int32)}. The first has words or a single channel, as peers' sounds.
    inputs: {split: {modality: array}}.
    labels: {split: [n] int64}.
    classes: their number.
    words: size of the vocabulary, 0 without one.
  """

  kinds: dict[str, str]
  inputs: dict[str, dict[str, np.ndarray]]
  labels: dict[str, np.ndarray]
  classes: int
  words: int


def of_config(words: str, fields: dict[str, Any]) -> Arrays:
  """The prepared data of a config, as evaluation sees them: not augmented.

  Args:
    words: a config, ``configs/openmoji.py:joint``.
    fields: {path: value} of its fields.
  """
  from dmg_jax.config import fields as of_fields
  from dmg_jax.config import files
  from dmg_jax.model import registry
  from dmg_jax.training import experiment

  file, _, arg = words.partition(":")
  config = files.get_config(file, arg or "joint")
  of_fields.set_all(config, fields)
  data = experiment.load(config, registry.make_method("joint"))
  kinds, vocabulary = {}, 0
  for m, spec in data.spec.modalities.items():
    if spec.kind == "text":
      kinds[m], vocabulary = "words", int(spec.vocab_size or 0)
    elif spec.kind in ("image", "audio"):
      kinds[m] = "picture"
    else:
      raise DataError(f"{m} is {spec.kind}: peers read image, audio and text")
  if len(kinds) != 2:
    raise DataError(f"peers have two modalities, these are {', '.join(kinds)}")
  flat = [m for m in kinds if _flat(data.spec.modalities[m])]
  if not flat:
    raise DataError("one modality must be text, or have a single channel")
  kinds = {m: kinds[m] for m in (flat[0], *(k for k in kinds if k != flat[0]))}
  inputs, labels = {}, {}
  for split in SPLITS:
    inputs[split], labels[split] = _all(data, split)
  return Arrays(kinds, inputs, labels, len(data.spec.classes), vocabulary)


def _flat(spec: Any) -> bool:
  """Whether a sample is words or has one channel."""
  return spec.kind == "text" or spec.shape[-1] == 1


def _all(data: Any, split: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """All samples of a split, bytes as numbers in [-1, 1]."""
  from data_pipelines.load.loader import Loader

  loader = Loader(data, split, 64, seed=0, shuffle=False, augment=False)
  parts: dict[str, list] = {m: [] for m in data.spec.modalities}
  labels = []
  for batch in loader.padded():
    real = np.asarray(batch.mask) > 0
    labels.append(np.asarray(batch.labels)[real])
    for m, x in batch.inputs.items():
      parts[m].append(np.asarray(x)[real])
  whole = {m: np.concatenate(x) for m, x in parts.items()}
  for m, x in whole.items():
    if x.dtype == np.uint8:
      whole[m] = x.astype(np.float32) / 127.5 - 1
  return whole, np.concatenate(labels).astype(np.int64)


def save(path: Path, arrays: Arrays) -> None:
  """Writes an ``.npz`` of plain arrays."""
  kept: dict[str, Any] = {
    "names": np.array(list(arrays.kinds)),
    "kinds": np.array(list(arrays.kinds.values())),
    "classes": np.array(arrays.classes),
    "words": np.array(arrays.words),
  }
  for split in SPLITS:
    kept[f"labels_{split}"] = arrays.labels[split]
    for m, x in arrays.inputs[split].items():
      kept[f"{split}_{m}"] = x
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("wb") as file:
    np.savez(file, **kept)


def load(path: Path) -> Arrays:
  """Reads what ``save`` wrote; objects are refused.

  Raises:
    DataError: no such file, or an array is missing.
  """
  if not path.is_file():
    raise DataError(
      f"no file {path}: make it by python -m benchmarks.peers --export=CONFIG"
    )
  with np.load(path, allow_pickle=False) as found:
    try:
      kinds = dict(
        zip(found["names"].tolist(), found["kinds"].tolist(), strict=True)
      )
      return Arrays(
        kinds,
        {s: {m: found[f"{s}_{m}"] for m in kinds} for s in SPLITS},
        {s: found[f"labels_{s}"] for s in SPLITS},
        int(found["classes"]),
        int(found["words"]),
      )
    except KeyError as error:
      raise DataError(f"{path} is no export of ours: {error}") from error
