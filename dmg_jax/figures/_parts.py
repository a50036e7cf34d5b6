"""Types that all figures share: grids of runs and drawings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from dmg_jax.report.reading import RunFiles, read
from dmg_jax.tables import cells, summary
from dmg_jax.training import run_folder
from dmg_jax.training.experiment import Config

WIDE = 6.8  # Inches: both columns of a two-column page.
_OWN = ("figure", "sets")


class Grid(NamedTuple):
  """The runs of a figure on one data set.

  Attributes:
    name: name of the data set; folder and file for a manifest.
    config: config of the grid, like that of a table.
    folder: folder that holds the rows.
  """

  name: str
  config: Config
  folder: Path

  def runs(self, row: str) -> dict[int, RunFiles]:
    """{seed: logs} of the finished runs of a row."""
    own = [c for c in cells.finals(self.config, self.folder) if c.row == row]
    done = [c for c in own if cells.results(self.config, c) is not None]
    return {c.seed: read(c.folder).runs[0] for c in done}

  @property
  def missing(self) -> int:
    """Number of runs that are not finished."""
    own = cells.finals(self.config, self.folder)
    return sum(cells.results(self.config, c) is None for c in own)


class Drawing(NamedTuple):
  """A figure and the numbers behind it.

  Attributes:
    figure: the Matplotlib figure.
    lines: lines of the CSV file, {column: value}, all with the same columns.
    notes: sentences that a reader needs.
    arrays: contents of the NPZ file, which is not written if this is empty.
  """

  figure: Figure
  lines: list[dict[str, Any]]
  notes: list[str]
  arrays: Mapping[str, np.ndarray] = {}


def grids(config: Config, workdir: Path) -> list[Grid]:
  """The grid of the figure, or one per data set (each with its own folder)."""
  if "table" not in config:
    return []
  fields = {k: v for k, v in config.to_dict().items() if k not in _OWN}
  first: Config = ConfigDict(fields)
  several = config.figure.name == "figure3"
  found = [first]
  for other in config.sets.values():
    one: Config = ConfigDict(other.to_dict())
    # All data sets are divided among processes in the same way.
    one.update(shard=config.shard, shards=config.shards)
    found.append(one)
  return [
    Grid(name, one, workdir / name if several else workdir)
    for name, one in ((run_folder.data_name(c), c) for c in found)
  ]


def spread(values: list[float]) -> dict[str, float | None]:
  """``{"mean": .., "std": ..}``; std is ``None`` for a single value."""
  return {"mean": summary.mean(values), "std": summary.std(values)}
