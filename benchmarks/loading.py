"""Speed of data loading, and its share of a training step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import measure
from configs import openmoji
from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.load.loader import Loader
from data_pipelines.sets.openmoji import NAME as DATA
from data_pipelines.sets.openmoji import VERSION
from data_pipelines.transforms import image, text
from dmg_jax.training import steps
from dmg_jax.training.experiment import Setup, assemble
from dmg_jax.types import Batch

NAME = "loading"
RAW = "decoded from ArrayRecord"
RESIDENT = "steps, batch on the device"


def uncached(setup: Setup) -> core.Dataset:
  """The data set with every sample read and decoded on each access."""
  config, spec = setup.config.data, setup.dataset.spec
  folder = storage.folder_of(config.dir, DATA, VERSION)
  records: Any = storage.read(folder, "train", ("image",))
  vocabulary = text.WordVocabulary.build(r["text"].decode() for r in records)

  def decode(record: dict[str, Any]) -> core.Sample:
    inputs = {
      "image": image.decode(record["image"], config.image_size),
      "text": vocabulary.encode(record["text"].decode(), config.max_words),
    }
    label, key = int(record["label"]), record["id"].decode()
    return {"inputs": inputs, "label": label, "id": key}

  source = core.Decoded(records, decode)
  assert spec.modalities["text"].vocab_size == len(vocabulary)
  return dataclasses.replace(setup.dataset, sources={"train": source})


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark; ``data`` is the folder of prepared data."""
  del models
  config = openmoji.get_config("joint")
  config.data.dir = str(data)
  setup = assemble(config)
  rounds, count = (2, 4) if quick else (15, 30)
  size, cached = config.train.batch_size, setup.dataset
  raw = uncached(setup)

  def loader(dataset: core.Dataset, augment: bool) -> Loader:
    return Loader(dataset, "train", size, seed=0, augment=augment)

  calls = {
    RAW: _batches(loader(raw, False), count),
    "decoded and augmented": _batches(loader(raw, True), count),
    "cached": _batches(loader(cached, False), count),
    "cached and augmented": _batches(loader(cached, True), count),
    "stream of all this": _stream(loader(cached, True), count),
  }
  fed = _steps(setup, loader(cached, True), count)
  made = []
  for base, group in ((RAW, calls), (RESIDENT, fed)):
    samples = measure.interleaved(group, rounds)
    made += measure.entries(NAME, "openmoji", base, samples)
  for entry in made:
    seconds = entry.values["seconds"]["median"]
    entry.values["batches"] = count
    entry.values["samples_per_second"] = count * size / seconds
  return made


def _batches(loader: Loader, count: int) -> measure.Call:
  """Batches made one by one in the caller's thread."""
  return lambda: [loader.batch(i) for i in range(count)][-1]


def _stream(loader: Loader, count: int) -> measure.Call:
  """Batches from a stream that is opened anew, so that none are prefetched."""
  return lambda: list(_taken(loader, count))[-1]


def _taken(loader: Loader, count: int) -> Iterator[Batch]:
  with contextlib.closing(loader.stream()) as stream:
    yield from itertools.islice(stream, count)


def _steps(setup: Setup, loader: Loader, count: int) -> dict[str, Any]:
  """Training steps fed by a stream, and steps on a batch on the device."""
  program = steps.make_train_step(setup.problem, setup.method, setup.apply)
  step = functools.partial(program, seed=0)
  batch, held = setup.place(loader.batch(0)), [setup.fresh(), setup.fresh()]

  def resident():
    for _ in range(count):
      held[0], metrics = step(held[0], batch)
    return metrics

  def fed():
    for host in _taken(loader, count):
      held[1], metrics = step(held[1], setup.place(host))
    return metrics

  return {RESIDENT: resident, "steps, batches from the stream": fed}
