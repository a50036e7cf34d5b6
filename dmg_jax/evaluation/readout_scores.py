"""Scores of every read-out on test, or the reason why one has no score.

A result is {"fused" or modality: {read-out: scores or reason}}. The arguments
``test`` and ``splits`` are results of ``readouts.passes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmg_jax.evaluation import probe
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.evaluation.scores import balanced_accuracy, macro_f1

Arrays = dict[str, Any]


def of_heads(test, own: str, fusion: str, talk: bool) -> dict[str, dict]:
  """Scores of the read-outs R1 to R5, or the reason why one has none."""
  whole = test["own", FUSED]
  labels = whole["labels"]
  found: dict[str, dict[str, Any]] = {
    FUSED: {"own": _scores(whole["fused"], labels)}
  }
  for m, logits in whole["unimodal"].items():
    rows = there(whole, m)
    found[m] = {
      "own": f"fusion {fusion!r} has no head for a single modality; its "
      "read-out is R3"
      if own.startswith("R3")
      else _scores(logits[rows], labels[rows]),
      "feature_ablation": f"fusion {fusion!r} exchanges information between "
      "the encoders: no feature depends on one modality alone"
      if talk
      else _scores(test["feature_ablation", m]["fused"][rows], labels[rows]),
      "input_ablation": _scores(
        test["input_ablation", m]["fused"][rows], labels[rows]
      ),
    }
  return found


def of_probes(
  splits: Mapping[str, Arrays], weights: np.ndarray | None = None
) -> dict[str, dict]:
  """Scores of probes on each modality's features and on all concatenated.

  ``weights`` [k] are those of the classes, if they have any.
  """
  sets = {m: (m,) for m in splits["train"]["features"]}
  sets[FUSED] = tuple(sets)
  found = {}
  for name, modalities in sets.items():
    train, val, test = (
      probe.LabelledFeatures(
        np.concatenate([v["features"][m] for m in modalities], axis=1)[rows],
        v["labels"][rows],
      )
      for v, rows in (
        (splits[k], there(splits[k], name)) for k in ("train", "val", "test")
      )
    )
    found[name] = {"linear_probe": _probed(train, val, test, weights)}
  return found


def there(arrays: Arrays, head: str) -> Any:
  """Rows of the samples that have a modality, as an index."""
  row = arrays["present"].get(head)
  return slice(None) if row is None else row > 0


def _probed(train, val, test, weights=None) -> dict[str, Any] | str:
  try:
    made = probe.fit(train, val, test.features, weights)
  except ValueError as error:
    return f"no probe could be fitted: {' '.join(str(error).split())}"
  return {
    **_of_classes(made.predicted, test.labels),
    "strength": made.strength,
    "val_accuracy": made.val_accuracy,
    "converged": made.converged,
  }


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any] | str:
  if not len(labels):
    return "no test sample has the modality"
  if not np.isfinite(logits).all():
    return "its logits are not finite"
  return _of_classes(logits.argmax(axis=-1), labels)


def _of_classes(predicted, labels) -> dict[str, Any]:
  return {
    "accuracy": float(np.mean(predicted == labels)),
    "macro_f1": macro_f1(labels, predicted),
    "balanced_accuracy": balanced_accuracy(labels, predicted),
  }


def chance(train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
  """Scores of always predicting the most frequent class of train."""
  return _of_classes(np.full_like(test, np.bincount(train).argmax()), test)


def merged(a: dict[str, dict], b: dict[str, dict]) -> dict[str, dict]:
  """The read-outs of ``a`` and ``b``, which have the same heads."""
  return {k: {**a[k], **b[k]} for k in a}


def split(found: dict[str, dict]) -> tuple[dict[str, dict], dict[str, dict]]:
  """``found`` split into scores and reasons for missing scores."""
  scores, absent = (
    {
      k: {name: x for name, x in v.items() if isinstance(x, kind)}
      for k, v in found.items()
    }
    for kind in (dict, str)
  )
  return scores, {k: v for k, v in absent.items() if v}


def notes(modalities, own: str, talk: bool, scores) -> list[str]:
  """Notes that a reader of these scores needs."""
  said = []
  if talk:
    said.append(
      "The encoders exchange information: the own head and the probe of one "
      "modality see the others through the gates; only R4 shows it alone."
    )
  elif own.startswith("R1") and len(modalities) > 1:
    said.append(
      "R1 and R3 use a head that was trained on the sum over modalities, so "
      "they can underrate an encoder; the probe shows what its features hold."
    )
  if any(
    not v["linear_probe"].get("converged", True)
    for v in scores.values()
    if "linear_probe" in v
  ):
    said.append("The solver of at least one probe did not converge.")
  return said
