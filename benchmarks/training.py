"""Cost of a training step and of an epoch for several recipes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from benchmarks import cases, measure

NAME = "training"
STEP, EPOCH = "joint", "constant, epoch"
RECIPES = (
  "joint",
  "constant",
  "multitask",
  "ogm_ge",
  "mla",
  "lb",
  "lb_forward",
)
# As on CREMA-D: 27 steps per epoch, one outer step on a quarter of the batch.
STEPS, SHARE = 27, 4
# {epoch: (recipe of its steps, its outer step)}
EPOCHS = {
  EPOCH: ("constant", None),
  "lb, epoch": ("lb", "lb, outer step on B/4"),
  "lb, epoch with B": ("lb", "lb, outer step on B"),
  "lb_forward, epoch": ("lb_forward", "lb_forward, outer step"),
}


def stepper(step: Callable, state: Any, *batches: Any) -> measure.Call:
  """A call of the compiled step that continues from the previous state."""
  held = [state]

  def call():
    held[0], metrics = step(held[0], *batches)
    return metrics

  return call


class Table:
  """Collects calls and costs by name."""

  def __init__(self):
    self.calls: dict[str, measure.Call] = {}
    self.costs: dict[str, dict[str, float]] = {}

  def add(self, name, step, state, *batches, loops=False):
    program = measure.compiled(step, state, *batches)
    self.costs[name] = measure.cost(program, loops)
    self.calls[name] = stepper(program, state, *batches)


def measure_case(name: str, quick: bool, rounds: int) -> list[measure.Entry]:
  """Entries for steps of all recipes on one model, and for epochs."""
  table = Table()
  size = 16 if quick else cases.make(name).batch_size
  for recipe in RECIPES[:2] if quick else RECIPES:
    case = cases.make(name, recipe)
    batch = case.batch(size)
    table.add(recipe, case.train_step(), case.state(), batch)
    _add_outer(table, recipe, case, size)
  samples = measure.interleaved(table.calls, rounds)
  made = measure.entries(NAME, name, STEP, samples, table.costs)
  for entry in made:
    if "outer" not in entry.name:
      entry.values["samples_per_second"] = (
        size / entry.values["seconds"]["median"]
      )
  return made + _epochs(name, samples, table.costs)


def _add_outer(table: Table, recipe: str, case: cases.Case, size: int) -> None:
  """Adds the outer steps of a recipe, if it has any."""
  small, whole = case.batch(max(size // SHARE, 2)), case.batch(size)
  inner_batches = {
    "lb": {"lb, outer step on B/4": small, "lb, outer step on B": whole},
    "lb_forward": {"lb_forward, outer step": small},
  }
  for label, inner in inner_batches.get(recipe, {}).items():
    # The terms of the Neumann series are a loop, except on a CPU.
    loops = recipe == "lb" and jax.default_backend() != "cpu"
    step, state = case.outer_step(), case.state()
    table.add(label, step, state, inner, small, loops=loops)


def _epochs(name, samples, costs) -> list[measure.Entry]:
  """Entries for epochs, computed from steps; the base has a constant α."""
  made_samples, made_costs = {}, {}
  for epoch, (step, outer) in EPOCHS.items():
    if step not in samples or (outer and outer not in samples):
      continue
    last = samples[outer] if outer else [0.0] * len(samples[step])
    made_samples[epoch] = [
      STEPS * s + o for s, o in zip(samples[step], last, strict=True)
    ]
    flops = [costs[step].get("flops")]
    flops += [costs[outer].get("flops")] if outer else [0.0]
    made_costs[epoch] = {}
    if None not in flops:
      made_costs[epoch] = {"flops": STEPS * flops[0] + flops[1]}
  return measure.entries(NAME, name, EPOCH, made_samples, made_costs)


def run(quick: bool, models: list[str]) -> list[measure.Entry]:
  """Runs this benchmark and returns its entries."""
  rounds = 3 if quick else 15
  return [e for m in models for e in measure_case(m, quick, rounds)]
