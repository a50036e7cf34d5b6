"""The panels of Figure 4: inputs to the left, then maps over epochs."""

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
_MOST = 0.75  # Of the hottest place, the share of colour.


class Line(NamedTuple):
  """One modality of one sample.

  Attributes:
    sample: its number.
    modality: its name.
    name: the sample's.
    label: its class.
    picture: the input, [h w 3] in [0, 1].
  """

  sample: int
  modality: str
  name: str
  label: str
  picture: np.ndarray


class Column(NamedTuple):
  """One row of the grid, which stands in columns here.

  Attributes:
    label: above it.
    heat: {modality: [epochs n ... h w]}.
    kinds: {modality: kind}.
    below: what stands under each map, [epochs n].
  """

  label: str
  heat: dict[str, np.ndarray]
  kinds: dict[str, str]
  below: np.ndarray


def draw(
  columns: list[Column], epochs: tuple[int, ...], lines: list[Line]
) -> Figure:
  """Inputs, then each column's maps after these epochs."""
  across = 1.25 + len(columns) * len(epochs)
  cell = min(WIDE / across, 1.1)
  ratios = [max(x.picture.shape[0] / x.picture.shape[1], 0.4) for x in lines]
  ratios = [min(r, 1.6) for r in ratios]
  height = sum(cell * r + 0.17 for r in ratios) + 0.5
  figure = new_figure(height, min(cell * across + 0.2, WIDE))
  layout: Any = figure.get_layout_engine()
  layout.set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
  widths = [1.25, *[len(epochs)] * len(columns)]
  parts = figure.subfigures(1, len(widths), width_ratios=widths, squeeze=False)
  first, *others = parts[0]
  _inputs(first, lines, ratios)
  for part, column in zip(others, columns, strict=True):
    _maps(part, column, epochs, lines, ratios)
  return figure


def _inputs(part: Any, lines: list[Line], ratios: list[float]) -> None:
  part.suptitle(" ", fontsize=FONT)
  axes = part.subplots(len(lines), 1, squeeze=False, height_ratios=ratios)
  axes[0, 0].set_title("input", fontsize=SMALL + 1, pad=3)
  for place, line in zip(axes[:, 0], lines, strict=True):
    _show(place, line.picture)
    name = _short(line.label, 16), _short(line.name, 16), line.modality
    place.set_ylabel("\n".join(name), fontsize=SMALL, labelpad=2)
    place.set_xlabel(" ", fontsize=SMALL, labelpad=1)


def _maps(
  part: Any,
  column: Column,
  epochs: tuple[int, ...],
  lines: list[Line],
  ratios: list[float],
) -> None:
  part.suptitle(column.label, fontsize=FONT)
  axes = part.subplots(
    len(lines), len(epochs), squeeze=False, height_ratios=ratios
  )
  for e, epoch in enumerate(epochs):
    axes[0, e].set_title(f"epoch {epoch}", fontsize=SMALL + 1, pad=3)
    for place, line in zip(axes[:, e], lines, strict=True):
      heat = column.heat.get(line.modality)
      if heat is None:
        place.set_visible(False)
        continue
      kind = column.kinds[line.modality]
      shown = _samples.upright(heat[e, line.sample], kind)
      _show(place, overlay(line.picture, shown))
      text = f"p = {column.below[e, line.sample]:.2f}"
      place.set_xlabel(text, fontsize=SMALL, labelpad=1)


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
  """The picture in grey under the colours of the heat, [h w 3].

  Args:
    picture: [h w 3] in [0, 1].
    heat: [h' w'], not negative; scaled to its largest value.
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
  high, wide = picture.shape[:2]
  axes.set_box_aspect(min(max(high / wide, 0.4), 1.6))
  axes.set_xticks([])
  axes.set_yticks([])
  for side in axes.spines.values():
    side.set(visible=True, linewidth=0.3, color="#999999")


def _short(text: str, most: int) -> str:
  return text if len(text) <= most else f"{text[: most - 1]}…"
