"""The figures: what is drawn, of which rows, with which options.

A figure is a grid of runs, as a table is, and a drawing of them, which
``dmg_jax/figures`` makes.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Figure(NamedTuple):
  """One figure of the paper.

  Attributes:
    title: what it shows.
    rows: those of ``table_rows.ROWS`` that it needs, in order.
    keys: keys of its own after its name.
    options: fields ``config.figure.<name>``, with their defaults.
  """

  title: str
  rows: tuple[str, ...]
  keys: tuple[str, ...]
  options: dict[str, Any]


# Weights of the uniform label; the paper has 0 and 0.3.
WEIGHTS = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)

FIGURES = {
  "figure1": Figure(
    "Label fitting, accuracy against the weight of the uniform label",
    (),  # One a weight.
    ("weights",),
    {},
  ),
  "figure2": Figure(
    "Modality gap, test features of all modalities in one plane",
    ("joint", "h", "lb"),
    ("rows",),
    {},
  ),
  "figure3": Figure(
    "α over training, with the heuristic",
    ("lb",),
    ("rows", "datasets"),
    {
      "runs": "",  # Folders of runs that are there, DIR1,DIR2.
    },
  ),
  "figure4": Figure(
    "Grad-CAM over epochs",
    ("joint", "lb"),
    ("rows",),
    {
      "samples": "",  # Ids of test samples, A,B; by default drawn by seed.
      "count": 3,  # Samples to be drawn.
      "seed": 0,
      "epochs": (),  # By default 1, a quarter, half, and the last.
      "target": "label",  # Or predicted: the class whose logit is explained.
      "stage": -1,  # Of the encoder, whose maps are weighted; -1 is the last.
    },
  ),
}
