"""What frozen encoders save: a step and an epoch, with features computed once.

ResNet-50 on pictures of 224 pixels and BERT-base on texts of 32 tokens, random
weights. An epoch is its steps and the evaluation of val.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from data_pipelines import core
from dmg_jax.config import compose, own_data
from dmg_jax.evaluation import metrics
from dmg_jax.training import experiment, steps
from dmg_jax.training.experiment import Setup
from dmg_jax.training.inputs import features

NAME = "freezing"
TRAINED, EVERY, ONCE = "trained", "frozen, every step", "frozen, cached"
WORDS, CLASSES = 1000, 10


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark; ``models`` and ``data`` are not used."""
  del models, data
  rounds, size, count = (1, 32, 4) if quick else (3, 224, 3)
  config = _config(quick)
  dataset = _dataset(size, config.train.batch_size * count)
  ways = _setups(config, dataset)
  calls = {name: _calls(setup, count) for name, setup in ways.items()}
  case = "small" if quick else "resnet-50 + bert-base"
  made = []
  for kind in ("step", "epoch"):
    group = {f"{name}, {kind}": calls[name][kind] for name in ways}
    if kind == "epoch":
      frozen = ways[EVERY]
      group["features of all splits"] = functools.partial(_computed, frozen)
    samples = measure.interleaved(group, rounds)
    made += measure.entries(NAME, case, f"{TRAINED}, {kind}", samples)
  return made


def _config(quick: bool) -> Any:
  """Both encoders in their real shapes, or small ones of the same kind."""
  config = own_data.get_config("joint")
  config.unlock()
  net, bert = {"depth": 50}, {}
  if quick:
    net = {"depth": 18, "width": 8}
    bert = {"depth": 2, "width": 32, "heads": 2, "hidden": 64}
  config.encoders = {
    "image": compose.encoder("resnet.ResNet", **net),
    "text": compose.encoder("bert.Bert", **bert),
  }
  config.train.batch_size = config.eval.batch_size = 4
  return config


def _dataset(size: int, count: int) -> core.Dataset:
  """Random pictures and texts, in memory."""
  specs = {
    "image": core.ModalitySpec("image", (size, size, 3), np.uint8),
    "text": core.ModalitySpec("text", (32,), np.int32, WORDS),
  }
  sizes = {"train": count, "outer": 4, "val": count, "test": 4}
  sources = {}
  for number, (split, n) in enumerate(sizes.items()):
    rng = np.random.default_rng(number)
    inputs = {
      "image": rng.integers(0, 256, (n, size, size, 3), np.uint8),
      "text": rng.integers(1, WORDS, (n, 32), np.int32),
    }
    labels = rng.integers(0, CLASSES, n).astype(np.int32)
    ids = [str(i) for i in range(n)]
    sources[split] = core.Cached.of(core.Arrays(inputs, labels, ids, {}))
  classes = tuple(f"class {i}" for i in range(CLASSES))
  return core.Dataset(core.Spec("random", specs, classes, sizes), sources)


def _setups(config: Any, dataset: core.Dataset) -> dict[str, Setup]:
  """The run with trained encoders, with frozen ones, and on features."""
  trained = experiment.assemble(config, dataset)
  for m in config.encoders:
    config.encoders[m].frozen = True
  frozen = experiment.assemble(config, dataset)
  cache = features.Cache(frozen, lambda said: None)
  (cached,) = cache.of([frozen], Path(), 0)
  return {TRAINED: trained, EVERY: frozen, ONCE: cached}


def _calls(setup: Setup, count: int) -> dict[str, measure.Call]:
  """A training step on the device, and an epoch of steps with val after it."""
  program = steps.make_train_step(setup.problem, setup.method, setup.apply)
  evaluated = metrics.make_eval_step(setup.problem, setup.method)
  loader = setup.loader("train", setup.batch_size, augment=True)
  batch, held = setup.place(loader.batch(0)), [setup.fresh()]

  def step():
    held[0], found = program(held[0], batch, 0)
    return found

  def epoch():
    for i in range(count):
      held[0], found = program(held[0], setup.place(loader.batch(i)), 0)
    metrics.evaluate(evaluated, held[0], setup.batches("val"))
    return found

  return {"step": step, "epoch": epoch}


def _computed(setup: Setup) -> Any:
  data = features.compute(setup, setup.fresh(), setup.problem.frozen)
  return data.sources["train"][0]["inputs"]
