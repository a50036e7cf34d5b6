"""Pictures of training: losses, α, accuracies, features.

As wide as a column of a paper (3.3 in). Nothing of matplotlib's global state
changes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, NullFormatter

from dmg_jax.report import diagrams, features
from dmg_jax.report.curves import (
  FONT,
  HEIGHT,
  Curve,
  label_ends,
  new_axes,
  new_figure,
  plot,
  with_data,
)
from dmg_jax.report.reading import Points, RunFiles, Workdir, over_epochs
from dmg_jax.report.style import (
  BLACK,
  COLOURS,
  GREY,
  MARKERS,
  modality_colours,
  save_all,
)

MAX_POINTS = 300
MAX_TERMS = 4


def draw_all(found: Workdir, folder: Path) -> dict[str, Path]:
  """Draws what there is data for.

  Returns:
    {"loss" | "alpha" | "accuracy" | "gap" | "reliability" | "confusion" |
    "classes": path of its PNG}; a PDF lies beside each.
  """
  draw: dict[str, Callable[[Workdir], Figure | None]] = {
    "loss": loss,
    "alpha": alpha,
    "accuracy": accuracy,
    "gap": gap,
    "reliability": diagrams.reliability,
    "confusion": diagrams.confusion,
    "classes": diagrams.classes,
  }
  makers = {k: functools.partial(make, found) for k, make in draw.items()}
  return save_all(makers, folder)


def loss_terms(found: Workdir) -> list[str]:
  """Loss terms of all runs; the picture shows ``loss`` and ``MAX_TERMS``."""
  return list(dict.fromkeys(k for r in found.runs for k in r.terms()))


def loss(found: Workdir) -> Figure | None:
  """Loss terms of training, epoch by epoch, and the loss on val."""
  names = loss_terms(found)[: 1 + MAX_TERMS]
  colours = dict(
    zip((k for k in names if k != "loss"), COLOURS, strict=False), loss=BLACK
  )
  curves = [
    Curve(
      "train loss" if k == "loss" else k,
      colours.get(k, GREY),
      [_by_epoch(r, k) for r in found.runs],
    )
    for k in names
  ]
  val = [r.series("val", "fused/loss") for r in found.runs]
  curves.append(Curve("val, fused", GREY, val, "--"))
  curves = with_data(curves)
  if not curves:
    return None
  figure, axes = new_axes("loss")
  plot(axes, curves)
  if len(found.runs) == 1:  # Single steps, faint, behind the means.
    for k in names:
      x, y = found.runs[0].series("train", k)
      axes.plot(x, y, color=colours.get(k, GREY), lw=0.5, alpha=0.3, zorder=1)
  values = np.concatenate([y for c in curves for _, y in c.runs])
  if values.min() > 0 and values.max() > 30 * values.min():
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
  elif values.min() >= 0:
    axes.set_ylim(bottom=0)
  label_ends(figure, axes, curves)
  return figure


def alpha(found: Workdir) -> Figure | None:
  """α of each epoch; dashed, the heuristic ``1 - exp(-1/t)``."""
  curve = Curve("α", COLOURS[0], [r.alpha() for r in found.runs])
  if not with_data([curve]):
    return None
  t = np.arange(1.0, max(x[-1] for x, _ in curve.runs if x.size) + 1)
  heuristic = Curve("heuristic", GREY, [(t, -np.expm1(-1 / t))], "--", 1.0)
  figure, axes = new_axes("α, weight of matching")
  curves = [heuristic, *with_data([curve])]
  plot(axes, curves)
  axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
  label_ends(figure, axes, curves)
  return figure


def accuracy(found: Workdir) -> Figure | None:
  """Accuracy on val of the fused and of each unimodal read-out."""
  colours = {"fused": BLACK, **modality_colours(found.modalities)}
  curves = with_data(
    [
      Curve(
        m,
        colour,
        [_percent(r.series("val", f"{m}/accuracy")) for r in found.runs],
        width=1.8 if m == "fused" else 1.3,
      )
      for m, colour in colours.items()
    ]
  )
  if not curves:
    return None
  figure, axes = new_axes("validation accuracy (%)")
  plot(axes, curves)
  label_ends(figure, axes, curves)
  return figure


def gap(found: Workdir) -> Figure | None:
  """Test features of all modalities in one plane; grey lines join pairs."""
  run = next((r for r in found.runs if r.features), None)
  if run is None or run.features is None:
    return None
  figure = new_figure(HEIGHT + 0.5)
  axes = figure.add_subplot()
  plane(axes, run.features, modality_colours(found.modalities))
  share = 100 * run.features["explained"]
  axes.set_xlabel(f"component 1 ({share[0]:.0f} % of variance)")
  axes.set_ylabel(f"component 2 ({share[1]:.0f} %)")
  axes.set_aspect("equal", "datalim")
  axes.locator_params(nbins=5)
  figure.legend(
    loc="outside upper center",
    ncols=3,
    frameon=False,
    handletextpad=0.1,
    markerscale=2,
  )
  return figure


def plane(
  axes: Axes, data: Mapping[str, np.ndarray], colours: Mapping[str, str]
) -> None:
  """Features, centroids and distances, as ``features.save_features`` has them.

  Args:
    axes: to be drawn on.
    data: contents of ``test_features.npz``.
    colours: {modality: colour}.
  """
  points, centroids = data["points"], data["centroids"]
  some = np.linspace(0, points.shape[1] - 1, MAX_POINTS).round().astype(int)
  shown = points[:, np.unique(some)]
  joins = LineCollection(
    list(np.swapaxes(shown, 0, 1)), color="#b5b5b5", lw=0.3, alpha=0.6, zorder=1
  )
  axes.add_collection(joins)
  for i, name in enumerate(map(str, data["modalities"])):
    look = {"color": colours.get(name, GREY), "marker": MARKERS[i % 6]}
    axes.scatter(*shown[i].T, s=5, lw=0, alpha=0.65, label=name, **look)
    axes.scatter(*centroids[i].T, s=70, ec="white", lw=1.2, zorder=5, **look)
  _distances(axes, data)


def _distances(axes: Axes, data) -> None:
  """Lines between centroids; lengths from before the projection."""
  where = dict(
    zip(map(str, data["modalities"]), data["centroids"], strict=True)
  )
  for (a, b), distance in features.pairs(data).items():
    ends = np.stack([where[a], where[b]])
    axes.plot(*ends.T, color=BLACK, lw=1.1, zorder=4)
    axes.annotate(
      f"{distance:.2f}",
      ends.mean(axis=0),
      ha="center",
      va="center",
      fontsize=FONT,
      zorder=6,
      bbox={"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none"},
    )


def _by_epoch(run: RunFiles, name: str) -> Points:
  table = np.array(list(over_epochs(run.series("train", name))))
  table = table.reshape(-1, 2)
  return table[:, 0], table[:, 1]


def _percent(points: Points) -> Points:
  return points[0], 100 * points[1]
