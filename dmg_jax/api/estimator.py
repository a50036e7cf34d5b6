"""scikit-learn's interface: ``MultimodalClassifier``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
  check_is_fitted,
  column_or_1d,
  validate_data,
)

from dmg_jax.api import fitting, inputs
from dmg_jax.errors import InputError, NotPicklableError
from dmg_jax.evaluation.metrics import FUSED

# Parameters that are keys of a recipe; ``None`` leaves the recipe's default.
_KEYS = ("epochs", "batch_size", "learning_rate")
_SEEDS = 2**31 - 1


class MultimodalClassifier(ClassifierMixin, BaseEstimator):
  """Any recipe as a classifier of scikit-learn.

  X is one of

  - a pandas DataFrame, a column a modality: called ``name:kind``, or by its
    name alone where the kind follows from the cells (``dmg_jax.fit`` says
    how). A frame of nothing but numbers is one modality, ``x``;
  - ``{modality or "name:kind": one entry per sample}``. To split the samples,
    as ``cross_val_score`` and ``GridSearchCV`` do, wrap it:
    ``dmg_jax.Modalities(X)``;
  - an array: numbers [n features] are one modality, ``x``.

  A part of each class is held out of training for α and for the choice of the
  checkpoint (``config={"data.held_out": 0.1}``).

  ``clone`` and parallel searches work, because an estimator that is not fitted
  can be pickled. A fitted one cannot: ``clf.run_.export(folder)`` writes its
  model and ``dmg_jax.load(folder)`` reads it.

  Args:
    recipe: its name; ``dmg_jax.recipes()`` lists them.
    epochs: default: the config's.
    batch_size: default: the config's.
    learning_rate: default: the config's.
    class_weight: weight of each class in the loss: ``None``, ``"balanced"`` or
      {label: weight}. Labels that are left out have weight 1.
    encoders: {modality or kind: encoder}, as ``dmg_jax.fit``.
    options: {key: value}, options of the recipe's method and other keys, as
      ``{"temperature": 0.2}``.
    config: {field: value}, any fields of the config.
    random_state: seed of weights and order; ``None`` draws one.
    workdir: folder of the run, for a single ``fit``; temporary by default.
    verbose: print what the command prints.

  Attributes:
    run_: the ``dmg_jax.Run``.
    classes_: the labels, sorted, in the type of y.
    n_features_in_: number of columns of an array or DataFrame.
    feature_names_in_: columns of a DataFrame.

  Example:

    >>> import dmg_jax, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(24, 3))
    >>> y = (x[:, 0] > 0).astype(int)
    >>> clf = dmg_jax.MultimodalClassifier("joint", epochs=1, random_state=0)
    >>> clf.fit({"sensor": x, "double": 2 * x}, y).classes_
    array([0, 1])
    >>> clf.predict_proba({"sensor": x[:2], "double": 2 * x[:2]}).shape
    (2, 2)
  """

  def __init__(
    self,
    recipe: str = "lb",
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    class_weight: str | Mapping[Any, float] | None = None,
    encoders: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    random_state: Any = None,
    workdir: str | os.PathLike[str] | None = None,
    verbose: bool = False,
  ):
    self.recipe = recipe
    self.epochs = epochs
    self.batch_size = batch_size
    self.learning_rate = learning_rate
    self.class_weight = class_weight
    self.encoders = encoders
    self.options = options
    self.config = config
    self.random_state = random_state
    self.workdir = workdir
    self.verbose = verbose

  def fit(self, X: Any, y: Any) -> MultimodalClassifier:
    """Trains on samples X with labels y [n].

    Raises:
      ValueError: as ``dmg_jax.fit``.
      core.DataError: as ``dmg_jax.fit``.
    """
    columns = self._columns(X, reset=True)
    labels = self._labels(y)
    keys = {k: getattr(self, k) for k in _KEYS if getattr(self, k) is not None}
    if self.class_weight is not None:
      keys["class_weights"] = self.class_weight
    self.run_ = fitting.fit(
      columns,
      labels,
      recipe=self.recipe,
      workdir=self.workdir,
      encoders=self.encoders,
      config=self.config,
      verbose=self.verbose,
      **{**keys, "seed": self._seed(), **(self.options or {})},
    )
    names = [str(c) for c in inputs.labels(self.classes_)]
    self._order = [self.run_.classes.index(name) for name in names]
    return self

  def predict_proba(self, X: Any) -> np.ndarray:
    """Probabilities [n k] of the fused prediction, in order of ``classes_``.

    Raises:
      sklearn.exceptions.NotFittedError: ``fit`` was not called.
      ValueError: modalities or shapes are not those of training.
    """
    check_is_fitted(self, "run_")
    found = self.run_.predict(self._columns(X, reset=False))
    return found.probabilities[FUSED][:, self._order]

  def predict(self, X: Any) -> np.ndarray:
    """The most probable labels, [n]; raises as ``predict_proba``."""
    best = self.predict_proba(X).argmax(axis=-1)
    return self.classes_[best]

  def decision_function(self, X: Any) -> np.ndarray:
    """Log-probabilities [n k]; for two classes their difference, [n]."""
    tiny = np.finfo(np.float32).tiny
    scores = np.log(np.maximum(self.predict_proba(X), tiny))
    two = len(self.classes_) == 2
    return scores[:, 1] - scores[:, 0] if two else scores

  def __getstate__(self) -> Any:
    if "run_" in vars(self):
      raise NotPicklableError(
        "a fitted MultimodalClassifier cannot be pickled: write its model with "
        "clf.run_.export(folder) and read it with dmg_jax.load(folder), or "
        "give workdir and load that"
      )
    return super().__getstate__()

  def __sklearn_tags__(self) -> Any:
    tags = super().__sklearn_tags__()
    tags.input_tags.dict = tags.input_tags.string = True
    return tags

  def _columns(self, X: Any, reset: bool) -> inputs.Columns:
    """{modality: entries}; an array becomes the modality ``x``."""
    if inputs.is_frame(X):
      validate_data(self, X, reset=reset, skip_check_array=True)
    elif not isinstance(X, Mapping | inputs.Modalities):
      if len(getattr(X, "shape", ())) <= 2:
        X = validate_data(self, X, reset=reset)
      X = {inputs.TABLE: X}
    return inputs.columns(X)

  def _labels(self, y: Any) -> list[Any]:
    """Labels by name; sets ``classes_``."""
    if y is None:
      raise InputError(
        "This MultimodalClassifier estimator requires y to be passed, but the "
        "target y is None"
      )
    given = y.to_numpy() if hasattr(y, "to_numpy") else y
    values = np.asarray(given)
    given = values if hasattr(given, "__array__") else given
    if values.ndim == 2 and values.shape[1] == 1:
      given = values = column_or_1d(values, warn=True)
    if values.ndim == 1 and any(map(inputs.missing, given)):
      return inputs.labels(given)  # ``fit`` lists the rows.
    check_classification_targets(values)
    self.classes_ = np.unique(values)
    if len(self.classes_) < 2:
      raise InputError(
        f"all rows are of class {str(self.classes_[0])!r}; there must be two "
        "classes"
      )
    return inputs.labels(values)

  def _seed(self) -> int:
    if isinstance(self.random_state, int | np.integer):
      return int(self.random_state)
    return int(check_random_state(self.random_state).randint(_SEEDS))
