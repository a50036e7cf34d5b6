"""Small data sets in memory, for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipelines.core import Cached, Dataset, ModalitySpec, Sample, Spec

CLASSES = ("ant", "bee", "cat")
WORDS = 9  # of the toy text, padding and unknown among them
_MODALITIES = {
  "array": ModalitySpec("array", (5,), np.float32),
  "image": ModalitySpec("image", (8, 8, 3), np.uint8),
  "text": ModalitySpec("text", (4,), np.int32, vocab_size=WORDS),
}


def toy_dataset(
  modalities: Sequence[str] = ("array", "image"),
  n: int = 48,
  seed: int = 0,
) -> Dataset:
  """A data set whose every modality tells the label, with some noise.

  Args:
    modalities: of ``array``, ``image``, ``text``.
    n: samples of train; outer and val have a quarter of it, test a half.
    seed: of the samples.
  """
  kept = {m: _MODALITIES[m] for m in modalities}
  sizes = {"train": n, "outer": n // 4, "val": n // 4, "test": n // 2}
  sources = {
    split: Cached([_sample(kept, split, i, seed) for i in range(size)], kept)
    for split, size in sizes.items()
  }
  augment = {"array": _noise} if "array" in kept else {}
  return Dataset(Spec("toy", kept, CLASSES, sizes), sources, augment)


def _noise(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
  return array + rng.normal(scale=0.1, size=array.shape).astype(array.dtype)


def _sample(modalities, split: str, i: int, seed: int) -> Sample:
  rng = np.random.default_rng([seed, *split.encode(), i])
  label = i % len(CLASSES)
  made = {
    "array": (rng.normal(size=5) + 2 * (np.arange(5) == label)),
    "image": rng.integers(0, 60, (8, 8, 3)) + 150 * (np.arange(3) == label),
    "text": np.array([2 + label, *rng.integers(2, WORDS, 2), 0]),
  }
  inputs = {m: made[m].astype(s.dtype) for m, s in modalities.items()}
  return {"inputs": inputs, "label": label, "id": f"{split}-{i}"}
