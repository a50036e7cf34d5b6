"""By which score on val the best state of a run, or trial of a row, is chosen.

The field ``train.select_by`` names one of the fused prediction's. Wherever
something is chosen on val, it is by ``goodness``.
"""

from __future__ import annotations

from typing import Any

from dmg_jax.config.defaults import DEFAULTS
from dmg_jax.evaluation.metrics import FUSED

# Score -> what it is called in a sentence.
NAMES = {
  "accuracy": "accuracy",
  "balanced_accuracy": "balanced accuracy",
  "macro_f1": "macro-F1",
  "map": "mAP",
  "loss": "loss",
}
DEFAULT = DEFAULTS["train"]["select_by"]


def key(score: str) -> str:
  """The name of a score in flat metrics, ``fused/accuracy``."""
  return f"{FUSED}/{score}"


def goodness(score: str, value: Any) -> float:
  """The value of a score, negative if less of it is better."""
  return -float(value) if score == "loss" else float(value)
