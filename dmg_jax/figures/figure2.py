"""Figure 2: the modality gap, with test features of all modalities in a plane.

There is one panel per row, from its first finished seed. It shows unit features
projected by one principal component analysis of all modalities together (see
``report/features.py``), a grey line between the modalities of each sample, and
large centroids; the axes state their fraction of the variance. All panels have
the same scale. The distance between centroids is taken before the projection,
``‖mean(z_a) - mean(z_b)‖`` of unit features, in [0, 2]. The title of a panel
gives its mean ± standard deviation over seeds; with more than two modalities,
the mean over pairs is used. The CSV file has every pair of every seed; the
points are in ``test_features.npz`` of each run.

Deviations from the paper:

1. The paper specifies neither its projection nor its distance. The distance
   here is that of Liang et al., "Mind the Gap", NeurIPS 2022.
2. The paper shows CONCAT, G-Blend, MLA and its own method on CREMA-D. The
   default here is joint, h and lb; ``rows=joint+gblend+mla+lb`` are the rows of
   the paper. Rows with their own projections or heads are not adjusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmg_jax.figures._parts import WIDE, Drawing, Grid, grids, spread
from dmg_jax.report import features
from dmg_jax.report.curves import FONT, WIDTH, new_figure
from dmg_jax.report.figures import COLOURS, plane
from dmg_jax.report.reading import RunFiles
from dmg_jax.training.experiment import Config

_PANELS = 3  # Panels per line.


def draw(config: Config, workdir: Path) -> Drawing | None:
  """The figure from all finished runs; ``None`` if there are none."""
  grid = grids(config, workdir)[0]
  rows = {r: _with_features(grid, r) for r in grid.config.table.rows}
  rows = {r: runs for r, runs in rows.items() if runs}
  if not rows:
    return None
  lines = [x for r, runs in rows.items() for x in _lines(grid, r, runs)]
  return Drawing(_figure(grid, rows), lines, [])


def _with_features(grid: Grid, row: str) -> dict[int, dict[str, np.ndarray]]:
  """{seed: projected features} of the runs that have them."""
  runs: dict[int, RunFiles] = grid.runs(row)
  return {s: r.features for s, r in runs.items() if r.features}


def _lines(grid: Grid, row: str, runs: dict) -> list[dict[str, Any]]:
  return [
    {
      "row": row,
      "label": grid.config.rows[row].label,
      "seed": seed,
      "modality a": a,
      "modality b": b,
      "distance": distance,
    }
    for seed, data in runs.items()
    for (a, b), distance in features.pairs(data).items()
  ]


def _figure(grid: Grid, rows: dict[str, dict[int, Any]]) -> Figure:
  """The figure, with panels from left to right and top to bottom."""
  across = min(len(rows), _PANELS)
  down = -(-len(rows) // across)
  width = WIDTH if across == 1 else WIDE
  figure = new_figure(0.35 + down * (width / across + 0.2), width)
  axes = figure.subplots(down, across, squeeze=False).ravel()
  first = {r: next(iter(runs.values())) for r, runs in rows.items()}
  names = dict.fromkeys(str(m) for d in first.values() for m in d["modalities"])
  colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(names)}
  for place, (row, data) in zip(axes, first.items(), strict=False):
    plane(place, data, colours)
    label = grid.config.rows[row].label
    place.set_title(f"{label}\n{_distance(rows[row])}", fontsize=FONT)
    one, two = 100 * data["explained"]
    place.set_xlabel(f"component 1 ({one:.0f} %)", fontsize=7)
    place.set_ylabel(f"component 2 ({two:.0f} %)", fontsize=7, labelpad=1)
  _same_scale(list(axes[: len(rows)]), list(first.values()))
  for place in axes[len(rows) :]:
    place.set_visible(False)
  handles = axes[0].get_legend_handles_labels()
  figure.legend(
    *handles,
    loc="outside lower center",
    ncols=6,
    frameon=False,
    handletextpad=0.1,
    markerscale=2,
  )
  return figure


def _distance(runs: dict[int, Any]) -> str:
  """Text such as ``distance 0.83 ± 0.02``, over all seeds of a row."""
  pairs = [list(features.pairs(d).values()) for d in runs.values()]
  if not pairs[0]:
    return "no distance: features differ in size"
  found = spread([float(np.mean(p)) for p in pairs])
  name = "distance" if len(pairs[0]) == 1 else "mean distance"
  if found["std"] is None:
    return f"{name} {found['mean']:.2f}"
  return f"{name} {found['mean']:.2f} ± {found['std']:.2f}"


def _same_scale(axes: list[Axes], data: list[dict[str, np.ndarray]]) -> None:
  """Gives all panels the same scale, each centred on its own points."""
  ends = [
    (d["points"].min(axis=(0, 1)), d["points"].max(axis=(0, 1))) for d in data
  ]
  half = 0.54 * max(float((high - low).max()) for low, high in ends)
  for place, (low, high) in zip(axes, ends, strict=True):
    x, y = (low + high) / 2
    place.set_xlim(x - half, x + half)
    place.set_ylim(y - half, y + half)
    place.set_aspect("equal", "box")
    place.locator_params(nbins=4)
    place.tick_params(labelsize=6)
