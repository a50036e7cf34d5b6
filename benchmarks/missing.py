"""What masks cost where nothing is missing: steps with and without them."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp

from benchmarks import cases, measure
from benchmarks.training import Table
from dmg_jax.types import Batch

NAME = "missing"
RECIPES = ("joint", "multitask", "ogm_ge", "lb")


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark; ``data`` is not used."""
  del data
  made = []
  for name in models:
    for recipe in RECIPES[:1] if quick else RECIPES:
      case = cases.make(name, recipe)
      batch = case.batch(16 if quick else case.batch_size)
      ways = {recipe: batch, f"{recipe}, masks": masked(batch)}
      steps = Table()
      for way, given in ways.items():
        steps.add(way, case.train_step(), case.state(), given)
      made += _entries(name, recipe, steps, 2 if quick else 151)
      if case.method.outer_step is None or quick:
        continue
      updates, what = Table(), "{}, update of α"
      for way, given in ways.items():
        args = case.state(), given, given
        updates.add(what.format(way), case.outer_step(), *args)
      made += _entries(name, what.format(recipe), updates, 31)
  return made


def _entries(
  name: str, base: str, table: Table, rounds: int
) -> list[measure.Entry]:
  samples = measure.interleaved(table.calls, rounds)
  return measure.entries(NAME, name, base, samples, table.costs)


def masked(batch: Batch) -> Batch:
  """The batch as data that may lack any modality give it, with all there."""
  there = jnp.ones(len(batch.labels), jnp.float32)
  return batch.replace(present=dict.fromkeys(batch.inputs, there))
