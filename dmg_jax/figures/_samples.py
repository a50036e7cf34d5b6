"""Chooses test samples for Figure 4 and turns them into pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data_pipelines import core
from data_pipelines.core import sequences
from dmg_jax.errors import InputError, unknown

SPLIT = "test"


class Samples(NamedTuple):
  """A few samples in the form of the model's inputs.

  Attributes:
    ids: names of the samples, [n].
    labels: class indices, int32 [n].
    inputs: {modality: [n ...]}, as in ``Batch``.
    present: {modality: float32 [n]}, as in ``Batch``.
  """

  ids: list[str]
  labels: np.ndarray
  inputs: dict[str, Any]
  present: dict[str, np.ndarray] | None = None

  def has(self, i: int, modality: str) -> bool:
    """Whether the i-th sample has a modality."""
    there = (self.present or {}).get(modality)
    return there is None or bool(there[i])


def choose(
  dataset: core.Dataset, ids: Sequence[str], count: int, seed: int
) -> list[int]:
  """Positions in test of ``ids``, or of ``count`` random samples without ids.

  Raises:
    ValueError: an id does not occur in test, or ``count`` is out of range.
  """
  source = dataset.sources[SPLIT]
  if not ids:
    if not 1 <= count <= len(source):
      raise InputError(
        f"figure.count must lie in [1, {len(source)}], the number of test "
        f"samples; got {count}"
      )
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(len(source), count, replace=False).tolist())
  places = {str(source[i]["id"]): i for i in range(len(source))}
  for name in ids:
    if name not in places:
      known = unknown("sample", name, places)
      raise InputError(_short(str(known), len(places)))
  return [places[name] for name in ids]


def _short(text: str, count: int, most: int = 300) -> str:
  """``text`` with its list of ids cut short."""
  if len(text) <= most:
    return text
  return f"{text[:most].rpartition(',')[0]}, ... {count} test samples)"


def read(dataset: core.Dataset, places: Sequence[int]) -> Samples:
  """The samples at these positions, as in evaluation batches."""
  found = [dataset.sources[SPLIT][i] for i in places]
  specs, arrays, present = dataset.spec.modalities, {}, {}
  for m, spec in specs.items():
    view = dataset.view.get(m, lambda x: x)
    arrays[m] = [view(np.asarray(s["inputs"][m])) for s in found]
    if spec.optional:
      there = [m not in core.missing(s) for s in found]
      present[m] = np.array(there, np.float32)
  labels = np.array([s["label"] for s in found], np.int32)
  inputs = sequences.stacked(arrays, specs)
  return Samples([str(s["id"]) for s in found], labels, inputs, present or None)


def middle(x: np.ndarray, kind: str) -> np.ndarray:
  """The middle frame of a video or of its maps (axis 0 is time), else ``x``."""
  return x[len(x) // 2] if kind == "video" else x


def picture(x: np.ndarray, kind: str) -> np.ndarray:
  """An input as a picture [h w 3] with values in [0, 1].

  Three channels are shown as colours. One channel, or the magnitude of two
  (optical flow), is shown in grey from the smallest to the largest value.
  Spectrograms have low frequencies at the bottom.
  """
  whole = 255.0 if x.dtype == np.uint8 else 1.0
  x = middle(x, kind).astype(np.float32)
  if x.shape[-1] == 3 and kind != "audio":
    return np.clip(x / whole, 0, 1)
  grey = x[..., 0]
  if x.shape[-1] == 2:
    grey = np.hypot(x[..., 0] - 127.5, x[..., 1] - 127.5)
  elif x.shape[-1] > 1:
    grey = x.mean(axis=-1)
  span = float(grey.max() - grey.min()) or 1.0
  grey = (grey - grey.min()) / span
  grey = grey[::-1] if kind == "audio" else grey
  return np.repeat(grey[..., None], 3, axis=-1)


def upright(heat: Any, kind: str) -> np.ndarray:
  """A heat map oriented like ``picture``: middle frame, low pitch below."""
  shown = middle(np.asarray(heat), kind)
  return shown[::-1] if kind == "audio" else shown
