r"""Calibration and confusion, from probabilities and labels.

The expected calibration error, with bins :math:`B_i` of confidence
:math:`(\tfrac{i-1}{15}, \tfrac{i}{15}]`, is

.. math:: \mathrm{ECE} = \sum_i \frac{|B_i|}{n}
  \left|\mathrm{acc}(B_i) - \mathrm{conf}(B_i)\right|

where the confidence of a sample is its largest probability.

Reference: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
Networks", ICML 2017, eqs. 2-5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dmg_jax.report.predictions import predicted

BINS = 15


class Reliability(NamedTuple):
  """Samples, mean confidence and accuracy of each bin (NaN for empty bins).

  ``ece`` is NaN without samples.
  """

  count: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray
  ece: float


class Confused(NamedTuple):
  """A class that is mistaken for another, with counts.

  Attributes:
    label: the true class.
    predicted: the predicted class.
    count: number of samples with this mistake.
    total: number of samples of the true class.
  """

  label: str
  predicted: str
  count: int
  total: int


def reliability(
  probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> Reliability:
  """Reliability of probabilities [n k] with labels [n]; skips NaN rows."""
  usable = np.isfinite(probabilities).all(axis=-1)
  p = np.asarray(probabilities[usable], np.float64)
  right = p.argmax(axis=-1) == labels[usable]
  sure = p.max(axis=-1) if p.size else np.zeros(0)
  edges = np.linspace(0, 1, bins + 1)
  place = np.clip(np.searchsorted(edges, sure, "left") - 1, 0, bins - 1)
  count = np.bincount(place, minlength=bins)
  with np.errstate(invalid="ignore"):
    confidence = np.bincount(place, sure, bins) / count
    accuracy = np.bincount(place, right, bins) / count
  gaps = np.abs(accuracy - confidence)[count > 0]
  total = count.sum()
  ece = float((count[count > 0] * gaps).sum() / total) if total else np.nan
  return Reliability(count, confidence, accuracy, ece)


def confusion(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Counts [k k], row: true class, column: prediction; skips NaN rows."""
  k = probabilities.shape[-1]
  found = predicted(probabilities)
  pairs = labels[found >= 0] * k + found[found >= 0]
  return np.bincount(pairs, minlength=k * k).reshape(k, k)


def by_class(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """Accuracy on each class [k]; NaN for classes without samples.

  Skips NaN rows, samples that lack the modality. Where all are NaN, all are
  wrong.
  """
  k = probabilities.shape[-1]
  known = np.isfinite(probabilities).all(axis=-1)
  if known.any():
    probabilities, labels = probabilities[known], labels[known]
  right = predicted(probabilities) == labels
  with np.errstate(invalid="ignore"):
    return np.bincount(labels, right, k) / np.bincount(labels, minlength=k)


def gaps(accuracies: np.ndarray) -> np.ndarray:
  """Largest minus smallest accuracy [m k] over modalities, per class [k]."""
  return accuracies.max(axis=0) - accuracies.min(axis=0)


def most_confused(
  matrix: np.ndarray, classes: Sequence[str], most: int = 10
) -> list[Confused]:
  """The most frequent mistakes; in a tie, those of rarer classes first."""
  wrong = matrix - np.diag(np.diag(matrix))
  totals = matrix.sum(axis=1)
  places = [(int(i), int(j)) for i, j in zip(*np.nonzero(wrong), strict=True)]
  places.sort(key=lambda ij: (-wrong[ij], totals[ij[0]], ij))
  return [
    Confused(str(classes[i]), str(classes[j]), int(wrong[i, j]), int(totals[i]))
    for i, j in places[:most]
  ]
