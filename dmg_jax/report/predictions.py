"""``test_predictions.npz``: the probabilities of every test sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from dmg_jax.report import arrays

FILE = "test_predictions.npz"
FUSED = "fused"


@runtime_checkable
class HasProbabilities(Protocol):
  """The fields of ``evaluation.metrics.Evaluation`` that are used here."""

  @property
  def probabilities(self) -> Mapping[str, np.ndarray]: ...
  @property
  def labels(self) -> np.ndarray: ...
  @property
  def index(self) -> np.ndarray: ...


def save_predictions(
  workdir: str | Path, evaluation: HasProbabilities, classes: Sequence[str]
) -> Path:
  """Saves the probabilities of n samples, fused and of each modality.

  The file holds ``heads`` [h] (``fused`` and the modalities),
  ``probabilities`` [h n k], ``labels`` [n], ``index`` [n] (position in the
  split) and ``classes`` [k].
  """
  made = evaluation.probabilities
  return arrays.save(
    Path(workdir) / FILE,
    {
      "heads": np.array(list(made)),
      "probabilities": np.stack(
        [np.asarray(p, np.float32) for p in made.values()]
      ),
      "labels": np.asarray(evaluation.labels),
      "index": np.asarray(evaluation.index),
      "classes": np.array(classes, dtype=str),
    },
  )


def load_predictions(workdir: str | Path) -> dict[str, np.ndarray] | None:
  """The arrays that ``save_predictions`` saved; ``None`` without a file.

  Raises:
    ValueError: the file is damaged.
  """
  return arrays.load(Path(workdir) / FILE)


def by_head(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """{"fused" or modality: probabilities [n k]}."""
  names = [str(h) for h in stored["heads"]]
  return dict(zip(names, stored["probabilities"], strict=True))


def predicted(probabilities: np.ndarray) -> np.ndarray:
  """Class of the largest probability of each row; -1 if the row has a NaN."""
  usable = ~np.isnan(probabilities).any(axis=-1)
  return np.where(usable, probabilities.argmax(axis=-1), -1)
