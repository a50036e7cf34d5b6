"""Sequences of any length, in buckets, against equal ones of the mean length.

An epoch of training steps: the same number of samples and, in all, of steps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from data_pipelines import manifest
from data_pipelines.manifest import memory
from dmg_jax.config import compose, own_data
from dmg_jax.training import experiment, steps
from dmg_jax.training.experiment import Setup

NAME = "ragged"
ENCODERS = {"GRU": "small.GRU", "Transformer": "small.Transformer"}
EQUAL, RAGGED = "equal lengths", "ragged"
# {case: (shortest, longest, whether there is a long tail)}
CASES = {
  "3 to 300 steps, uniform": (3, 300, False),
  "3 to 900 steps, log-normal": (3, 900, True),
}
MIDDLE = 60  # Median of the log-normal, whose logarithm has deviation 1.
NUMBERS, CLASSES, BATCH = 16, 4, 32


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark; ``models`` and ``data`` are not used."""
  del models, data
  count, rounds = (64, 1) if quick else (2048, 5)
  made = []
  for case in CASES:
    lengths = drawn(case, count)
    even = np.full(count, round(lengths.mean()))
    ways = {EQUAL: even, RAGGED: lengths}
    with tempfile.TemporaryDirectory() as folder:
      tables = {way: _prepared(folder, x) for way, x in ways.items()}
      for name, encoder in ENCODERS.items():
        calls = {
          f"{way}, {name}": _epoch(_setup(dataset, encoder))
          for way, dataset in tables.items()
        }
        samples = measure.interleaved(calls, rounds)
        shown = f"{case}, few samples" if quick else case
        made += measure.entries(NAME, shown, f"{EQUAL}, {name}", samples)
  return made


def drawn(case: str, count: int) -> np.ndarray:
  """Lengths of samples."""
  shortest, longest, tail = CASES[case]
  rng = np.random.default_rng(0)
  if not tail:
    return rng.integers(shortest, longest + 1, count)
  found = rng.lognormal(np.log(MIDDLE), 1.0, count).round().astype(int)
  return found.clip(shortest, longest)


def _prepared(folder: str, lengths: np.ndarray) -> Any:
  """The data set of a table in memory, as users' own."""
  rng = np.random.default_rng(1)
  splits = ("train", "train", "train", "test")
  made = memory.prepare(
    {
      "split": [splits[i % 4] for i in range(len(lengths))],
      "label": [f"class {i // 4 % CLASSES}" for i in range(len(lengths))],
      "sensor:array": [rng.normal(size=(t, NUMBERS)) for t in lengths],
      "view:array": [rng.normal(size=NUMBERS) for _ in lengths],
    },
    folder,
  )
  return manifest.load(folder, prepared=made.versions["key"])


def _setup(dataset: Any, encoder: str) -> Setup:
  config = own_data.get_config("joint")
  config.unlock()
  config.encoders["sensor"] = compose.encoder(encoder)
  config.train.batch_size = config.eval.batch_size = BATCH
  return experiment.assemble(config, dataset)


def _epoch(setup: Setup) -> measure.Call:
  """The steps of an epoch, its batches on the device, as runs order them."""
  program = steps.make_train_step(setup.problem, setup.method, setup.apply)
  loader = setup.loader("train", setup.batch_size, shuffle=True)
  count = loader.steps_per_epoch
  batches = [setup.place(loader.batch(i)) for i in range(count)]
  held = [setup.fresh()]

  def epoch():
    for batch in batches:
      held[0], found = program(held[0], batch, 0)
    return found

  return epoch
