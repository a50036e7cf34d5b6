"""Time to open a prepared manifest of 100,000 rows."""

from __future__ import annotations

import csv
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from data_pipelines import core, manifest
from data_pipelines.core import decoded, storage

NAME = "opening"
BASE = "records one by one"
FIRST, AGAIN, TOUCHED = "opened first", "opened again", "opened, files touched"
_ROWS, _QUICK = 100_000, 2_000
_FILES = 1_000  # in one folder


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark on files of its own."""
  del models, data
  rows, rounds = (_QUICK, 1) if quick else (_ROWS, 3)
  with tempfile.TemporaryDirectory() as name:
    root = Path(name)
    table = write(root / "files", rows)
    made = manifest.prepare(root / "data", manifest=str(table))
    samples = measured(root / "data", table, Path(made.folder), rounds)
  return measure.entries(NAME, f"{rows:,} rows", BASE, samples)


def write(folder: Path, rows: int) -> Path:
  """A manifest of arrays and texts."""
  rng, lines = np.random.default_rng(0), []
  for i in range(rows):
    name = f"{i // _FILES}/{i}.npy"
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    np.save(folder / name, rng.normal(size=4).astype(np.float32))
    words = f"word{i % 50} and another{i % 77}"
    lines.append((("train", "test")[i % 5 == 0], "ab"[i % 2], name, words))
  path = folder / "table.csv"
  with path.open("w", encoding="utf-8", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(("split", "label", "sensor:array", "note:text"))
    writer.writerows(lines)
  return path


def measured(
  data: Path, table: Path, folder: Path, rounds: int
) -> dict[str, list[float]]:
  """{what: seconds of each round}; ``folder`` is that of the prepared data."""

  def opened() -> core.Dataset:
    return manifest.load(data, manifest=str(table))

  splits = opened().spec.sizes
  samples: dict[str, list[float]] = {}
  for _ in range(rounds):
    samples.setdefault(BASE, []).append(
      _seconds(lambda: [list(storage.read(folder, s)) for s in splits])
    )
    shutil.rmtree(folder / decoded.FOLDER, ignore_errors=True)
    for name in (FIRST, AGAIN):
      samples.setdefault(name, []).append(_seconds(opened))
    for path in table.parent.rglob("*.npy"):
      path.touch()
    samples.setdefault(TOUCHED, []).append(_seconds(opened))
  return samples


def _seconds(call: Callable[[], Any]) -> float:
  begin = time.perf_counter()
  call()
  return time.perf_counter() - begin
