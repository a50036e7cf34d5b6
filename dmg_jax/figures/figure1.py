r"""Figure 1: fitting labels widens the gap between modalities.

Test accuracy, fused and of each modality, as a function of the weight w of the
uniform label in (1-w) L_S + w L_U (see ``methods/label_fitting.py``). The lower
panel shows the gap, the largest minus the smallest unimodal accuracy. Lines are
means over seeds, and bars are one standard deviation (n - 1).

Deviations from the paper:

1. The paper compares L_S with 0.7 L_S + 0.3 L_U on Kinetics-Sounds; here w
   takes several values, on any data set.
2. The paper does not say which read-out gives the unimodal accuracy; here it is
   that of the fusion, which the CSV file names.
3. The paper does not give the number of seeds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmg_jax.evaluation.metrics import FUSED, GAP
from dmg_jax.figures._parts import Drawing, grids, spread
from dmg_jax.report.curves import WIDTH, Curve, label_ends, new_figure
from dmg_jax.report.figures import BLACK, COLOURS, GREY
from dmg_jax.tables import summary
from dmg_jax.tables.summary import Column, Row
from dmg_jax.training.experiment import Config

_SCORE = "accuracy"


def draw(config: Config, workdir: Path) -> Drawing | None:
  """The figure from all finished runs; ``None`` if there are none."""
  grid = grids(config, workdir)[0]
  found = summary.collect(grid.config, grid.folder)
  rows = [r for r in found.rows if any(c.test for c in r.cells)]
  if not rows:
    return None
  first = next(c.test for r in rows for c in r.cells if c.test)
  heads = [FUSED, *summary.modalities(first)]
  heads += [GAP] if len(heads) > 2 else []
  lines = []
  for row in rows:
    weight = float(grid.config.rows[row.name].method.weight)
    lines.append(_line(weight, row, heads))
  lines.sort(key=lambda line: line["weight"])
  return Drawing(_figure(lines, heads), lines, [])


def _line(weight: float, row: Row, heads: list[str]) -> dict[str, Any]:
  """All numbers for one weight, in %."""
  line: dict[str, Any] = {"weight": weight}
  line["seeds"] = sum(bool(c.test) for c in row.cells)
  line["read-out"] = row.readout
  for head in heads:
    shares = row.values(Column(head, _SCORE, 0)).values()
    found = spread([100 * v for v in shares])
    line |= {f"{head} {kind}": value for kind, value in found.items()}
  return line


def _figure(lines: list[dict[str, Any]], heads: list[str]) -> Figure:
  """The figure: accuracies in the upper panel, the gap in the lower one."""
  figure = new_figure(3.3 if GAP in heads else 2.3, WIDTH)
  count = 2 if GAP in heads else 1
  axes = figure.subplots(
    count, 1, sharex=True, squeeze=False, height_ratios=(2.2, 1)[:count]
  )[:, 0]
  own = [h for h in heads if h not in (FUSED, GAP)]
  colours = {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(own)}
  _panel(figure, axes[0], lines, {FUSED: BLACK, **colours}, "accuracy (%)")
  if count > 1:
    _panel(figure, axes[1], lines, {GAP: GREY}, "gap (points)", 0.0)
  axes[-1].set_xlabel("weight w of the uniform label")
  figure.align_ylabels()
  return figure


def _panel(
  figure: Figure,
  axes: Axes,
  lines: list[dict[str, Any]],
  colours: dict[str, str],
  ylabel: str,
  lowest: float | None = None,
) -> None:
  """Draws a line per quantity; error bars are shifted so as not to overlap."""
  axes.grid(axis="y", color="#e3e3e3", lw=0.5)
  axes.set_axisbelow(True)
  axes.set_ylabel(ylabel)
  curves = []
  apart = 0.008 * (lines[-1]["weight"] - lines[0]["weight"])
  for i, (head, colour) in enumerate(colours.items()):
    found = [x for x in lines if x[f"{head} mean"] == x[f"{head} mean"]]
    x = np.array([line["weight"] for line in found])
    y = np.array([line[f"{head} mean"] for line in found])
    bars = np.array([line[f"{head} std"] or 0.0 for line in found])
    width = 1.8 if head == FUSED else 1.3
    axes.plot(x, y, color=colour, lw=width, marker="o", ms=3)
    if bars.any():
      beside = x + apart * (i - (len(colours) - 1) / 2)
      look = {"elinewidth": 0.8, "capsize": 1.5, "ecolor": colour}
      axes.errorbar(beside, y, bars, fmt="none", **look)
    curves.append(Curve(head, colour, [(x, y)]))
  if lowest is not None:
    axes.set_ylim(bottom=lowest)
  label_ends(figure, axes, curves)
