"""Scores that need all samples at once, on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import average_precision_score, f1_score


def mean_average_precision(
  labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n k"]
) -> float:
  """Macro average precision over the classes that occur; NaN from NaN."""
  if not np.isfinite(probabilities).all():
    return float("nan")
  each = [
    average_precision_score(labels == c, probabilities[:, c])
    for c in np.unique(labels)
  ]
  return float(np.mean(each))


def macro_f1(
  labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]
) -> float:
  """Macro F1 over the classes that are a label or predicted (-1 is none)."""
  found = np.union1d(labels, predicted[predicted >= 0])
  return float(f1_score(labels, predicted, labels=found, average="macro"))
