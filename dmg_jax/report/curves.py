"""Shared style of plots, and curves that are labelled at their right ends."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dmg_jax.report import fonts
from dmg_jax.report.reading import Points
from dmg_jax.tracking.logging import replace

WIDTH, HEIGHT = 3.3, 2.3  # Inches.
FONT = 8
STYLE: dict[Any, Any] = {
  "font.size": FONT,
  "axes.labelsize": FONT,
  "axes.linewidth": 0.6,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "xtick.labelsize": 7,
  "ytick.labelsize": 7,
  "xtick.major.width": 0.6,
  "ytick.major.width": 0.6,
  "legend.fontsize": FONT,
  "lines.solid_capstyle": "round",
  "pdf.fonttype": 42,  # Text stays selectable.
  "text.parse_math": False,  # Names are data, so a $ is just a $.
}
_DATELESS = {"CreationDate": None}  # The same figure is the same file.


@contextlib.contextmanager
def look() -> Iterator[None]:
  """Applies the style of all plots without changing Matplotlib's defaults."""
  style = {**STYLE, "font.family": fonts.families()}
  with fonts.one_warning(), matplotlib.rc_context(style):
    yield


class Curve(NamedTuple):
  """One quantity, with one line per run."""

  label: str
  colour: str
  runs: list[Points]
  style: str = "-"
  width: float = 1.3


def with_data(curves: Sequence[Curve]) -> list[Curve]:
  """``curves`` without empty runs, and without curves that have no run left."""
  kept = [c._replace(runs=[p for p in c.runs if p[0].size]) for c in curves]
  return [c for c in kept if c.runs]


def new_figure(height: float, width: float = WIDTH) -> Figure:
  """An empty figure of this size in inches, independent of pyplot."""
  figure = Figure(figsize=(width, height), layout="constrained")
  FigureCanvasAgg(figure)
  return figure


def save(figure: Figure, path: Path) -> None:
  """Writes ``path`` as a PNG of 300 dpi, and a PDF with the same name.

  Both are written whole or not at all: readers see the old or the new one.

  Raises:
    WriteError: they cannot be written.
  """
  _save(figure, path, format="png", dpi=300)
  _save(figure, path.with_suffix(".pdf"), format="pdf", metadata=_DATELESS)


def _save(figure: Figure, path: Path, **options: Any) -> None:
  file = io.BytesIO()
  figure.savefig(file, **options)
  replace(path, file.getvalue(), "--workdir")


def new_axes(ylabel: str) -> tuple[Figure, Axes]:
  """A figure of column width, and its axes with epochs on the x-axis."""
  figure = new_figure(HEIGHT)
  axes = figure.add_subplot()
  axes.set_xlabel("epoch")
  axes.set_ylabel(ylabel)
  axes.grid(axis="y", color="#e3e3e3", lw=0.5)
  axes.set_axisbelow(True)
  axes.xaxis.set_major_locator(
    MaxNLocator(6, integer=True, steps=[1, 2, 5, 10])
  )
  return figure, axes


def plot(axes: Axes, curves: Sequence[Curve]) -> None:
  """Draws one line per curve: the mean over runs, with single runs thin."""
  for c in curves:
    main = mean(c.runs)
    for x, y in c.runs if len(c.runs) > 1 else ():
      axes.plot(x, y, c.style, color=c.colour, lw=0.6, alpha=0.4)
    single = "." if main[0].size == 1 else None
    axes.plot(*main, c.style, color=c.colour, lw=c.width, marker=single)


def mean(runs: Sequence[Points]) -> Points:
  """The mean over runs, up to the length of the shortest."""
  size = min(x.size for x, _ in runs)
  return runs[0][0][:size], np.mean([y[:size] for _, y in runs], axis=0)


def label_ends(figure: Figure, axes: Axes, curves: Sequence[Curve]) -> None:
  """Labels the right ends of the curves, without overlap."""
  axes.margins(x=0.02)
  figure.draw_without_rendering()
  height = axes.get_window_extent().height / figure.dpi * 72
  room = 1.2 * FONT / height
  ends = []
  for c in curves:
    x, y = mean(c.runs)
    at = axes.transAxes.inverted().transform(
      axes.transData.transform((x[-1], y[-1]))
    )
    ends.append((float(at[1]), c))
  ends.sort(key=lambda end: end[0])
  places = _spread([y for y, _ in ends], room)
  for place, (_, c) in zip(places, ends, strict=True):
    axes.annotate(
      c.label,
      (1.02, place),
      xycoords="axes fraction",
      va="center",
      color=c.colour,
      fontsize=FONT,
    )


def _spread(heights: Sequence[float], room: float) -> list[float]:
  """Ascending ``heights``, moved just enough to be ``room`` apart."""
  groups: list[list[float]] = []
  for height in heights:
    groups.append([height])
    while len(groups) > 1 and _middle(groups[-1]) - _middle(
      groups[-2]
    ) < room / 2 * (len(groups[-1]) + len(groups[-2])):
      last = groups.pop()
      groups[-1] += last
  return [
    _middle(g) + room * (i - (len(g) - 1) / 2)
    for g in groups
    for i in range(len(g))
  ]


def _middle(group: Sequence[float]) -> float:
  return math.fsum(group) / len(group)
