r"""Linear probe: a linear classifier fitted to frozen encoder features.

.. math:: \min_{W, b}\; \tfrac12 \|W\|_F^2
  + C \sum_{i \in \mathrm{train}} \mathrm{CE}(W^\top x_i + b, y_i), \qquad
  x_i = (z_i - \mu) / \sigma

where μ and σ are taken per feature over train (σ = 1 for a constant feature)
and z is the encoder's output in evaluation mode, without augmentation. With
weights of classes (``train.class_weights``) each cross-entropy is multiplied by
that of its sample. C is the
value of ``GRID`` with the highest accuracy on val; ties go to the lowest
cross-entropy, then to the smallest C. The chosen classifier is evaluated on
test once. The encoder and its head stay as they are, and the fit has a unique
solution that depends on no random number.

Reference: Alain & Bengio, "Understanding intermediate layers using linear
classifier probes", ICLR 2017 workshop; fitted by scikit-learn's
``LogisticRegression`` (L-BFGS).
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

GRID = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0)
_ITERATIONS = 1000


class LabelledFeatures(NamedTuple):
  """Features [n d] and labels [n] of a split."""

  features: np.ndarray
  labels: np.ndarray


class Probe(NamedTuple):
  """A fitted probe.

  Attributes:
    predicted: class of each test sample, int [n].
    strength: C, the inverse strength of the penalty.
    val_accuracy: accuracy on val, by which C was chosen.
    converged: whether the solver converged.
  """

  predicted: np.ndarray
  strength: float
  val_accuracy: float
  converged: bool


def fit(
  train: LabelledFeatures,
  val: LabelledFeatures,
  test: np.ndarray,
  weights: np.ndarray | None = None,
) -> Probe:
  """The probe fitted on train, with C chosen on val, applied to ``test`` [n d].

  ``weights`` [k] are those of the classes, if they have any.

  Raises:
    ValueError: train has a single class, or a feature is not finite.
  """
  from sklearn.preprocessing import StandardScaler  # Late: a second to load.

  scale = StandardScaler().fit(_wide(train.features))
  own, other, last = (
    np.asarray(scale.transform(_wide(x)))
    for x in (train.features, val.features, test)
  )
  tried = []
  for strength in GRID:
    model = _fitted(own, train.labels, strength, weights)
    accuracy = float(np.mean(model.predict(other) == val.labels))
    tried.append((accuracy, -_loss(model, other, val.labels), model))
  best = max(range(len(GRID)), key=lambda i: (*tried[i][:2], -i))
  accuracy, _, model = tried[best]
  predicted = model.predict(last)
  converged = bool(model.n_iter_.max() < _ITERATIONS)
  return Probe(predicted, GRID[best], accuracy, converged)


def _wide(features: np.ndarray) -> np.ndarray:
  return np.asarray(features, np.float64)


def _fitted(
  x: np.ndarray,
  labels: np.ndarray,
  strength: float,
  weights: np.ndarray | None = None,
) -> Any:
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression

  each = None if weights is None else weights[labels]
  model = LogisticRegression(C=strength, max_iter=_ITERATIONS)
  with warnings.catch_warnings():
    # ``Probe.converged`` reports it instead.
    warnings.simplefilter("ignore", ConvergenceWarning)
    return model.fit(x, labels, sample_weight=each)


def _loss(model: Any, x: np.ndarray, labels: np.ndarray) -> float:
  """Cross-entropy over the samples whose class occurs in train."""
  from sklearn.metrics import log_loss

  seen = np.isin(labels, model.classes_)
  if not seen.any():
    return np.inf
  p = model.predict_proba(x[seen])
  return float(log_loss(labels[seen], p, labels=model.classes_))
