"""The paper's figures: runs a grid of runs, then draws their results.

``draw`` of each ``figure<i>`` reads the files of the runs; Figure 4 also needs
their checkpoints and the data.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.disk.faults import replace, writing
from dmg_jax import processes
from dmg_jax.figures import figure1, figure2, figure3, figure4
from dmg_jax.figures._parts import Drawing, Grid, grids
from dmg_jax.report.curves import look, save
from dmg_jax.tables import cells, grid
from dmg_jax.tracking.logging import Console
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
  """Runs this process's share of a figure, then draws all finished runs.

  Args:
    config: the config that ``configs/figures.py`` returns.
    workdir: folder of the figure.
    console: prints progress.
    command: the command line, for the reports of the runs.

  Returns:
    The exit code: 1 if a run ended with an error, else 0.

  Raises:
    ValueError: the config is invalid, or a folder holds a run of another one.
    core.DataError: the data cannot be read.
  """
  check(config, workdir)
  code = 0
  for one in grids(config, workdir):
    code |= grid.run(one.config, one.folder, console, command)
    if processes.decided(lambda grid=one: _stopped(grid)):
      return code
  if processes.several():  # Some pictures need a model, on one's own devices.
    console.note("the runs are done: draw them by one process, --mode=report")
  else:
    draw(config, workdir, console)
  return code


def check(config: Config, workdir: Path) -> None:
  """Checks the config of a figure before the first run.

  Raises:
    ValueError: a value is out of range, or samples or runs do not exist.
  """
  if config.figure.name == "figure4":
    figure4.prepare(config)
  for one in grids(config, workdir):
    cells.check(one.config)
  if config.figure.name == "figure3":
    figure3.check(config, workdir)


def draw(config: Config, workdir: Path, console: Console) -> None:
  """Writes ``<figure>.png``, ``.pdf`` and ``.csv`` from all finished runs.

  Args:
    config, workdir, console: as for ``run``; ``check`` has passed.

  Raises:
    ValueError: a folder holds a run of another config.
  """
  missing = sum(one.missing for one in grids(config, workdir))
  name = config.figure.name
  with look():
    drawing = _FIGURES[name](config, workdir)
    if drawing is None:
      console.note("nothing to draw: no run of the figure is finished yet")
      return
    _write(drawing, workdir, name)
  if missing:
    console.note(f"drawn without {missing} runs that are not finished")
  for sentence in drawing.notes:
    console.note(sentence)
  console.note(f"figure: {workdir / name}.png (also .pdf, .csv)")


def _write(drawing: Drawing, workdir: Path, name: str) -> None:
  with writing(workdir, f"{name}.png", "--workdir"):
    workdir.mkdir(parents=True, exist_ok=True)
    save(drawing.figure, workdir / f"{name}.png")
  replace(workdir / f"{name}.csv", _csv(drawing.lines).encode())
  if drawing.arrays:
    file = io.BytesIO()
    arrays: dict[str, Any] = dict(drawing.arrays)
    np.savez_compressed(file, **arrays)
    replace(workdir / f"{name}.npz", file.getvalue())


def _csv(lines: list[dict[str, Any]]) -> str:
  """CSV of ``lines``: numbers with six digits, missing values empty."""
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
  """Whether a signal ended this process's share of the runs early."""
  own = cells.finals(one.config, one.folder)
  own = own[one.config.shard :: one.config.shards]
  return any(
    cells.results(one.config, c) is None and cells.failure(c) is None
    for c in own
  )
