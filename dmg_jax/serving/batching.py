"""From preprocessed samples to what a program takes, one flat dictionary.

Beside the inputs, {modality: [b ...]}, it has ``present/<modality>``, float32
[b], for each modality that samples may lack: 1 where it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines import core
from data_pipelines.core import sequences
from dmg_jax.errors import InputError

PRESENT = "present/"

# {modality: b arrays}; None where a sample lacks the modality.
Samples = Mapping[str, Sequence[np.ndarray | None]]
Specs = Mapping[str, core.ModalitySpec]
Given = Mapping[str, Any]
# {ragged modality: T, or {"multiple_of", "at_least"}}, see ``program``.
Steps = Mapping[str, int | Mapping[str, int]]


def given(
  samples: Samples, specs: Specs, steps: Steps | None = None
) -> dict[str, Any]:
  """Samples as a program takes them.

  Args:
    samples: {modality: b arrays}.
    specs: of the modalities.
    steps: {ragged modality: which T a program takes}; else it is a bucket.

  Raises:
    ValueError: a sample has more steps than the program takes.
  """
  filled = {
    m: [core.nothing(specs[m]) if x is None else x for x in own]
    for m, own in samples.items()
  }
  for m, own in (steps or {}).items():
    check_steps(m, max(map(len, filled[m]), default=0), own)
  made = sequences.stacked(filled, specs)
  for m, own in (steps or {}).items():
    count = made[m][sequences.MASK].shape[1]
    extent = own if isinstance(own, int) else max(count, own["at_least"])
    made[m] = sequences.stack(filled[m], specs[m], extent)
  for m, own in samples.items():
    if specs[m].optional:
      there = [x is not None for x in own]
      made[PRESENT + m] = np.array(there, np.float32)
  return made


def groups(samples: Samples, specs: Specs) -> list[np.ndarray]:
  """Rows that go through the model together.

  That is all of them; but samples far longer than those of the run would make
  the others as long, and are kept apart, by doublings of the largest bucket.
  """
  beyond = np.zeros(len(next(iter(samples.values()))), int)
  for m, own in samples.items():
    if specs[m].ragged:
      counts = np.array([1 if x is None else max(len(x), 1) for x in own])
      doublings = np.ceil(np.log2(counts / specs[m].buckets[-1])).astype(int)
      beyond = np.maximum(beyond, doublings)
  return [np.flatnonzero(beyond == n) for n in np.unique(beyond)]


def check_steps(
  modality: str, count: int, steps: int | Mapping[str, int]
) -> None:
  """Raises ``ValueError`` if a sample has too many steps for a program."""
  if isinstance(steps, int) and count > steps:
    raise InputError(
      f"{modality}: it has {count} steps, the exported program takes at most "
      f"{steps} (the run itself takes any number)"
    )


def padded(x: Given, size: int) -> dict[str, Any]:
  """``x`` with rows of zeros up to ``size`` samples."""

  def longer(array: np.ndarray) -> np.ndarray:
    more = np.zeros((size - len(array), *array.shape[1:]), array.dtype)
    return np.concatenate([array, more])

  return jax.tree.map(longer, dict(x))


def separate(x: Given) -> tuple[dict[str, Any], dict[str, Any] | None]:
  """Inputs and ``Batch.present``, ``None`` if nothing can be missing."""
  present = {
    k.removeprefix(PRESENT): p for k, p in x.items() if k.startswith(PRESENT)
  }
  inputs = {m: v for m, v in x.items() if not m.startswith(PRESENT)}
  return inputs, present or None


def lacking(samples: Samples) -> list[tuple[str, ...]]:
  """The modalities that each sample lacks, [b]."""
  rows = zip(*samples.values(), strict=True)
  return [
    tuple(m for m, x in zip(samples, row, strict=True) if x is None)
    for row in rows
  ]
