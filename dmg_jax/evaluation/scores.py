"""Scores that need all samples at once, computed on the host."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def mean_average_precision(
  labels: Int[np.ndarray, " n"], probabilities: Float[np.ndarray, "n k"]
) -> float:
  r"""Mean average precision over the classes that occur in ``labels``.

  .. math:: AP_c = \frac{1}{n_c} \sum_{i : y_i = c} P_c(p_{ic})

  where ``P_c(t)`` is the precision among the samples with a score of ``t`` or
  more, so tied samples are counted together. NaN if a probability is not
  finite. For each class it equals scikit-learn's ``average_precision_score``,
  whose argument checks took most of the time of a small run with a hundred
  classes (four fifths of training under a profiler).
  """
  if not np.isfinite(probabilities).all():
    return float("nan")
  classes = np.unique(labels)
  scores = probabilities[:, classes]
  order = np.argsort(-scores, axis=0, kind="stable")
  hits = labels[order] == classes
  ranks = np.arange(len(labels))[:, None]
  precision = np.cumsum(hits, axis=0) / (ranks + 1)
  falls = np.diff(np.take_along_axis(scores, order, axis=0), axis=0) < 0
  ends = np.where(
    np.pad(falls, ((0, 1), (0, 0)), constant_values=True), ranks, len(labels)
  )
  ends = np.minimum.accumulate(ends[::-1], axis=0)[::-1]
  found = np.take_along_axis(precision, ends, axis=0)
  return float(np.mean((found * hits).sum(axis=0) / hits.sum(axis=0)))


def balanced_accuracy(
  labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]
) -> float:
  r"""Mean recall of the classes that occur in ``labels``.

  .. math:: R_c = \frac{TP_c}{|\{y = c\}|}
  """
  total = np.bincount(labels)
  hits = np.bincount(labels[labels == predicted], minlength=len(total))
  return float(np.mean(hits[total > 0] / total[total > 0]))


def macro_f1(
  labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"]
) -> float:
  r"""Mean F1 over the classes that occur as a label or a prediction.

  .. math:: F_{1,c} = \frac{2\,TP_c}{|\{y = c\}| + |\{\hat y = c\}|}

  A prediction of -1 stands for no class.
  """
  known = predicted[predicted >= 0]
  size = int(max(labels.max(), known.max(initial=0))) + 1
  hits = np.bincount(labels[labels == predicted], minlength=size)
  seen = np.bincount(labels, minlength=size) + np.bincount(
    known, minlength=size
  )
  return float(np.mean(2 * hits[seen > 0] / seen[seen > 0]))
