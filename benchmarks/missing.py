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
  rounds = 2 if quick else 31
  made = []
  for name in models:
    for recipe in RECIPES[:1] if quick else RECIPES:
      made += _recipe(name, recipe, quick, rounds)
  return made


def _recipe(
  name: str, recipe: str, quick: bool, rounds: int
) -> list[measure.Entry]:
  table = Table()
  case = cases.make(name, recipe)
  batch = case.batch(16 if quick else case.batch_size)
  ways = {recipe: batch, f"{recipe}, masks": masked(batch)}
  for way, given in ways.items():
    table.add(way, case.train_step(), case.state(), given)
  if case.method.outer_step is not None and not quick:
    for way, given in ways.items():
      step = case.outer_step()
      table.add(f"{way}, update of α", step, case.state(), given, given)
  samples = measure.interleaved(table.calls, rounds)
  below = {n: n.replace(", masks", "") for n in samples}
  return measure.entries(NAME, name, recipe, samples, table.costs, below)


def masked(batch: Batch) -> Batch:
  """The batch as data that may lack any modality give it, with all there."""
  there = jnp.ones(len(batch.labels), jnp.float32)
  return batch.replace(present=dict.fromkeys(batch.inputs, there))
