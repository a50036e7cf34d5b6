"""Data sets of the TMC papers: views, splits, scaling, what was printed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_pipelines.errors import DataError
from data_pipelines.tools import views


@dataclasses.dataclass(frozen=True)
class Set:
  """A data set and the settings of the authors' script for it.

  Attributes:
    source: file or folder below that of all data, for ``tools.views``.
    skip_rows: of CSV files.
    rate: learning rate; ``None`` is chosen within train.
    printed: {method: mean and deviation in %}, as the papers print them.
  """

  source: str
  skip_rows: int
  rate: float | None
  printed: Mapping[str, tuple[float, float]]


# TMC: ICLR 2021, Table 1. ETMC: TPAMI 2022.
SETS = {
  "handwritten": Set(
    "mfeat", 1, 3e-4, {"tmc": (98.51, 0.13), "etmc": (98.75, 0.00)}
  ),
  "scene15": Set(
    "multiview_mat/scene-15.mat",
    0,
    None,
    {"tmc": (67.74, 0.36), "etmc": (71.61, 0.28)},
  ),
}
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
HELD = 99  # Seed of the samples of train that choose a rate.
SCALES = ("apart", "train")


@dataclasses.dataclass(frozen=True)
class Part:
  """Samples: {view: [n d] float32} and labels [n] from 0."""

  views: dict[str, np.ndarray]
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)

  def rows(self, chosen: np.ndarray) -> Part:
    """Some of the samples."""
    return Part(
      {m: x[chosen] for m, x in self.views.items()}, self.labels[chosen]
    )


def read(name: str, folder: Path) -> Part:
  """All samples of a set, as they are in the file."""
  known = SETS[name]
  found, labels = views.read(folder / known.source, skip_rows=known.skip_rows)
  return Part(found, np.unique(labels, return_inverse=True)[1])


def divide(labels: np.ndarray, seed: int, share: float = 0.2) -> np.ndarray:
  """Whether a sample is test [n], ``share`` of each class, by the seed."""
  test = np.zeros(len(labels), bool)
  for k in np.unique(labels):
    own = np.flatnonzero(labels == k)
    order = np.random.default_rng([seed, int(k)]).permutation(own)
    test[order[: round(share * len(own))]] = True
  return test


def scaled(train: Part, test: Part, scale: str = "apart") -> tuple[Part, Part]:
  """Every number brought to [0, 1].

  Args:
    train, test: as read.
    scale: ``apart`` takes the extremes of train for train and those of test for
      test, as the authors' script does; ``train`` those of train for both.
  """

  def unit(part: Part, by: Part) -> Part:
    made = {}
    for m, x in part.views.items():
      least, most = by.views[m].min(axis=0), by.views[m].max(axis=0)
      width = np.where(most > least, most - least, 1)
      made[m] = ((x - least) / width).astype(np.float32)
    return Part(made, part.labels)

  return unit(train, train), unit(test, test if scale == "apart" else train)


def released(checkout: Path) -> tuple[Part, Part]:
  """Train and test of the file that the authors' checkout holds.

  Raises:
    DataError: the file is not there.
  """
  import scipy.io

  path = checkout / "TMC ICLR" / "datasets" / "handwritten_6views.mat"
  if not path.is_file():
    raise DataError(
      f"{path} is missing: --checkout names a clone of hanmenghan/TMC"
    )
  found = scipy.io.loadmat(path)
  count = sum(k.endswith("_train") and k[0] == "x" for k in found)
  return tuple(
    Part(
      {
        f"view_{v}": found[f"x{v}_{split}"].astype(np.float32)
        for v in range(1, count + 1)
      },
      found[f"gt_{split}"].ravel().astype(int) - 1,
    )
    for split in ("train", "test")
  )  # type: ignore[return-value]
