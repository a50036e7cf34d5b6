"""Panels of Figure 4: the inputs on the left, then heat maps over epochs."""

from __future__ import annotations

from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dmg_jax.figures import _samples, gradcam
from dmg_jax.figures._parts import WIDE
from dmg_jax.report.curves import FONT, new_figure

SMALL = 6
_HOT = matplotlib.colormaps["inferno"]
_HIGH = 9.0  # Height of a page in inches.
_GAP = 0.12  # Gap between columns, relative to the width of a picture.
_MOST = 0.75  # Opacity of the heat at its largest value.


class PanelRow(NamedTuple):
  """One line of panels: one modality of one sample.

  Attributes:
    sample: index of the sample.
    modality: name of the modality.
    name: id of the sample.
    label: class of the sample.
    picture: the input, [h w 3] in [0, 1].
    last: whether this is the last modality of the sample.
  """

  sample: int
  modality: str
  name: str
  label: str
  picture: np.ndarray
  last: bool = True


class PanelColumn(NamedTuple):
  """Heat maps of one row of the grid, shown as a group of columns.

  Attributes:
    label: text above the columns.
    heat: {modality: [epochs n ... h w]}.
    kinds: {modality: kind}.
    below: probabilities shown below the maps, [epochs n].
  """

  label: str
  heat: dict[str, np.ndarray]
  kinds: dict[str, str]
  below: np.ndarray


def draw(
  columns: list[PanelColumn], epochs: tuple[int, ...], lines: list[PanelRow]
) -> Figure:
  """The figure with inputs and the heat maps of each row after ``epochs``."""
  ratios = [_ratio(x.picture) for x in lines]
  widths = [1.0, *[_GAP, *[1.0] * len(epochs)] * len(columns)]
  room = 0.35 + sum(0.17 if x.last else 0.07 for x in lines)
  most = max(_HIGH - room, 1.0) / sum(ratios)
  cell = min((WIDE - 0.35) / sum(widths), most, 1.1)
  height = sum(cell * r for r in ratios) + room
  figure = new_figure(height, cell * sum(widths) + 0.35)
  layout: Any = figure.get_layout_engine()
  layout.set(w_pad=0.008, h_pad=0.008, wspace=0, hspace=0)
  layout.set(rect=(0, 0, 1, 1 - 0.06 / height))  # Room above the names.
  axes = figure.subplots(
    len(lines),
    len(widths),
    squeeze=False,
    width_ratios=widths,
    height_ratios=ratios,
  )
  _inputs(axes[:, 0], lines)
  for i, column in enumerate(columns):
    first = 1 + i * (1 + len(epochs))
    for gap in axes[:, first]:
      gap.set_axis_off()
    _maps(axes[:, first + 1 : first + 1 + len(epochs)], column, epochs, lines)
  return figure


def _ratio(picture: np.ndarray) -> float:
  """Height divided by width, limited for long spectrograms."""
  high, wide = picture.shape[:2]
  return min(max(high / wide, 0.5), 1.25)


def _inputs(axes: Any, lines: list[PanelRow]) -> None:
  axes[0].set_title("\ninput", fontsize=SMALL + 1, pad=3)
  for place, line in zip(axes, lines, strict=True):
    _show(place, line.picture)
    name = _short(line.label, 14), _short(line.name, 14), line.modality
    place.set_ylabel("\n".join(name), fontsize=SMALL, labelpad=2)


def _maps(
  axes: Any, column: PanelColumn, epochs: tuple[int, ...], lines: list[PanelRow]
) -> None:
  axes[0, 0].annotate(
    column.label,
    (len(epochs) / 2, 1),
    (0, FONT + 5),
    xycoords="axes fraction",
    textcoords="offset points",
    ha="center",
    fontsize=FONT,
    annotation_clip=False,
  ).set_in_layout(False)
  for e, epoch in enumerate(epochs):
    # The empty line leaves room for the name of the column.
    axes[0, e].set_title(f"\nepoch {epoch}", fontsize=SMALL + 1, pad=3)
    for place, line in zip(axes[:, e], lines, strict=True):
      heat = column.heat.get(line.modality)
      if heat is None:
        place.set_axis_off()
        continue
      kind = column.kinds[line.modality]
      shown = _samples.upright(heat[e, line.sample], kind)
      _show(place, overlay(line.picture, shown))
      if line.last:
        text = f"p = {column.below[e, line.sample]:.2f}"
        place.set_xlabel(text, fontsize=SMALL, labelpad=1)


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
  """The picture in grey with the heat map on top, [h w 3].

  Args:
    picture: [h w 3] in [0, 1].
    heat: [h' w'], non-negative; it is divided by its largest value.
  """
  high, wide = picture.shape[:2]
  largest = float(heat.max())
  scaled = heat / largest if largest > 0 else np.zeros_like(heat)
  scaled = np.clip(gradcam.resized(scaled, high, wide), 0, 1)
  grey = picture @ np.array([0.299, 0.587, 0.114])
  base = np.repeat(grey[..., None], 3, axis=-1)
  share = _MOST * scaled[..., None] ** 0.7
  return base * (1 - share) + _HOT(scaled)[..., :3] * share


def _show(axes: Axes, picture: np.ndarray) -> None:
  axes.imshow(picture, aspect="auto", interpolation="nearest")
  axes.set_box_aspect(_ratio(picture))
  axes.set_xticks([])
  axes.set_yticks([])
  for side in axes.spines.values():
    side.set(visible=True, linewidth=0.3, color="#999999")


def _short(text: str, most: int) -> str:
  return text if len(text) <= most else f"{text[: most - 1]}…"
