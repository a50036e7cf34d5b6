"""Multi-view features, as benchmarks come: a manifest with an array a view.

  python -m data_pipelines.tools.views --source=100leaves.mat --out=data/leaves
  python -m data_pipelines.tools.views --source=mfeat --skip_rows=1 \
    --out=data/mfeat

The source is one of

=====================  ========================================================
file.mat               MATLAB, up to version 7: a cell array ``X`` of views,
                       [n d] (or [d n]) each, and labels ``Y`` [n 1]; other
                       names by ``--features`` and ``--labels``. Views are
                       called view_1, view_2, ...
folder of CSV files    a file a view, called as the file (``mfeat-fac.csv`` is
                       ``mfeat_fac``); rows in the same order in all; the last
                       column is the label
=====================  ========================================================

Splits are drawn class by class by the seed: ``--test`` of each class are test,
``--held_out`` are outer, as many val. Features are written as they are:
``configs/manifest.py`` standardises them by the training rows.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import DataError, InputError
from data_pipelines.manifest import table
from data_pipelines.tools import _folder


def write(
  source: str | os.PathLike,
  out: str | os.PathLike,
  features: str = "X",
  labels: str = "Y",
  skip_rows: int = 0,
  test: float = 0.2,
  held_out: float = 0.1,
  seed: int = 0,
) -> PreparedSummary:
  """Writes ``out`` with ``manifest.csv`` and a folder of ``.npy`` a view.

  Args:
    source: a .mat file or a folder of CSV files.
    out: a new or empty folder; it appears when all is in it.
    features, labels: variables of the .mat file.
    skip_rows: lines before the first row of each CSV file.
    test, held_out, seed: of the splits, ``_folder.draw_splits``.

  Raises:
    ValueError: an option out of its range.
    DataError: a source that is absent or damaged, views that differ in their
      rows or labels, a class too small for four splits; or ``out`` is not
      empty.
  """
  source, out = (pathlib.Path(p).expanduser() for p in (source, out))
  _folder.check_empty(out)
  if skip_rows < 0:
    raise InputError(f"skip_rows must be a whole number >= 0, got {skip_rows}")
  views, y = read(source, features, labels, skip_rows)
  splits = _folder.draw_splits(y, test, held_out, seed)
  said = [
    f"source: {source.name}",
    f"test={test} held_out={held_out} seed={seed}",
  ]
  with _folder.new_folder(out) as made:
    files = {name: _save(made / name, x) for name, x in views.items()}
    rows = zip(range(len(y)), splits, y, *files.values(), strict=True)
    header = ("id", "split", "label", *(f"{name}:array" for name in views))
    _folder.write_manifest(made, header, rows, said)
  notes = tuple(
    f"view {name}: {x.shape[1]} numbers" for name, x in views.items()
  )
  counts = _folder.count(zip(splits, y, strict=True))
  return PreparedSummary("views", str(out), counts, notes=notes)


def read(
  source: str | os.PathLike,
  features: str = "X",
  labels: str = "Y",
  skip_rows: int = 0,
) -> tuple[dict[str, np.ndarray], list[str]]:
  """The views of a source, {name: [n d] float32}, and the labels of its rows.

  Args:
    source, features, labels, skip_rows: as in ``write``.

  Raises:
    DataError: a source that is absent or damaged, views that differ in their
      rows or labels, or a number that is not finite.
  """
  source = pathlib.Path(source).expanduser()
  if source.is_dir():
    views, y = _from_folder(source, skip_rows)
  elif source.is_file():
    views, y = _from_mat(source, features, labels)
  else:
    raise DataError(f"no file or folder {source}: name one with --source")
  for name, x in views.items():
    if not np.isfinite(x).all():
      row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
      raise DataError(f"{source}: view {name!r}, row {row} is not finite")
  return views, y


def _save(folder: pathlib.Path, x: np.ndarray) -> list[str]:
  """A file for each row; their paths in the manifest."""
  folder.mkdir()
  for i, row in enumerate(x):
    np.save(folder / f"{i:06d}.npy", row)
  return [f"{folder.name}/{i:06d}.npy" for i in range(len(x))]


def _from_mat(
  path: pathlib.Path, features: str, labels: str
) -> tuple[dict[str, np.ndarray], list[str]]:
  import scipy.io

  try:
    found: dict[str, Any] = scipy.io.loadmat(path)
  except Exception as error:  # scipy, zlib and struct each have their own.
    raise DataError(
      f"{path} is no MATLAB file up to version 7: {error}"
    ) from error
  own = sorted(k for k in found if not k.startswith("__"))
  for option, name in (("features", features), ("labels", labels)):
    if name not in own:
      raise DataError(
        f"{path} has no variable {name!r}: name one of {', '.join(own)} with "
        f"--{option}"
      )
  y = _labels(path, found[labels])
  cells = found[features]
  if cells.dtype != object:
    raise DataError(
      f"{path}: {features} must be a cell array with a matrix a view, got "
      f"{cells.dtype} of shape {cells.shape}"
    )
  return {
    f"view_{i}": _view(path, f"{features}{{{i}}}", cell, len(y))
    for i, cell in enumerate(cells.ravel(), 1)
  }, y


def _labels(path: pathlib.Path, y: np.ndarray) -> list[str]:
  if y.dtype.kind not in "iufb" or y.size != max(y.shape, default=0):
    raise DataError(
      f"{path}: labels must be a row or column of numbers, got {y.dtype} of "
      f"shape {y.shape}"
    )
  return [f"{float(label):g}" for label in y.ravel()]


def _view(path: pathlib.Path, name: str, x: Any, rows: int) -> np.ndarray:
  """A view [n d] float32, turned where it is [d n]."""
  import scipy.sparse

  x = x.toarray() if scipy.sparse.issparse(x) else np.asarray(x)
  if x.ndim == 2 and x.shape[0] != rows and x.shape[1] == rows:
    x = x.T
  if x.dtype.kind not in "iufb" or x.ndim != 2 or len(x) != rows:
    raise DataError(
      f"{path}: {name} must be numbers [{rows} d], a row for each label, got "
      f"{x.dtype} of shape {x.shape}"
    )
  return x.astype(np.float32)


def _from_folder(
  path: pathlib.Path, skip_rows: int
) -> tuple[dict[str, np.ndarray], list[str]]:
  files = sorted(path.glob("*.csv"))
  if not files:
    raise DataError(f"{path} has no .csv files: name a folder of views")
  views, first = {}, None
  for file in files:
    try:
      x = np.loadtxt(
        file, delimiter=",", skiprows=skip_rows, ndmin=2, quotechar='"'
      )
    except (ValueError, OSError) as error:
      raise DataError(
        f"{file} is no table of numbers ({error}); leave out a header with "
        "--skip_rows=1"
      ) from error
    numbers = np.arange(x.shape[1] - 1)
    if len(numbers) > 2 and (x[0, :-1] - x[0, 0] == numbers).all():
      raise DataError(
        f"{file}: its first row counts the columns ({x[0, 0]:g}, {x[0, 1]:g}, "
        "...): leave the header out with --skip_rows=1"
      )
    if x.shape[1] < 2:
      raise DataError(f"{file} needs a column of labels after its features")
    y = _labels(file, x[:, -1])
    first = first or (file, y)
    if y != first[1]:
      raise DataError(
        f"{file} and {first[0]} differ in their labels or their number of "
        f"rows ({len(y)} and {len(first[1])}): rows must be the same samples"
      )
    name = table.modality_name(file.stem)
    if name in views:
      raise DataError(f"{file}: there is another view {name!r}, rename one")
    views[name] = x[:, :-1].astype(np.float32)
  assert first is not None
  return views, first[1]


def main(arguments: Sequence[str] | None = None) -> int:
  """The command; an error is one line and exit code 1."""
  made = _folder.parser("views", __doc__)
  made.add_argument("--source", required=True, help=".mat or folder of CSV")
  made.add_argument("--features", default="X", help="variable of the .mat")
  made.add_argument("--labels", default="Y", help="variable of the .mat")
  made.add_argument("--skip_rows", type=int, default=0, help="of each CSV")
  _folder.add_shares(made)
  return _folder.run(write, made, arguments)


if __name__ == "__main__":
  sys.exit(main())
