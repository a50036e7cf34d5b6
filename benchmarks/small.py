"""A small run by its command: what it costs beside its steps.

1,260 steps of three ``small.MLP`` in processor's seconds, process start to end,
with what is compiled and with it read from the cache.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import measure

NAME = "small"
BASE = 9.0  # Seconds that the run should take at most.
_ROOT = Path(__file__).resolve().parent.parent
_WIDTHS = {"one": 64, "two": 32, "three": 16}
_SPLITS = {"train": 1344, "outer": 356, "val": 300, "test": 400}
_WAYS = {
  "cold": [],
  "warm": [],
  "warm, with the report": ["--config.report=on"],
  "warm, 42 steps a call": ["--config.train.steps_per_execution=42"],
}
_OTHER = list(_WAYS)[2:]


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark in fresh processes, one after the other."""
  del models, data
  made = []
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    _write(folder)
    for recipe in ("joint",) if quick else ("joint", "lb"):
      samples: dict[str, list[float]] = {}
      for turn in range(1 if quick else 3):
        cache = folder / f"{recipe}{turn}"
        for way, words in _WAYS.items():
          took = _run(folder, recipe, cache, words)
          if way in _OTHER:  # Its programs were not in the cache.
            took = _run(folder, recipe, cache, words)
          samples.setdefault(way, []).append(took)
      case = f"1,260 steps, {recipe}"
      made += [_entry(case, way, took) for way, took in samples.items()]
  return made


def _entry(case: str, way: str, seconds: list[float]) -> measure.Entry:
  spreads = [
    dataclasses.asdict(measure.Spread.of([s / d for s in seconds]))
    for d in (1.0, BASE)
  ]
  values, ratios = ({"seconds": s} for s in spreads)
  return measure.Entry(NAME, case, way, f"{BASE:g} s", values, ratios)


def _write(folder: Path) -> None:
  """A table of arrays whose class means differ, ten classes."""
  rng = np.random.default_rng(0)
  means = {m: rng.normal(size=(10, d)) for m, d in _WIDTHS.items()}
  rows = []
  for split, count in _SPLITS.items():
    for label in rng.integers(0, 10, count):
      files = []
      for m, mean in means.items():
        noise = 2 * rng.normal(size=mean.shape[1])
        files.append(f"{m}_{len(rows)}.npy")
        np.save(folder / files[-1], (mean[label] + noise).astype(np.float32))
      rows.append([*files, f"class {label}", split])
  with (folder / "table.csv").open("w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow([*(f"{m}:array" for m in means), "label", "split"])
    writer.writerows(rows)


def _run(folder: Path, recipe: str, cache: Path, words: list[str]) -> float:
  """Processor's seconds of the command, with those of its threads."""
  with tempfile.TemporaryDirectory() as work:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
      [
        *(sys.executable, "launch.py"),
        f"--config=configs/manifest.py:{recipe},epochs=30,batch_size=32",
        f"--config.data.manifest={folder / 'table.csv'}",
        f"--config.data.dir={folder / 'data'}",
        f"--workdir={work}/run",
        "--config.report=off",
        f"--compilation_cache={cache}",
        *words,
      ],
      cwd=_ROOT,
      env={k: v for k, v in os.environ.items() if not k.startswith("JAX_")},
      capture_output=True,
      text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
  if done.returncode:
    raise RuntimeError(f"the process failed: {done.stderr[-2000:]}")
  return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
