"""The paper's figures: one command runs what a figure needs and draws it.

python launch.py --config=configs/figures.py:figure1,dataset=openmoji,seeds=3

The word after the colon is a figure:

- ``figure1``: label fitting. Accuracy of the modalities and the gap between
  them, as a function of the weight of the uniform label; the key
  ``weights=0+0.3+0.6`` sets the weights.
- ``figure2``: modality gap. Test features of all modalities in one plane, one
  panel per row; ``rows=joint+h+lb``.
- ``figure3``: α over training, compared with the heuristic. The key
  ``datasets=openmoji+crema_d`` may replace ``dataset=``; fields of the second
  and later data sets are set as ``--config.sets.crema_d.data.raw=FOLDER``.
  ``--config.figure.runs=DIR1,DIR2`` also draws existing runs, or only those if
  no data set is given; each folder is that of a run, of its seeds, or of a
  table row.
- ``figure4``: Grad-CAM over epochs for two rows side by side,
  ``rows=joint+lb``, on pictures, spectrograms and the middle frames of videos.
  It shows three test samples chosen at random by ``--config.figure.seed``, or
  those of ``--config.figure.samples=ID1,ID2``, at the epochs
  ``--config.figure.epochs=(1,7,30)``. A run keeps a checkpoint of each of the
  epochs that were requested when it was trained.

All else works as for tables, see ``configs/tables.py``: other keys, fields,
``--config.shard`` and resuming. Each run lies in
``<workdir>/<row>/seed_<i>`` (``figure3``: ``<workdir>/<data set>/<row>/...``).
``figure1.png``, ``.pdf`` and ``.csv`` are written to the work directory;
``--mode=report`` only draws them again.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from dmg_jax.config import compose, grid
from dmg_jax.config.recipes import RECIPES
from dmg_jax.config.rows.figures import FIGURES, WEIGHTS, FigureSpec
from dmg_jax.config.rows.tables import ROWS, RowSpec
from dmg_jax.model import registry

_FOLDER = Path(__file__).parent  # Holds the config files of the data sets.


def get_config(arg: str | None = None) -> compose.Config:
  """The config of ``<figure>,dataset=<name>[,key=value...]``.

  Raises:
    ValueError: a figure, data set, row or key is unknown; the message lists the
      choices.
  """
  keys = {name: f.keys for name, f in FIGURES.items()}
  name, given = grid.parse(arg, "figure", keys)
  figure = FIGURES[name]
  rows, datasets = _rows(figure, given), _datasets(name, given)
  made = [_one(arg, name, d, dict(given), rows) for d in datasets]
  config = made[0] if made else compose.base()
  with config.unlocked():
    config.figure = {"name": name, "title": figure.title, **figure.options}
    config.sets = dict(zip(datasets[1:], made[1:], strict=True))
    config.variant = arg or ""
  config.lock()
  return config


def _datasets(name: str, given: dict[str, str]) -> list[str]:
  """Names of the data sets, in order; ``figure3`` may have none."""
  if "datasets" not in FIGURES[name].keys:
    return [grid.dataset(name, given, _FOLDER)]
  both = [given.pop(k) for k in ("datasets", "dataset") if k in given]
  if len(both) > 1:
    raise ValueError("give either dataset=... or datasets=A+B, not both")
  names = both[0].split("+") if both else []
  if len(set(names)) < len(names):
    raise ValueError(f"datasets={both[0]} names a data set twice")
  return [grid.known_dataset(d, _FOLDER) for d in names]


def _rows(
  figure: FigureSpec, given: dict[str, str]
) -> list[str] | dict[str, RowSpec]:
  """Names of rows to look up, or {name: row}."""
  if "weights" in figure.keys:
    return _weights(given.pop("weights", ""))
  picked = given.pop("rows", "")
  return picked.split("+") if picked else list(figure.rows)


def _weights(text: str) -> dict[str, RowSpec]:
  """A row for each weight of the uniform label, ascending."""
  try:
    weights = [float(w) for w in text.split("+")] if text else list(WEIGHTS)
  except ValueError:
    weights = [-1.0]
  if not all(0 <= w <= 1 for w in weights):
    raise ValueError(
      "weights must be numbers in [0, 1], as in weights=0+0.3+0.6; "
      f"got {text!r}"
    )
  return {
    f"weight_{100 * w:g}".replace(".", "_"): RowSpec(
      f"w = {w:g}", f"label_fitting,weight={w!r}"
    )
    for w in sorted(set(weights))
  }


def _one(arg, name, dataset, given, wanted) -> compose.Config:
  """The config of the grid on one data set."""
  make = grid.maker(dataset, given, _FOLDER)
  config = grid.common_config(make, dataset)
  rows = wanted
  if not isinstance(wanted, dict):
    rows = grid.find_rows(wanted, dataset, tuple(config.encoders))
    _check_rows(name, rows)
  first = next(iter(rows))
  title = FIGURES[name].title
  facts = grid.facts(name, title, dataset, given, reference=first)
  return grid.assemble(arg, config, facts, rows, make, given)


def _check_rows(name: str, rows: dict[str, RowSpec]) -> None:
  """Refuses rows that lack what the figure draws."""
  alone = [r for r in rows if r.startswith("unimodal")]
  if alone and name == "figure2":
    raise ValueError(
      f"row {alone[0]!r} has one modality, hence no gap: choose other rows"
    )
  without = [r for r, row in rows.items() if not _has_alpha(row)]
  if without and name == "figure3":
    known = [r for r, row in ROWS.items() if _has_alpha(row)]
    raise registry.unknown("row with an α", without[0], known)


def _has_alpha(row: RowSpec) -> bool:
  method = RECIPES[compose.parse(row.recipe)[0]].method
  card = importlib.import_module(f"dmg_jax.methods.{method}").CARD
  return card.category == "matching"
