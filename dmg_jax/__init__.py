"""Multimodal classification under modality imbalance, in JAX and Flax."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from dmg_jax.serving.predictor import Predictor

__version__ = "0.1.0"


def load(
  folder: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None = None,
  batch_size: int = 256,
) -> Predictor:
  """A trained run as an object that predicts; see ``serve.predictor.load``."""
  from dmg_jax.serving import predictor  # Late: importing the package is cheap.

  data_dir = None if data_dir is None else os.fspath(data_dir)
  return predictor.load(os.fspath(folder), data_dir, batch_size)
