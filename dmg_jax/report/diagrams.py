"""Plots of test predictions: reliability, confusion, accuracy per class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dmg_jax.report import measures
from dmg_jax.report.curves import WIDTH, new_figure
from dmg_jax.report.predictions import FUSED, by_head
from dmg_jax.report.reading import Workdir
from dmg_jax.report.style import BLACK, GREY, modality_colours, modality_markers

WIDE = 6.9  # Inches: both columns of a two-column page.
FEW, MOST = 12, 30  # Most classes of a narrow matrix, and of any matrix.
_LETTERS = 20


def reliability(found: Workdir) -> Figure | None:
  """Accuracy against confidence in 15 bins; marks scale with sample counts.

  Samples of several seeds are pooled; the ECE is the mean over seeds.
  """
  runs = _predictions(found)
  if not runs:
    return None
  labels = np.concatenate([r["labels"] for r in runs])
  heads = list(by_head(runs[0]))
  looks = _looks(found)
  figure = new_figure(WIDTH - 0.4 + 0.17 * len(heads))
  axes = figure.add_subplot()
  axes.plot([0, 1], [0, 1], "--", color=GREY, lw=0.8, zorder=1)
  for head in (*(h for h in heads if h != FUSED), FUSED):
    p = np.concatenate([by_head(r)[head] for r in runs])
    bins = measures.reliability(p, labels)
    some = bins.count > 0
    x, y = bins.confidence[some], bins.accuracy[some]
    size = 9 + 130 * bins.count[some] / max(bins.count.sum(), 1)
    colour, marker = looks[head]
    ece = 100 * np.mean(errors(found)[head])
    axes.plot(x, y, color=colour, lw=0.9, alpha=0.7)
    dots = axes.scatter(x, y, size, color=colour, marker=marker, zorder=3)
    dots.set(edgecolor="white", linewidth=0.4, clip_on=False)
    dots.set_label(f"{head}, ECE {ece:.1f} %")
  axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
  axes.set_xlabel("confidence: largest probability")
  axes.set_ylabel("accuracy")
  _percent(axes, "xy")
  legend = figure.legend(
    loc="outside upper left", ncols=1, frameon=False, handletextpad=0.2
  )
  for handle in legend.legend_handles:
    handle.set_sizes([28])  # type: ignore[union-attr]
  return figure


def errors(found: Workdir) -> dict[str, list[float]]:
  """{"fused" or modality: expected calibration error of each seed}."""
  made: dict[str, list[float]] = {}
  for run in _predictions(found):
    for head, p in by_head(run).items():
      ece = measures.reliability(p, run["labels"]).ece
      made.setdefault(head, []).append(ece)
  return made


def confusion(found: Workdir) -> Figure | None:
  """Confusion matrix in % of each true class; ``None`` above 30 classes."""
  counts = matrix(found)
  if counts is None or len(counts) > MOST:
    return None
  names, k = _short(class_names(found)), len(counts)
  total = counts.sum(axis=1)
  share = 100 * counts / np.maximum(total, 1)[:, None]
  width = WIDTH if k <= FEW else WIDE
  figure = new_figure(min(0.9 * width, 0.3 * k + 1.3), width)
  axes = figure.add_subplot()
  axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
  size = 6.5 if k <= FEW else 5.5
  for i, j in np.argwhere(share >= 0.5):
    axes.text(
      j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=size,
      color="white" if share[i, j] > 55 else BLACK,
      weight="bold" if i == j else "normal",
    )  # fmt: skip
  axes.set_xticks(range(k), names, rotation=90, fontsize=6.5)
  axes.set_yticks(range(k), names, fontsize=6.5)
  axes.tick_params(length=0)
  axes.spines[:].set_visible(False)
  axes.set_xlabel("predicted (fused)")
  axes.set_ylabel("true class")
  return figure


def classes(found: Workdir) -> Figure | None:
  """Accuracy of each modality on each class, with the gap as a bar."""
  made = by_class(found)
  if made is None:
    return None
  order, own, fused = made
  names = _short(class_names(found))
  looks = _looks(found)
  figure = new_figure(0.17 * len(order) + 1.0)
  axes = figure.add_subplot()
  y = np.arange(len(order))[::-1]
  values = np.stack([a[order] for a in own.values()])
  ends = values.min(axis=0), values.max(axis=0)
  axes.barh(y, ends[1] - ends[0], 0.5, ends[0], color="#d3d3d3", zorder=1)
  for m, a in own.items():
    colour, marker = looks[m]
    axes.scatter(a[order], y, 22, color=colour, marker=marker, label=m,
                 zorder=3, lw=0)  # fmt: skip
  axes.scatter(fused[order], y, 60, color=BLACK, marker="|", lw=1.2,
               zorder=2, label=FUSED)  # fmt: skip
  axes.set_yticks(y, [names[c] for c in order], fontsize=6.5)
  axes.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(order) - 0.3))
  axes.set_xlabel("accuracy on the class")
  axes.grid(axis="x", color="#e3e3e3", lw=0.5)
  axes.set_axisbelow(True)
  axes.tick_params(axis="y", length=0)
  _percent(axes, "x")
  figure.legend(
    loc="outside upper center", ncols=4, frameon=False, handletextpad=0.1,
    columnspacing=1.2,
  )  # fmt: skip
  return figure


def matrix(found: Workdir) -> np.ndarray | None:
  """Counts of fused predictions [k k], summed over seeds."""
  runs = _predictions(found)
  if not runs:
    return None
  return np.sum(
    [measures.confusion(by_head(r)[FUSED], r["labels"]) for r in runs], axis=0
  )


ByClass = tuple[list[int], dict[str, np.ndarray], np.ndarray]


def by_class(found: Workdir) -> ByClass | None:
  """Order of the classes, {modality: accuracy [k]}, fused accuracy [k].

  Accuracies are means over seeds. With two modalities, classes are sorted from
  the largest lead of the first to the largest lead of the second; with more, by
  decreasing gap. At most 30 classes are kept, those with the widest gaps;
  classes without test samples are left out. ``None`` if there is nothing to
  compare.
  """
  runs = _predictions(found)
  if not runs or len(found.modalities) < 2:
    return None
  means = {
    h: np.mean([measures.by_class(by_head(r)[h], r["labels"]) for r in runs], 0)
    for h in by_head(runs[0])
  }
  fused = means.pop(FUSED)
  values = np.stack(list(means.values()))
  gap = measures.gaps(values)
  widest = [int(c) for c in np.argsort(-gap, kind="stable")]
  order = [c for c in widest if np.isfinite(gap[c])][:MOST]
  if len(values) == 2:
    order.sort(key=lambda c: values[1, c] - values[0, c])
  return order, means, fused


def class_names(found: Workdir) -> list[str]:
  """Names of the classes in the stored predictions."""
  return [str(c) for c in _predictions(found)[0]["classes"]]


def _predictions(found: Workdir) -> list[dict[str, np.ndarray]]:
  return [r.predictions for r in found.runs if r.predictions is not None]


def _looks(found: Workdir) -> Mapping[str, tuple[str, str]]:
  """{"fused" or modality: (colour, marker)}, as in other plots."""
  known = [h for r in _predictions(found) for h in by_head(r) if h != FUSED]
  modalities = list(dict.fromkeys([*found.modalities, *known]))
  colours, markers = modality_colours(modalities), modality_markers(modalities)
  return {FUSED: (BLACK, "X"), **{m: (colours[m], markers[m]) for m in colours}}


def _short(names: Sequence[str]) -> list[str]:
  """Names shortened in the middle, because long names often start alike."""
  half = _LETTERS // 2
  return [
    n if len(n) <= _LETTERS else f"{n[:half]}…{n[1 - half :]}" for n in names
  ]


def _percent(axes: Axes, which: str) -> None:
  for axis in which:
    getattr(axes, f"{axis}axis").set_major_formatter(
      PercentFormatter(1, decimals=0, symbol=" %")
    )
