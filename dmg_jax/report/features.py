"""``test_features.npz``: test features projected to two dimensions."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dmg_jax.report import arrays

FILE = "test_features.npz"


@runtime_checkable
class HasFeatures(Protocol):
  """The fields of ``evaluation.metrics.Evaluation`` that are used here."""

  @property
  def features(self) -> Mapping[str, np.ndarray]: ...
  @property
  def labels(self) -> np.ndarray: ...
  @property
  def index(self) -> np.ndarray: ...
  @property
  def present(self) -> Mapping[str, np.ndarray]: ...


def save_features(
  workdir: str | Path, evaluation: HasFeatures, classes: Sequence[str] = ()
) -> Path:
  """Saves unit features, projected by one PCA of all modalities together.

  The file holds ``modalities`` [m], ``points`` [m n 2], ``centroids`` [m 2],
  ``distances`` [m m] (between centroids, before the projection), ``explained``
  [2] (fractions of the variance), ``labels`` [n], ``index`` [n], ``classes``
  and ``left_out``: the modalities whose feature size differs from the most
  common one, so that they cannot share the projection. Points are NaN where a
  sample lacks the modality.

  Args:
    workdir: folder of the file.
    evaluation: results on n samples, with unit features {modality: [n d]}.
    classes: names of the classes, if known.

  Returns:
    The path of the file.
  """
  features = evaluation.features
  sizes = Counter(z.shape[1] for z in features.values())
  common = max(sizes, key=lambda d: sizes[d])
  names = [m for m, z in features.items() if z.shape[1] == common]
  stacked = np.stack([np.asarray(features[m], np.float64) for m in names])
  everyone = np.ones(len(evaluation.labels), bool)
  there = np.stack([evaluation.present.get(m, everyone) for m in names])
  points, explained = _project(stacked, there)
  means = np.stack(
    [_mean(x, rows) for x, rows in zip(stacked, there, strict=True)]
  )
  content: dict[str, Any] = {
    "modalities": np.array(names),
    "left_out": np.array([m for m in features if m not in names], dtype=str),
    "classes": np.array(classes, dtype=str),
    "points": points.astype(np.float32),
    "centroids": np.stack(
      [_mean(x, rows) for x, rows in zip(points, there, strict=True)]
    ),
    "distances": np.linalg.norm(means[:, None] - means[None], axis=-1),
    "explained": explained,
    "labels": evaluation.labels,
    "index": evaluation.index,
  }
  return arrays.save(Path(workdir) / FILE, content)


def load_features(workdir: str | Path) -> dict[str, np.ndarray] | None:
  """The arrays that ``save_features`` saved; ``None`` without a file.

  Raises:
    ValueError: the file is damaged.
  """
  return arrays.load(Path(workdir) / FILE)


def pairs(features: Mapping[str, np.ndarray]) -> dict[tuple[str, str], float]:
  """{(a, b): distance between the centroids} for all pairs of modalities."""
  names = [str(m) for m in features["modalities"]]
  return {
    (names[i], names[j]): float(features["distances"][i, j])
    for i, j in itertools.combinations(range(len(names)), 2)
  }


def _mean(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Mean of the rows [n ...]; NaN without any."""
  return x[rows].mean(axis=0) if rows.any() else np.full(x.shape[1:], np.nan)


def _project(
  stacked: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """First two principal components of [m n d], and their explained variance.

  Only rows that are ``there`` [m n] count; others become NaN. The sign of a
  component is arbitrary; its largest entry is made positive.
  """
  m, n, d = stacked.shape
  rows, known = stacked.reshape(m * n, d), there.reshape(m * n)
  rows = np.where(known[:, None], rows - rows[known].mean(axis=0), 0.0)
  values, vectors = np.linalg.eigh(rows.T @ rows)
  axes = np.zeros((d, 2))
  axes[:, : min(d, 2)] = vectors[:, ::-1][:, :2]
  largest = np.abs(axes).argmax(axis=0)
  sign = np.where(np.take_along_axis(axes, largest[None], axis=0) < 0, -1, 1)
  top = np.zeros(2)
  top[: min(d, 2)] = values[::-1][:2].clip(min=0)
  total = max(float(values.clip(min=0).sum()), np.finfo(float).tiny)
  points = np.where(known[:, None], rows @ (axes * sign), np.nan)
  return points.reshape(m, n, 2), top / total
