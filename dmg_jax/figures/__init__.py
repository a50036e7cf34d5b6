"""The paper's figures: a grid of runs, then a drawing of what they left.

``draw`` of each ``figure<i>`` needs the runs' files; Figure 4 needs their
checkpoints and data, too.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from dmg_jax.figures import figure1, figure2, figure3, figure4
from dmg_jax.figures._parts import Drawing, Grid, grids
from dmg_jax.report.curves import look, save
from dmg_jax.tables import cells, grid
from dmg_jax.tracking.logging import Console, replace
from dmg_jax.training.experiment import Config

__all__ = ["check", "draw", "grids", "run"]

_FIGURES = {
  "figure1": figure1.draw,
  "figure2": figure2.draw,
  "figure3": figure3.draw,
  "figure4": figure4.draw,
}


def run(
  config: Config, workdir: Path, console: Console, command: str | None = None
) -> int:
  """Does this process's share of the runs, then draws what there is.

  Args:
    config: as ``configs/figures.py`` makes it.
    workdir: of the figure.
    console: where to say what happens.
    command: the command line, for the reports of the runs.

  Returns:
    Exit code: 1 if a run ended by an error, else 0.

  Raises:
    ValueError: a config that cannot work, or a folder of another one.
    core.DataError: the data cannot be read.
  """
  check(config, workdir)
  code = 0
  for one in grids(config, workdir):
    code |= grid.run(one.config, one.folder, console, command)
    if _stopped(one):
      return code
  draw(config, workdir, console)
  return code


def check(config: Config, workdir: Path) -> None:
  """What can be known to be wrong before anything is done.

  Raises:
    ValueError: a value out of its range; or samples or runs not to be had.
  """
  if config.figure.name == "figure4":
    figure4.prepare(config)
  for one in grids(config, workdir):
    cells.check(one.config)
  if config.figure.name == "figure3":
    figure3.check(config, workdir)


def draw(config: Config, workdir: Path, console: Console) -> None:
  """Writes ``<figure>.png``, ``.pdf`` and ``.csv`` with all runs that are done.

  Args:
    config, workdir, console: as for ``run``; the config is checked.

  Raises:
    ValueError: a folder holds a run of another config.
  """
  missing = sum(one.missing for one in grids(config, workdir))
  name = config.figure.name
  with look():
    drawing = _FIGURES[name](config, workdir)
    if drawing is None:
      console.note("nothing to draw yet: no run of the figure is finished")
      return
    _write(drawing, workdir, name)
  if missing:
    console.note(f"drawn without {missing} runs that are not finished")
  for sentence in drawing.notes:
    console.note(sentence)
  console.note(f"figure: {workdir / name}.png (also .pdf, .csv)")


def _write(drawing: Drawing, workdir: Path, name: str) -> None:
  workdir.mkdir(parents=True, exist_ok=True)
  save(drawing.figure, workdir / f"{name}.png")
  replace(workdir / f"{name}.csv", _csv(drawing.lines).encode())
  if drawing.arrays:
    file = io.BytesIO()
    arrays: dict[str, Any] = dict(drawing.arrays)
    np.savez_compressed(file, **arrays)
    replace(workdir / f"{name}.npz", file.getvalue())


def _csv(lines: list[dict[str, Any]]) -> str:
  """A line each, numbers with six digits, empty where there is none."""
  file = io.StringIO()
  rows = csv.writer(file, lineterminator="\n")
  rows.writerow(lines[0])
  for line in lines:
    rows.writerow([_shown(v) for v in line.values()])
  return file.getvalue()


def _shown(value: Any) -> str:
  if isinstance(value, float):
    return f"{value:.6g}" if value == value else ""
  return "" if value is None else str(value)


def _stopped(one: Grid) -> bool:
  """Whether a signal ended this process's share before its end."""
  own = cells.finals(one.config, one.folder)
  own = own[one.config.shard :: one.config.shards]
  return any(
    cells.results(one.config, c) is None and cells.failure(c) is None
    for c in own
  )
