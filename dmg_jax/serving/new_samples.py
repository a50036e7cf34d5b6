"""Predictions on a manifest of new samples."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.manifest.unlabelled import Unlabelled
from dmg_jax.serving import prediction_table
from dmg_jax.serving.predictor import Predictor


def predict(predictor: Predictor, manifest: str | Path, path: Path) -> None:
  """Probabilities of each row of ``manifest``, to the table ``path``.

  Raises:
    core.DataError: all that is wrong with the rows; nothing is written.
  """
  given = Unlabelled(manifest, predictor.intakes)
  found = predictor.run(given.batches(predictor.batch_size))
  prediction_table.write(
    path, given.ids, given.labels, found.probabilities, found.classes
  )


def default(folder: Path, manifest: str | Path) -> Path:
  """Where they are written unless the user names a file."""
  return folder / f"predictions_of_{Path(manifest).stem}.csv"
