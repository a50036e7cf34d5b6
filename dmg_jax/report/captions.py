"""Captions of the pictures, and the reasons for missing ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dmg_jax.report import diagrams, features, figures, skeleton
from dmg_jax.report.reading import Workdir
from dmg_jax.report.skeleton import Html

TRAINING = ("accuracy", "alpha", "loss", "gap")
PREDICTIONS = ("reliability", "classes", "confusion")


def pictures(
  found: Workdir,
  drawn: Mapping[str, Path],
  names: Sequence[str],
  more: Sequence[Html] = (),
) -> Html:
  """The pictures with their captions, and why others are missing.

  ``more`` is placed beside the last picture.
  """
  there = [n for n in names if n in drawn]
  figures = [
    skeleton.figure(drawn[n], _ALT[n], _CAPTIONS[n](found), _is_wide(found, n))
    for n in there
  ]
  missing = [_missing(found, n) for n in names if n not in drawn]
  notes = [skeleton.note(text) for text in dict.fromkeys(missing) if text]
  return Html("\n".join([skeleton.gallery([*figures, *more]), *notes]))


def _is_wide(found: Workdir, name: str) -> bool:
  if name != "confusion":
    return False
  return len(diagrams.class_names(found)) > diagrams.FEW


def _missing(found: Workdir, name: str) -> str:
  if name in PREDICTIONS and any(r.predictions for r in found.runs):
    return ""  # Too many classes, or a single modality.
  return _MISSING[name]


_ALT = {
  "accuracy": "Validation accuracy over epochs",
  "alpha": "The weight α over epochs",
  "loss": "Loss terms over epochs",
  "gap": "Features of the modalities in two dimensions",
  "reliability": "Accuracy over confidence on test",
  "classes": "Accuracy of each modality on each class",
  "confusion": "Confusion matrix of the fused predictions",
}
_MISSING = {
  "accuracy": "No accuracies yet: no epoch is complete.",
  "alpha": "No picture of α: this method has none, or no step is logged yet.",
  "loss": "No losses yet: no step is logged.",
  "gap": "No picture of the features: they are saved when training is done.",
  **dict.fromkeys(
    PREDICTIONS,
    "No predictions of single test samples: they are saved when training is "
    "done.",
  ),
}


def _seeds(found: Workdir) -> str:
  return " Thin: each seed; thick: their mean." if len(found.runs) > 1 else ""


def _accuracy_caption(found: Workdir) -> str:
  if len(found.modalities) < 2:
    return f"Accuracy on the validation split.{_seeds(found)}"
  return (
    "Accuracy on the validation split. The distance between the coloured lines "
    "is the gap between modalities. A modality far below the others is trained "
    "too little inside the fused model, or its read-out underrates it"
    f"{f' ({found.readout})' if found.readout else ''}.{_seeds(found)}"
  )


def _alpha_caption(found: Workdir) -> str:
  ends = [(y[0], y[-1]) for _, y in (r.alpha() for r in found.runs) if y.size]
  first, last = (sum(x) / len(x) for x in zip(*ends, strict=True))
  return (
    f"α, the weight of modality matching against classification, goes from "
    f"{first:.2f} to {last:.2f}. Dashed: the heuristic 1 − exp(−1/t) for "
    f"comparison.{_seeds(found)}"
  )


def _loss_caption(found: Workdir) -> str:
  text = "Loss terms in training, means over each epoch"
  if len(found.runs) == 1:
    text += " (faint: single steps)"
  left = figures.loss_terms(found)[1 + figures.MAX_TERMS :]
  rest = f" Not drawn, but in metrics.jsonl: {', '.join(left)}." if left else ""
  return (
    f"{text}; dashed: fused cross-entropy on the validation split. Where the "
    "model over-fits, it rises while the training loss falls."
    f"{rest}{_seeds(found)}"
  )


def _gap_caption(found: Workdir) -> str:
  run = next(r for r in found.runs if r.features)
  data = run.features or {}
  which = f" ({run.name})" if len(found.runs) > 1 else ""
  text = f"Test features of unit length{which}, first two components. "
  distances = features.pairs(data)
  if distances:
    lengths = ", ".join(f"{a}–{b} {d:.2f}" for (a, b), d in distances.items())
    text += (
      "Grey lines join the modalities of a sample, large marks are centroids. "
      f"Distance of the centroids before the projection: {lengths}."
    )
  if data["left_out"].size:
    names = ", ".join(map(str, data["left_out"]))
    text += f" Left out, for features of another size: {names}."
  return text


def _reliability_caption(found: Workdir) -> str:
  text = (
    "Reliability on test, 15 bins of equal width: how often predictions are "
    "right, against their confidence. Below the dashed line a read-out is "
    "overconfident. The area of a mark is the share of samples; ECE, the "
    "expected calibration error, is the mean distance from the line."
  )
  more = " Seeds put together; ECE: mean of the seeds."
  return text + (more if len(found.runs) > 1 else "")


def _classes_caption(found: Workdir) -> str:
  made = diagrams.by_class(found)
  assert made is not None
  order, own, _ = made
  names, (a, *rest) = diagrams.class_names(found), own
  values = np.stack(list(own.values()))
  widest = max(order, key=lambda c: np.ptp(values[:, c]))
  sides = (
    f", from where {a} leads to where {rest[0]} does" if len(rest) == 1 else ""
  )
  some = f" The {len(order)} widest gaps." if len(order) < len(names) else ""
  mean = " Means over seeds." if len(found.runs) > 1 else ""
  return (
    f"Accuracy on each class of test{sides}; a grey bar is the gap between the "
    f"modalities, widest for {names[widest]} "
    f"({100 * np.ptp(values[:, widest]):.0f} points).{some}{mean}"
  )


def _confusion_caption(found: Workdir) -> str:
  counts = diagrams.matrix(found)
  assert counts is not None
  mean = " All seeds together." if len(found.runs) > 1 else ""
  return (
    "Fused predictions on test, % of each true class: rows sum to 100. The "
    f"diagonal is right.{mean}"
  )


_CAPTIONS: dict[str, Callable[[Workdir], str]] = {
  "accuracy": _accuracy_caption,
  "alpha": _alpha_caption,
  "loss": _loss_caption,
  "gap": _gap_caption,
  "reliability": _reliability_caption,
  "classes": _classes_caption,
  "confusion": _confusion_caption,
}
