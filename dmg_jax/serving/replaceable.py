"""What may be replaced: files that an earlier prediction or export wrote."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dmg_jax.errors import InputError
from dmg_jax.model.encoders.pretrained import WRITTEN

_PREDICTION = "_prediction"
MISSING = "missing"  # The column of what samples lack.


def check_table(path: Path) -> None:
  """Refuses to replace a file that is not a table of predictions.

  Raises:
    ValueError: another file is there; the message names it.
  """
  if path.exists() and not _is_predictions(_header(path)):
    raise InputError(
      f"{path} is there and is no table of predictions: it is not replaced. "
      "Choose another file (--config.eval.output), or move that one away"
    )


def check_export(
  folder: Path,
  modalities: Iterable[str],
  encoder_files: Sequence[str],
  program_files: Sequence[str],
  facts: Iterable[str],
) -> None:
  """Refuses to replace anything but an earlier export.

  Args:
    folder: to export to.
    modalities: names of the folders of encoders in it.
    encoder_files: all that such a folder holds, the weights first.
    program_files: the program, and the JSON file about it.
    facts: keys that the JSON file has.

  Raises:
    ValueError: other files are there; the message names one.
  """
  if folder.exists() and not folder.is_dir():
    raise InputError(f"an export needs a folder, {folder} is a file")
  found = [folder / m for m in modalities]
  strange = [p for p in found if p.exists() and not p.is_dir()]
  strange += [
    p
    for place in found
    if place.is_dir()
    for p in place.iterdir()
    if p.name not in encoder_files
  ]
  weights = [place / encoder_files[0] for place in found]
  strange += [p for p in weights if p.exists() and not _is_own(p)]
  about = folder / program_files[-1]
  if about.exists() and not {*facts} <= _keys(about):
    strange.append(about)
  if strange:
    raise InputError(
      f"{strange[0]} is there and is no file of an export: it is not replaced. "
      "Choose another folder, or move that one away"
    )


def _is_own(weights: Path) -> bool:
  """Whether ``pretrained.write_tensors`` wrote these weights."""
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(weights, "numpy") as file:
      return WRITTEN.items() <= dict(file.metadata() or {}).items()
  except (OSError, SafetensorError):
    return False


def _keys(path: Path) -> set[str]:
  """The keys of a JSON file; empty if it is another file."""
  try:
    return {*dict(json.loads(path.read_text(encoding="utf-8")))}
  except (OSError, ValueError, TypeError):
    return set()


def _header(path: Path) -> list[str]:
  """The columns of a table; empty if the file is none."""
  try:
    if path.suffix.lower() == ".parquet":
      import pyarrow.parquet

      return list(pyarrow.parquet.read_schema(path).names)
    with path.open(encoding="utf-8", newline="") as file:
      return next(csv.reader(file), [])
  # Readers raise anything about a file of another kind.
  except Exception:
    return []


def _is_predictions(columns: Sequence[Any]) -> bool:
  """Whether these are the columns that ``prediction_table.write`` writes."""
  rest = list(columns)
  if rest[:1] != ["id"]:
    return False
  rest = rest[2:] if rest[1:2] == ["label"] else rest[1:]
  rest = rest[1:] if rest[:1] == [MISSING] else rest
  heads = [c.removesuffix(_PREDICTION) for c in rest if c.endswith(_PREDICTION)]
  count = len(heads)
  shares = rest[count:]
  if not heads or rest[:count] != [f"{h}{_PREDICTION}" for h in heads]:
    return False
  classes = [
    c.removeprefix(f"{heads[0]}:") for c in shares[: len(shares) // count]
  ]
  return shares == [f"{h}:{c}" for h in heads for c in classes]
