"""What a run keeps of its test split for the report, at the end of training.

Probabilities of all samples, the features' two-dimensional view, and a handful
of samples as people see them: pictures, a spectrogram for sound, the middle
frame of a video, the words of a text. Only these few are read a second time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import core
from data_pipelines.transforms import intake
from dmg_jax import report
from dmg_jax.evaluation.metrics import Evaluation
from dmg_jax.report import arrays
from dmg_jax.report.examples import FILE, choose

SIDE = 160  # Pixels: larger pictures are made smaller.
_CHARACTERS = 280


def save_test(
  workdir: str | Path, test: Evaluation, dataset: core.Dataset
) -> None:
  """Writes ``test_features``, ``test_predictions`` and ``test_examples.npz``.

  The last one holds ``index`` [e] (positions in the split), ``ids`` [e],
  ``rules`` [e], ``modalities`` [m], ``kinds`` [m] and, for modality number i,
  ``shown_<i>``: str [e] for text, else uint8 [e h w 3] or [e h w].
  """
  classes = dataset.spec.classes
  report.save_features(workdir, test, classes)
  report.save_predictions(workdir, test, classes)
  chosen = choose(test.probabilities, test.labels)
  index = [int(test.index[row]) for row, _ in chosen]
  samples = [dataset.sources["test"][i] for i in index]
  modalities = dataset.spec.modalities
  content: dict[str, Any] = {
    "index": np.array(index, int),
    "ids": np.array([str(s["id"]) for s in samples], dtype=str),
    "rules": np.array([rule for _, rule in chosen], dtype=str),
    "modalities": np.array(list(modalities)),
    "kinds": np.array([s.kind for s in modalities.values()]),
  }
  for i, m in enumerate(modalities):
    content[f"shown_{i}"] = _shown(
      m, [s["inputs"][m] for s in samples], dataset
    )
  arrays.save(Path(workdir) / FILE, content)


def _shown(m: str, values: list[np.ndarray], dataset) -> np.ndarray:
  """A modality of all samples, as people see it."""
  spec = dataset.spec.modalities[m]
  if spec.kind == "text":
    return np.array(_texts(values, dataset.intake.get(m)), dtype=str)
  view = dataset.view.get(m, lambda x: x)
  pictures = [picture(view(x), spec.kind) for x in values]
  return np.stack(pictures) if pictures else np.zeros((0, 1, 1), np.uint8)


def _texts(values: list[np.ndarray], settings: Any) -> list[str]:
  """Texts from their numbers, as far as the data say what these mean."""
  try:
    decode = intake.coder(settings).decode if settings else None
  except core.DataError:  # The tokenizer is not to be had any more.
    decode = None
  if decode is None:
    found = [f"word numbers {' '.join(map(str, x))}" for x in values]
  else:
    found = [decode(x) for x in values]
  cut = _CHARACTERS
  return [x if len(x) <= cut else f"{x[: cut - 1]}…" for x in found]


def picture(value: np.ndarray, kind: str) -> np.ndarray:
  """A sample of a modality that is no text: uint8 [h w 3] or [h w].

  A video is its middle frame; sound is its spectrogram, low pitch below; other
  arrays are their entries, the least black, the largest white.
  """
  if kind == "video":
    value = value[len(value) // 2]
  if kind == "array":
    value = _flat(value)
  elif value.shape[-1] != 3 or value.ndim != 3:
    value = value[..., 0] if value.shape[-1] == 1 else value.mean(axis=-1)
  if value.dtype != np.uint8:
    value = _levels(value)
  value = value[::-1] if kind == "audio" else value
  return _at_most(np.ascontiguousarray(value))


def _flat(value: np.ndarray) -> np.ndarray:
  """Any array in two dimensions; a vector as a strip that can be seen."""
  rows = np.asarray(value, np.float64)
  rows = rows.reshape(len(rows) if rows.ndim > 1 else 1, -1)
  return np.repeat(rows, max(1, rows.shape[1] // (5 * len(rows))), axis=0)


def _levels(values: np.ndarray) -> np.ndarray:
  """From the least to the largest, in 256 steps."""
  wide = np.nan_to_num(np.asarray(values, np.float64))
  low, high = wide.min(), wide.max()
  return np.round(255 * (wide - low) / max(high - low, 1e-12)).astype(np.uint8)


def _at_most(pixels: np.ndarray) -> np.ndarray:
  if max(pixels.shape[:2]) <= SIDE:
    return pixels
  small = Image.fromarray(pixels)
  small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
  return np.asarray(small, np.uint8)
