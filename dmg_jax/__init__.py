"""Multimodal classification under modality imbalance, in JAX and Flax.

The public names are those of ``__all__``; everything else may change. They are
loaded when they are first used, so importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dmg_jax import bilevel
  from dmg_jax.api.binding import bind
  from dmg_jax.api.estimator import MultimodalClassifier
  from dmg_jax.api.fitting import fit
  from dmg_jax.api.functional import Functional, functional
  from dmg_jax.api.inputs import Modalities
  from dmg_jax.api.loop import Loop
  from dmg_jax.api.recipes import recipes
  from dmg_jax.api.run import Run, load
  from dmg_jax.errors import UserError
  from dmg_jax.serving.predictor import Prediction, Predictor
  from dmg_jax.types import Batch, Method, Outputs, Problem, TrainState

__version__ = "0.2.0"

# Name -> the module that defines it.
_PUBLIC = {
  "Batch": "dmg_jax.types",
  "Functional": "dmg_jax.api.functional",
  "Loop": "dmg_jax.api.loop",
  "Method": "dmg_jax.types",
  "Modalities": "dmg_jax.api.inputs",
  "MultimodalClassifier": "dmg_jax.api.estimator",
  "Outputs": "dmg_jax.types",
  "Prediction": "dmg_jax.serving.predictor",
  "Predictor": "dmg_jax.serving.predictor",
  "Problem": "dmg_jax.types",
  "Run": "dmg_jax.api.run",
  "TrainState": "dmg_jax.types",
  "UserError": "dmg_jax.errors",
  "bind": "dmg_jax.api.binding",
  "fit": "dmg_jax.api.fitting",
  "functional": "dmg_jax.api.functional",
  "load": "dmg_jax.api.run",
  "recipes": "dmg_jax.api.recipes",
}

__all__ = [
  "Batch",
  "Functional",
  "Loop",
  "Method",
  "Modalities",
  "MultimodalClassifier",
  "Outputs",
  "Prediction",
  "Predictor",
  "Problem",
  "Run",
  "TrainState",
  "UserError",
  "bilevel",
  "bind",
  "fit",
  "functional",
  "load",
  "recipes",
]


def __getattr__(name: str) -> Any:
  if name == "bilevel":
    return importlib.import_module("dmg_jax.bilevel")
  if name in _PUBLIC:
    found = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = found
    return found
  raise AttributeError(f"module 'dmg_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})
