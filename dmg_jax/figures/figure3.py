r"""Figure 3: α over training, on several data sets.

The x-axis is ``epoch / total epochs``, because runs differ in length; α is the
value at the last step of each epoch. The mean over seeds is thick, each seed
thin. The dashed line in the same colour is the heuristic
:math:`\omega(t) = 1 - e^{-1/t}` with the 1-based epoch t; on this axis it
depends on the number of epochs.

Deviations from the paper:

1. The paper draws the heuristic once, without stating the number of epochs;
   here each data set has its own, and runs of equal length share one in grey.
2. The paper does not give the number of seeds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dmg_jax.errors import InputError
from dmg_jax.figures._parts import Drawing, Grid, grids
from dmg_jax.report.curves import (
  Curve,
  label_ends,
  mean,
  new_axes,
  plot,
  with_data,
)
from dmg_jax.report.figures import BLACK, COLOURS, GREY
from dmg_jax.report.reading import RunFiles, read
from dmg_jax.training.experiment import Config


class AlphaCurves(NamedTuple):
  """α of some runs of the same length.

  Attributes:
    label: the data set, and the row if there are several.
    epochs: total number of epochs.
    runs: {seed or name: (epochs from 1, α of each epoch)}.
  """

  label: str
  epochs: int
  runs: dict[str, tuple[np.ndarray, np.ndarray]]


def check(config: Config, workdir: Path) -> None:
  """Checks that there is something to draw and that given folders hold runs.

  Raises:
    ValueError: there is neither a data set nor a run, or a folder holds no run.
  """
  if not grids(config, workdir) and not config.figure.runs:
    raise InputError(
      "figure3 needs a data set or runs: write figure3,dataset=..., or "
      "--config.figure.runs=DIR1,DIR2"
    )
  _given(config)


def draw(config: Config, workdir: Path) -> Drawing | None:
  """The figure from all finished runs; ``None`` if there are none."""
  own = [x for grid in grids(config, workdir) for x in _of_grid(grid)]
  found = [x for x in [*own, *_given(config)] if x.runs]
  if not found:
    return None
  lines = [y for x in found for y in _lines(x)]
  return Drawing(_figure(found), lines, [])


def _of_grid(grid: Grid) -> list[AlphaCurves]:
  """One line per row of the grid."""
  rows, lines = grid.config.table.rows, []
  for row in rows:
    label = grid.config.rows[row].label
    name = grid.name if len(rows) == 1 else f"{grid.name}, {label}"
    runs = {str(s): r for s, r in grid.runs(row).items()}
    lines.append(_line(name, runs, grid.config.train.epochs))
  return lines


def _given(config: Config) -> list[AlphaCurves]:
  """One line per folder of ``figure.runs``, finished or not.

  Raises:
    ValueError: a folder holds no run.
  """
  folders = [Path(x.strip()) for x in config.figure.runs.split(",") if x]
  return [_of_folder(folder.expanduser()) for folder in folders]


def _of_folder(folder: Path) -> AlphaCurves:
  seeds = sorted(folder.glob("seed_*/config.json"))
  own = [p.parent for p in seeds] or [folder]
  if not (own[0] / "config.json").exists():
    raise InputError(
      f"figure.runs: {folder} holds no run: give the folder of a run, of its "
      "seeds, or of a table row"
    )
  found = [read(p) for p in own]
  runs = {p.name: f.runs[0] for p, f in zip(own, found, strict=True)}
  line = _line(found[0].dataset, runs, found[0].epochs or 0)
  if not line.runs:
    raise InputError(
      f"figure.runs: the runs in {folder} have no α: choose other folders"
    )
  return line


def _line(label: str, runs: dict[str, RunFiles], epochs: int) -> AlphaCurves:
  """The line of several runs, without those that have no α."""
  made = {n: r.alpha() for n, r in runs.items()}
  made = {n: points for n, points in made.items() if points[0].size}
  lengths = [int((r.results or {}).get("epochs") or 0) for r in runs.values()]
  longest = max((int(x[-1]) for x, _ in made.values()), default=1)
  return AlphaCurves(label, max([epochs, longest, *lengths]), made)


def _lines(line: AlphaCurves) -> list[dict[str, Any]]:
  return [
    {
      "data set": line.label,
      "run": name,
      "epoch": int(t),
      "share of training": float(t) / line.epochs,
      "alpha": float(value),
      "heuristic": float(heuristic(t)),
    }
    for name, points in line.runs.items()
    for t, value in zip(*points, strict=True)
  ]


def heuristic(epoch: Any) -> Any:
  """ω(t) = 1 - exp(-1/t) of the 1-based epoch t."""
  return -np.expm1(-1.0 / np.asarray(epoch, float))


def _figure(found: list[AlphaCurves]) -> Figure:
  figure, axes = new_axes("matching weight α")
  axes.set_xlabel("epoch / total epochs")
  axes.xaxis.set_major_locator(MaxNLocator(5))
  curves = [
    Curve(
      line.label,
      COLOURS[i % len(COLOURS)],
      [(x / line.epochs, y) for x, y in line.runs.values()],
    )
    for i, line in enumerate(found)
  ]
  curves = with_data(curves)
  dashed = _heuristics(found)
  for c in dashed:
    axes.plot(*mean(c.runs), c.style, color=c.colour, lw=c.width, zorder=1.5)
  plot(axes, curves)
  axes.set_xlim(0, 1)
  axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
  label_ends(figure, axes, curves)
  _legend(axes, dashed)
  return figure


def _heuristics(found: list[AlphaCurves]) -> list[Curve]:
  """One grey curve if all runs have equal length, else one per data set."""
  same = len({x.epochs for x in found}) == 1
  curves = []
  for i, line in enumerate(found[:1] if same else found):
    t = np.arange(1.0, line.epochs + 1)
    colour = GREY if same else COLOURS[i % len(COLOURS)]
    curves.append(
      Curve("", colour, [(t / line.epochs, heuristic(t))], "--", 1.0)
    )
  return curves


def _legend(axes: Axes, dashed: list[Curve]) -> None:
  """Draws a legend for solid and dashed lines."""
  colours = {c.colour for c in dashed}
  dash = colours.pop() if len(colours) == 1 else BLACK
  handles = [
    Line2D([], [], color=BLACK, lw=1.3, label="learned"),
    Line2D([], [], color=dash, lw=1.0, ls="--", label="1 − exp(−1/t)"),
  ]
  axes.legend(handles=handles, frameon=False, loc="upper right")
