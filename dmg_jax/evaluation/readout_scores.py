"""Scores of every read-out on test, or why there is none.

A result is {"fused" or modality: {read-out: scores or reason}}; ``passes`` are
those of ``readouts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmg_jax.evaluation import probe
from dmg_jax.evaluation.metrics import FUSED, macro_f1

Arrays = dict[str, Any]


def of_heads(test, own: str, fusion: str, talk: bool) -> dict[str, dict]:
  """Scores of R1 to R5, or the reason why there are none."""
  whole = test["own", FUSED]
  labels = whole["labels"]
  found: dict[str, dict[str, Any]] = {
    FUSED: {"own": _scores(whole["fused"], labels)}
  }
  for m, logits in whole["unimodal"].items():
    found[m] = {
      "own": f"fusion {fusion!r} has no head for one modality: it reads them "
      "out by R3"
      if own.startswith("R3")
      else _scores(logits, labels),
      "feature_ablation": f"fusion {fusion!r} lets modalities talk inside the "
      "encoders: no feature is of one modality alone"
      if talk
      else _scores(test["feature_ablation", m]["fused"], labels),
      "input_ablation": _scores(test["input_ablation", m]["fused"], labels),
    }
  return found


def of_probes(splits: Mapping[str, Arrays]) -> dict[str, dict]:
  """Probes on each modality's features and on all of them side by side."""
  sets = {m: (m,) for m in splits["train"]["features"]}
  sets[FUSED] = tuple(sets)
  found = {}
  for name, modalities in sets.items():
    x = {
      k: np.concatenate([v["features"][m] for m in modalities], axis=1)
      for k, v in splits.items()
    }
    train, val = (
      probe.Samples(x[k], splits[k]["labels"]) for k in ("train", "val")
    )
    found[name] = {"linear_probe": _probed(train, val, x, splits)}
  return found


def _probed(train, val, x, splits) -> dict[str, Any] | str:
  try:
    made = probe.fit(train, val, x["test"])
  except ValueError as error:
    return f"no probe could be fitted: {' '.join(str(error).split())}"
  return {
    **_of_classes(made.predicted, splits["test"]["labels"]),
    "strength": made.strength,
    "val_accuracy": made.val_accuracy,
    "converged": made.converged,
  }


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any] | str:
  if not np.isfinite(logits).all():
    return "its logits are not finite"
  return _of_classes(logits.argmax(axis=-1), labels)


def _of_classes(predicted, labels) -> dict[str, Any]:
  return {
    "accuracy": float(np.mean(predicted == labels)),
    "macro_f1": macro_f1(labels, predicted),
  }


def chance(train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
  """Of predicting the most frequent class of train, of equals the first."""
  return _of_classes(np.full_like(test, np.bincount(train).argmax()), test)


def merged(a: dict[str, dict], b: dict[str, dict]) -> dict[str, dict]:
  """The read-outs of both, head by head; both have the same heads."""
  return {k: {**a[k], **b[k]} for k in a}


def split(found: dict[str, dict]) -> tuple[dict[str, dict], dict[str, dict]]:
  """Scores, and the reasons of those that there are none of."""
  scores, absent = (
    {
      k: {name: x for name, x in v.items() if isinstance(x, kind)}
      for k, v in found.items()
    }
    for kind in (dict, str)
  )
  return scores, {k: v for k, v in absent.items() if v}


def notes(modalities, own: str, talk: bool, scores) -> list[str]:
  """What of this run the reader has to know."""
  said = []
  if talk:
    said.append(
      "Modalities talk inside the encoders: the own head and the probe of one "
      "see the others through the gates; R4 shows it by itself."
    )
  elif own.startswith("R1") and len(modalities) > 1:
    said.append(
      "R1 and R3 read a head that was fitted to the sum over modalities and "
      "can underrate an encoder; the probe shows what its features hold."
    )
  if any(
    not v["linear_probe"].get("converged", True)
    for v in scores.values()
    if "linear_probe" in v
  ):
    said.append("A probe's solver was stopped before its end.")
  return said
