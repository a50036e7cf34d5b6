"""The facts about a run that are shown before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from dmg_jax.model import registry
from dmg_jax.training import experiment, seeds


def describe(
  setups: Sequence[experiment.Setup],
  workdir: Path,
  epochs: int,
  choice: seeds.Choice,
) -> dict[str, Any]:
  """Facts about runs: data, splits, parameters, recipe, seeds, device."""
  setup, count = setups[0], len(setups)
  config, spec = setup.config, setup.dataset.spec
  device = jax.devices()[0]
  options = {k: v for k, v in config.method.to_dict().items() if k != "name"}
  return {
    "recipe": config.recipe,
    "method": config.method.name,
    "options": options,
    "fusion": f"{config.fusion.name} ({registry.readout(config.fusion.name)})",
    "dataset": spec.name,
    "classes": len(spec.classes),
    "splits": dict(spec.sizes),
    "loading": _loading(setup),
    "encoders": {
      m: o.get("class", o["name"]) for m, o in setup.encoders.items()
    },
    "pretrained": setup.pretrained,
    "parameters": setup.parameters,
    "epochs": epochs,
    "batch_size": _batch_size(setup),
    "class_weights": config.train.class_weights,
    "sampler": "" if setup.chances is None else config.train.sampler,
    "seed": ", ".join(str(s.config.seed) for s in setups),
    "seeds": seeds.describe(choice, count) if count > 1 else "",
    "device": f"{jax.device_count()} x {device.device_kind}",
    "workdir": str(workdir),
  }


def _batch_size(setup: experiment.Setup) -> str:
  train, method = setup.config.train, setup.method
  text = _at_most(setup.batch_size, train.batch_size, "train")
  if method.outer_step is None:
    return text
  outer = setup.outer_batch_size
  outer = _at_most(outer, train.outer_batch_size, method.outer_split)
  return f"{text}, inner {setup.inner_batch_size}, outer {outer}"


def _at_most(actual: int, wanted: int, split: str) -> str:
  why = f" (not {wanted}: all that {split} has)" if actual < wanted else ""
  return f"{actual}{why}"


def _loading(setup: experiment.Setup) -> str:
  if setup.home is not None:
    return "from the device's memory"
  if setup.workers:
    return f"decoded by {setup.workers} processes"
  cached = setup.dataset.cached("train")
  return "from memory" if cached else "decoded by threads"
