"""Plots of a table: one line per row, one point per seed."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmg_jax.evaluation.metrics import FUSED, GAP
from dmg_jax.report.curves import new_figure
from dmg_jax.report.style import (
  BLACK,
  GREY,
  modality_colours,
  modality_markers,
  save_all,
)
from dmg_jax.tables.summary import (
  NAMES,
  Column,
  Row,
  Summary,
  mean,
  std,
)

_LETTERS = 26


def draw_all(found: Summary, folder: Path) -> dict[str, Path]:
  """Draws the plots for which there are results, as PNG and PDF.

  Returns:
    {"fused" | "modalities" | "groups": path of the PNG}.
  """
  makers = {"fused": fused, "groups": groups, "modalities": modalities}
  return save_all(
    {k: functools.partial(make, found) for k, make in makers.items()}, folder
  )


def fused(found: Summary) -> Figure | None:
  """The first column: seeds, mean ± standard deviation, the paper's number."""
  column = found.columns[0]
  rows = [r for r in found.rows if r.values(column)]
  if not rows:
    return None
  figure, axes = _rows(rows, found.marks(column))
  for y, row in zip(_places(rows), rows, strict=True):
    values = 100 * np.array(list(row.values(column).values()))
    spread, middle = std(list(values)), mean(list(values))
    best = found.marks(column).get(row.name) == "best"
    colour = modality_colours(["fused"])["fused"] if best else BLACK
    if len(values) > 1:
      axes.scatter(
        values, np.full(len(values), y + 0.26), 7, color=GREY, lw=0, alpha=0.8
      )
    axes.errorbar(middle, y, xerr=spread, fmt="o", ms=4, lw=1.3, color=colour)
    theirs = found.reported(row, column)
    if theirs is not None:
      axes.scatter(theirs.mean, y, 22, marker="D", fc="white", ec=GREY, lw=0.9)
  axes.set_xlabel(f"{_name(column)} on test (%)")
  return figure


def groups(found: Summary) -> Figure | None:
  """The first column over the groups of rows: a line for each kind of row."""
  column, parts = found.columns[0], found.parts
  if len(parts) < 2:
    return None
  kinds = dict.fromkeys(r.base for part in parts for r in part.rows)
  lines = {
    kind: [
      100 * mean(list(row.values(column).values()))
      for row in (part.row(kind) for part in parts)
      if row is not None
    ]
    for kind in kinds
  }
  shown = {k: v for k, v in lines.items() if len(v) == len(parts)}
  if not np.isfinite([*shown.values()]).any():
    return None
  names = [*shown]
  colours, markers = modality_colours(names), modality_markers(names)
  figure = new_figure(2.4 + 0.2 * (len(names) // 2))
  axes = figure.add_subplot()
  places = np.arange(len(parts))
  for kind, values in shown.items():
    row = parts[0].row(kind)
    label = row.label.partition(" at ")[0] if row else kind
    style = {"color": colours[kind], "marker": markers[kind], "ms": 4}
    axes.plot(places, values, lw=1.3, label=label, **style)
  axes.set_xticks(places, [part.rows[0].group for part in parts])
  axes.set_ylabel(f"{_name(column)} on test (%)")
  axes.set_xlabel("rate of missing modalities")
  axes.grid(axis="y", color="#e3e3e3", lw=0.5)
  figure.legend(loc="outside upper center", ncols=2, frameon=False)
  return figure


def modalities(found: Summary) -> Figure | None:
  """Mean score of each modality; a grey bar is the gap between modalities."""
  columns = [c for c in found.columns if c.head not in (FUSED, GAP)]
  rows = [r for r in found.rows if all(r.values(c) for c in columns)]
  if len(columns) < 2 or not rows:
    return None
  names = [c.head for c in columns]
  colours, markers = modality_colours(names), modality_markers(names)
  figure, axes = _rows(rows, {})
  means = np.array(
    [[100 * mean(list(r.values(c).values())) for c in columns] for r in rows]
  )
  y = _places(rows)
  low, high = means.min(axis=1), means.max(axis=1)
  axes.hlines(y, low, high, color="#d3d3d3", lw=5, zorder=1)
  for i, m in enumerate(names):
    colour, marker = colours[m], markers[m]
    axes.scatter(means[:, i], y, 24, colour, marker=marker, label=m, lw=0)
  axes.set_xlabel(f"{NAMES[columns[0].score]} of a modality alone (%)")
  figure.legend(
    loc="outside upper center", ncols=4, frameon=False, handletextpad=0.1
  )
  return figure


def _rows(rows: list[Row], marks: dict[str, str]) -> tuple[Figure, Axes]:
  """Axes with the labels of the rows; that of the best row is bold."""
  figure = new_figure(0.23 * len(rows) + 0.85)
  axes = figure.add_subplot()
  labels = [
    r.label if len(r.label) <= _LETTERS else f"{r.label[: _LETTERS - 1]}…"
    for r in rows
  ]
  axes.set_yticks(_places(rows), labels)
  for tick, row in zip(axes.get_yticklabels(), rows, strict=True):
    best = marks.get(row.name) == "best"
    tick.set_fontweight("bold" if best else "normal")
  axes.set_ylim(-0.6, len(rows) - 0.4)
  axes.grid(axis="x", color="#e3e3e3", lw=0.5)
  axes.set_axisbelow(True)
  axes.tick_params(axis="y", length=0)
  axes.margins(x=0.08)
  return figure, axes


def _places(rows: list[Row]) -> np.ndarray:
  """Vertical positions of the rows; the first row is at the top."""
  return np.arange(len(rows), dtype=float)[::-1]


def _name(column: Column) -> str:
  return f"fused {column.name}" if column.head == FUSED else column.name
