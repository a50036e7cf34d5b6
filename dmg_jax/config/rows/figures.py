"""The paper's figures: title, rows, keys and options of each.

Like a table, a figure is a grid of runs; ``dmg_jax/figures`` draws them.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class FigureSpec(NamedTuple):
  """One figure of the paper.

  Attributes:
    title: what the figure shows.
    rows: the rows of ``table_rows.ROWS`` that it needs, in order.
    keys: keys after its name that only this figure has.
    options: fields of ``config.figure`` with their defaults.
  """

  title: str
  rows: tuple[str, ...]
  keys: tuple[str, ...]
  options: dict[str, Any]


# Weights of the uniform label; the paper has 0 and 0.3.
WEIGHTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)

FIGURES = {
  "figure1": FigureSpec(
    "Label fitting, accuracy against the weight of the uniform label",
    (),  # One row per weight.
    ("weights",),
    {},
  ),
  "figure2": FigureSpec(
    "Modality gap, test features of all modalities in one plane",
    ("joint", "h", "lb"),
    ("rows",),
    {},
  ),
  "figure3": FigureSpec(
    "α over training, with the heuristic",
    ("lb",),
    ("rows", "datasets"),
    {
      "runs": "",  # Folders of existing runs, DIR1,DIR2.
    },
  ),
  "figure4": FigureSpec(
    "Grad-CAM over epochs",
    ("joint", "lb"),
    ("rows",),
    {
      "samples": "",  # Ids of test samples, A,B; empty: chosen at random.
      "count": 3,  # Number of samples to choose.
      "seed": 0,  # Seed of that choice.
      "epochs": (),  # Empty: 1, a quarter, half, and the last.
      "target": "label",  # Class that is explained: label or predicted.
      "stage": -1,  # Encoder stage whose maps are weighted; -1 is the last.
    },
  ),
}
