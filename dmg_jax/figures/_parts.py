"""What the figures share: the grids they are of, and what drawing returns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from ml_collections import ConfigDict

from dmg_jax.report.reading import Run, read
from dmg_jax.tables import cells, summary
from dmg_jax.training.experiment import Config

WIDE = 6.8  # Inches, both columns of a paper.
_OWN = ("figure", "sets")


class Grid(NamedTuple):
  """The runs on one data set.

  Attributes:
    name: of the data set, a manifest's by its folder and file.
    config: as that of a table.
    folder: of its rows.
  """

  name: str
  config: Config
  folder: Path

  def runs(self, row: str) -> dict[int, Run]:
    """{seed: what a row's finished run has logged}."""
    own = [c for c in cells.finals(self.config, self.folder) if c.row == row]
    done = [c for c in own if cells.results(self.config, c) is not None]
    return {c.seed: read(c.folder).runs[0] for c in done}

  @property
  def missing(self) -> int:
    """How many runs are not finished."""
    own = cells.finals(self.config, self.folder)
    return sum(cells.results(self.config, c) is None for c in own)


class Drawing(NamedTuple):
  """A figure and the numbers behind it.

  Attributes:
    figure: to be saved.
    lines: of the CSV file, {column: value}, with the same columns each.
    notes: what the reader must know, sentences.
    arrays: of the NPZ file; no file if there are none.
  """

  figure: Figure
  lines: list[dict[str, Any]]
  notes: list[str]
  arrays: Mapping[str, np.ndarray] = {}


def grids(config: Config, workdir: Path) -> list[Grid]:
  """One, or those of the data sets of Figure 3, each in a folder of its own."""
  if "table" not in config:
    return []
  fields = {k: v for k, v in config.to_dict().items() if k not in _OWN}
  first: Config = ConfigDict(fields)
  several = config.figure.name == "figure3"
  found = [first]
  for other in config.sets.values():
    one: Config = ConfigDict(other.to_dict())
    # One command shares out the runs on all data sets alike.
    one.update(shard=config.shard, shards=config.shards)
    found.append(one)
  return [
    Grid(name, one, workdir / name if several else workdir)
    for name, one in ((summary.shown(c), c) for c in found)
  ]


def spread(values: list[float]) -> dict[str, float | None]:
  """``{"mean": .., "std": ..}`` of numbers; no std of a single one."""
  return {"mean": summary.mean(values), "std": summary.std(values)}
