"""Samples per second, each a picture (JPEG) and a sound, by several loaders.

If torch is installed, its ``DataLoader`` reads the same files with the same
functions. For each timing sample a stream is opened and closed again, so that
no two run at once; batches that it prefetched are not counted.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from benchmarks import _clips, measure
from data_pipelines import core
from data_pipelines.load.loader import Loader
from data_pipelines.sets import kinetics_sounds
from data_pipelines.sets._audio_video import media
from dmg_jax.training import resident, sharding

NAME = "throughput"
BASE = "decoded in turn"
SIZE = 224  # Side of crops.
MEMORY = "stream from memory, threads"
RESIDENT = "resident, crops on the device"
_WORKERS = os.cpu_count() or 1
_READY = 12  # Batches that a worker and its reader may have prefetched.
Open = Callable[[], Iterator[Any]]


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark on data that are made in a temporary folder."""
  del models, data
  rounds, count, clips, batch = (1, 2, 40, 8) if quick else (5, 24, 500, 16)
  with tempfile.TemporaryDirectory() as folder:
    files = _clips.write(Path(folder, "raw"), clips)["train"]
    fresh, cached = _datasets(Path(folder))
    ways = _ours(fresh, cached, batch)
    ways |= _torch(files, batch, count)
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds):
      for name in list(ways) if turn % 2 == 0 else reversed(ways):
        samples[name].append(_seconds(*ways[name], count) / (count * batch))
  torch = [name for name in ways if name.startswith(f"torch, {_WORKERS} ")]
  bases = {RESIDENT: MEMORY} | {f"stream, {_WORKERS} workers": b for b in torch}
  made = measure.entries(NAME, "image and audio", BASE, samples, bases=bases)
  for entry in made:
    entry.values["samples_per_second"] = 1 / entry.values["seconds"]["median"]
  return made


def _datasets(folder: Path) -> tuple[core.Dataset, core.Dataset]:
  """The data set decoded on each access, and the data set in memory."""
  load = functools.partial(
    kinetics_sounds.load,
    folder / "data",
    raw=str(folder / "raw"),
    annotations=str(folder / "raw"),
    image_size=SIZE,
    frames=1,
    seconds=_clips.SECONDS,
  )
  cached = load()
  with mock.patch.object(core, "cache_if_small", lambda source, _: source):
    return load(), cached


def _seconds(open_: Open, ready: int, count: int) -> float:
  """Seconds for ``count`` batches after those that were prefetched."""
  stream = open_()
  try:
    for _ in range(ready + 1):
      next(stream)
    begin = time.perf_counter()
    for _ in range(count):
      batch = next(stream)
    jax.block_until_ready(batch)
    return time.perf_counter() - begin
  finally:
    close = getattr(stream, "close", None)
    if close is not None:
      close()


def _ours(
  fresh: core.Dataset, cached: core.Dataset, batch: int
) -> dict[str, tuple[Open, int]]:
  """{name: (function that opens a stream, batches it may prefetch)}."""

  def loader(dataset: core.Dataset, workers: int = 0) -> Loader:
    return Loader(dataset, "train", batch, seed=0, workers=workers)

  def in_turn() -> Iterator[Any]:
    source, i = fresh.sources["train"], 0
    while True:
      yield [source[(i + k) % len(source)] for k in range(batch)]
      i += batch

  home = resident.Home(cached, sharding.make_mesh(batch))
  ways: dict[str, tuple[Open, int]] = {
    BASE: (in_turn, 0),
    "stream, threads": (loader(fresh).stream, _READY),
  }
  for workers in sorted({1, _WORKERS}):
    name = f"stream, {workers} worker{'s' * (workers > 1)}"
    opened = loader(fresh, workers).stream
    ways[name] = (opened, _READY * workers)
  ways[MEMORY] = (loader(cached).stream, _READY)
  on_device = home.loader(loader(cached), "train")
  ways[RESIDENT] = (on_device.stream, 0)
  return ways


def _torch(files, batch: int, count: int) -> dict[str, tuple[Open, int]]:
  """The same for torch's loader; empty without torch."""
  if importlib.util.find_spec("torch") is None:
    sys.stderr.write("torch is not installed: its DataLoader is left out\n")
    return {}
  from benchmarks import _torch_loading

  length = round(_clips.SECONDS * _clips.RATE)
  wave = (length, _clips.RATE, media.NPERSEG, media.NOVERLAP)
  ways: dict[str, tuple[Open, int]] = {}
  for workers in (0, _WORKERS):
    ready = 2 * workers  # The default of torch.
    total = 2 * ready + 1 + count
    opened = functools.partial(
      _torch_loading.stream, files, SIZE, wave, batch, total, workers
    )
    ways[f"torch, {workers} workers"] = (opened, ready)
  return ways
