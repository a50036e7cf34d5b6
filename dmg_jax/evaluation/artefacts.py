"""Test results and example samples that a run stores for its report.

At the end of training a run stores the predicted probabilities of all test
samples, a two-dimensional projection of their features, and a handful of
samples in a form for people: pictures, the spectrogram of a sound, the middle
frame of a video, the words of a text. Only these few samples are read again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import core
from data_pipelines.transforms import kinds
from dmg_jax import report
from dmg_jax.evaluation.metrics import Evaluation
from dmg_jax.report import arrays
from dmg_jax.report.examples import FILE, choose

SIDE = 160  # Pixels: larger pictures are shrunk.
_COLUMNS, _ROWS = 400, 100  # Of the outline of a wave.
_CHARACTERS = 280


def save_test(
  workdir: str | Path, test: Evaluation, dataset: core.Dataset
) -> None:
  """Writes ``test_features``, ``test_predictions`` and ``test_examples.npz``.

  ``test_examples.npz`` holds ``index`` [e] (positions in the split), ``ids``
  [e], ``rules`` [e] (why a sample was chosen), ``modalities`` [m], ``kinds``
  [m], ``missing`` [e m] (1 or 0) and, for the modality at position i,
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
    "missing": np.array(
      [[m in s.get("missing", ()) for m in modalities] for s in samples],
      np.uint8,
    ),
  }
  for i, m in enumerate(modalities):
    content[f"shown_{i}"] = _shown(
      m, [s["inputs"][m] for s in samples], dataset
    )
  arrays.save(Path(workdir) / FILE, content)


def _shown(m: str, values: list[np.ndarray], dataset) -> np.ndarray:
  """One modality of all examples in a form for people."""
  spec = dataset.spec.modalities[m]
  if spec.kind == "text":
    return np.array(_texts(values, dataset.preprocessing.get(m)), dtype=str)
  if spec.ragged:
    strips = [strip(x, int(np.prod(spec.shape[1:]))) for x in values]
    return np.stack(strips) if strips else np.zeros((0, 1, 1), np.uint8)
  view = dataset.view.get(m, lambda x: x)
  pictures = [picture(view(x), spec.kind) for x in values]
  return np.stack(pictures) if pictures else np.zeros((0, 1, 1), np.uint8)


def _texts(values: list[np.ndarray], settings: Any) -> list[str]:
  """Texts decoded from token ids; the ids where they cannot be decoded."""
  try:
    decode = kinds.coder_of(settings).decode if settings else None
  except core.DataError:  # The tokenizer is no longer available.
    decode = None
  if decode is None:
    found = [f"token ids {' '.join(map(str, x))}" for x in values]
  else:
    found = [decode(x) for x in values]
  cut = _CHARACTERS
  return [x if len(x) <= cut else f"{x[: cut - 1]}…" for x in found]


def picture(value: np.ndarray, kind: str) -> np.ndarray:
  """Picture of a sample of a non-text modality: uint8 [h w 3] or [h w].

  A video is shown by its middle frame, a sound by its spectrogram with low
  frequencies at the bottom, a waveform by its outline, and any other array by
  its entries, from the smallest (black) to the largest (white).
  """
  if kind == "waveform":
    return _outline(value)
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


def strip(value: np.ndarray, features: int) -> np.ndarray:
  """A sequence [t ...] as a picture of fixed size: steps across, uint8 [h w].

  Short sequences are stretched and steps of long ones left out. One without
  steps is white.
  """
  rows = np.full((max(features, 1), SIDE), 255, np.uint8)
  if len(value):
    steps = np.linspace(0, len(value) - 1, SIDE).round().astype(int)
    rows = _levels(np.asarray(value).reshape(len(value), -1)[steps].T)
  return _at_most(np.repeat(rows, max(1, SIDE // (4 * len(rows))), axis=0))


def _outline(wave: np.ndarray) -> np.ndarray:
  """The range of a wave's samples over time, black on white."""
  parts = np.array_split(wave, min(len(wave), _COLUMNS))
  low = np.array([part.min() for part in parts])
  high = np.array([part.max() for part in parts])
  largest = max(np.abs(wave).max(), 1e-9)
  levels = largest * np.linspace(1, -1, _ROWS)[:, None]
  step = largest / _ROWS
  inside = (levels >= low - step) & (levels <= high + step)
  return np.where(inside, 0, 255).astype(np.uint8)


def _flat(value: np.ndarray) -> np.ndarray:
  """Any array in two dimensions; a vector becomes a strip, not a thin line."""
  rows = np.asarray(value, np.float64)
  rows = rows.reshape(len(rows) if rows.ndim > 1 else 1, -1)
  return np.repeat(rows, max(1, rows.shape[1] // (5 * len(rows))), axis=0)


def _levels(values: np.ndarray) -> np.ndarray:
  """``values`` scaled from smallest to largest into 256 levels."""
  wide = np.nan_to_num(np.asarray(values, np.float64))
  low, high = wide.min(), wide.max()
  return np.round(255 * (wide - low) / max(high - low, 1e-12)).astype(np.uint8)


def _at_most(pixels: np.ndarray) -> np.ndarray:
  if max(pixels.shape[:2]) <= SIDE:
    return pixels
  small = Image.fromarray(pixels)
  small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
  return np.asarray(small, np.uint8)
