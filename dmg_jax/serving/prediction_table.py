"""Predictions as a table: a row a sample, CSV or Parquet."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.disk.faults import whole, writing
from dmg_jax.errors import InputError, MissingPackageError
from dmg_jax.serving import replaceable

ENDINGS = (".csv", ".parquet")


def check(path: Path) -> None:
  """Refuses a table that cannot be written, before any work is done.

  Raises:
    ValueError: another ending than ``ENDINGS``, a folder, or a file that is not
      a table of predictions.
    ModuleNotFoundError: Parquet without pyarrow.
  """
  if path.suffix.lower() not in ENDINGS:
    raise InputError(
      f"eval.output must end in {' or '.join(ENDINGS)}, got {str(path)!r}"
    )
  if path.is_dir():
    raise InputError(f"eval.output names a file, {path} is a folder")
  if path.suffix.lower() == ".parquet":
    _pyarrow()
  replaceable.check_table(path)


def write(
  path: Path,
  ids: Sequence[str],
  labels: Sequence[str] | None,
  probabilities: Mapping[str, np.ndarray],
  classes: Sequence[str],
  missing: Sequence[Sequence[str]] | None = None,
) -> None:
  """Writes predictions, whole or not at all; the ending tells the format.

  Args:
    path: of the table; its folder is made.
    ids: of the samples, [n].
    labels: names of the right classes, if they are known.
    probabilities: {"fused" or modality: [n k]}.
    classes: names, in order of the probabilities.
    missing: modalities that each sample lacks, [n]. They make the column
      ``missing``, joined by ``+``; what a modality that a sample lacks says
      stays empty.

  Raises:
    WriteError: it cannot be written.
  """
  columns: dict[str, Any] = {"id": list(ids)}
  if labels is not None:
    columns["label"] = list(labels)
  if missing is not None:
    columns[replaceable.MISSING] = ["+".join(gone) for gone in missing]
  there = {
    head: np.array([missing is None or head not in missing[i]
                    for i in range(len(p))], bool)
    for head, p in probabilities.items()
  }  # fmt: skip
  for head, p in probabilities.items():
    best = p.argmax(axis=-1)
    columns[f"{head}_prediction"] = [
      classes[int(i)] if known else None
      for i, known in zip(best, there[head], strict=True)
    ]
  for head, p in probabilities.items():
    own = np.ma.masked_array(p, np.repeat(~there[head][:, None], p.shape[1], 1))
    columns |= {f"{head}:{c}": own[:, i] for i, c in enumerate(classes)}
  path = path.resolve()  # What a link points to is written, not the link.
  with writing(path.parent, path.name, "--config.eval.output"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
      if path.suffix.lower() == ".parquet":
        _parquet(part, columns)
      else:
        _csv(part, columns)


def _csv(path: Path, columns: Mapping[str, Any]) -> None:
  shown = [
    ["" if v is np.ma.masked else f"{v:.6f}" for v in x]
    if isinstance(x, np.ma.MaskedArray)
    else ["" if v is None else v for v in x]
    for x in columns.values()
  ]
  with path.open("w", encoding="utf-8", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(columns)
    rows.writerows(zip(*shown, strict=True))


def _parquet(path: Path, columns: Mapping[str, Any]) -> None:
  pyarrow = _pyarrow()
  arrays = {
    name: pyarrow.array(np.asarray(x.data), mask=np.ma.getmaskarray(x))
    if isinstance(x, np.ma.MaskedArray)
    else pyarrow.array(x, "string")
    for name, x in columns.items()
  }
  pyarrow.parquet.write_table(pyarrow.table(arrays), path)


def _pyarrow():
  try:
    import pyarrow
    import pyarrow.parquet
  except ModuleNotFoundError as error:
    raise MissingPackageError(
      f"a Parquet table needs pyarrow ({error}): pip install -e '.[parquet]'"
    ) from error
  return pyarrow
