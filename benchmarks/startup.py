"""Time to the first step, with and without a compilation cache; saving."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import measure

NAME = "startup"
BASE, EPOCH = "no cache", "epoch"
_ROOT = Path(__file__).resolve().parent.parent
_SAVING = (EPOCH, "save, stall", "save, written")
_CACHE = {
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
  "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "all",
}


def run(quick: bool, models: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark in fresh processes, one after the other."""
  del models
  rounds, recipe = (1, "joint") if quick else (3, "lb")
  runs: dict[str, list[dict[str, float]]] = {}
  with tempfile.TemporaryDirectory() as folder:
    _start(recipe, data, None)  # Prepares the data and fills the file cache.
    for turn in range(rounds):
      cache = Path(folder) / f"cache{turn}"
      for name, where in ((BASE, None), ("cold", cache), ("warm", cache)):
        runs.setdefault(name, []).append(_start(recipe, data, where))
  phases = [p for p in runs[BASE][0] if p not in _SAVING]
  case, made = f"openmoji, {recipe}", []
  for phase in phases:
    samples = {
      f"{phase}, {name}": [r[phase] for r in each]
      for name, each in runs.items()
    }
    made += measure.entries(NAME, case, f"{phase}, {BASE}", samples)
  saving = {s: [r[s] for each in runs.values() for r in each] for s in _SAVING}
  return made + measure.entries(NAME, case, EPOCH, saving)


def _start(recipe: str, data: Path, cache: Path | None) -> dict[str, float]:
  """Seconds of each phase of a start in a new process."""
  environment = {
    k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"
  }
  if cache is not None:
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), **_CACHE}
  child = [sys.executable, "-m", "benchmarks.startup", recipe, str(data)]
  done = subprocess.run(
    [*child, str(time.time())],
    cwd=_ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  if done.returncode:
    raise RuntimeError(f"the process failed: {done.stderr[-2000:]}")
  return json.loads(done.stdout.splitlines()[-1])


def _phases(recipe: str, data: str, begin: float) -> dict[str, float]:
  """Seconds of each phase of a run up to its first steps, from ``begin``."""
  marks = [begin]

  def lap() -> float:
    marks.append(time.time())
    return marks[-1] - marks[-2]

  import jax

  from configs import openmoji
  from dmg_jax.training import experiment, steps

  took = {"imports": lap()}
  config = openmoji.get_config(recipe)
  config.data.dir = data
  setup = experiment.assemble(config)
  size = config.train.batch_size
  loader = setup.loader("train", size, shuffle=True, augment=True)
  batch, state = setup.place(loader.batch(0)), setup.fresh()
  took["data and model"] = lap()
  program = steps.make_train_step(setup.problem, setup.method, setup.apply)
  step = functools.partial(program, seed=config.seed)
  state, _ = jax.block_until_ready(step(state, batch))
  took["first step"] = lap()
  took["start to first step"] = marks[-1] - begin
  if setup.method.outer_step is not None:
    outer = steps.make_outer_step(setup.problem, setup.method)
    state, _ = jax.block_until_ready(outer(state, batch, batch, config.seed))
    took["first outer step"] = lap()
    took["start to first outer step"] = marks[-1] - begin
  return took | _save(step, state, batch, loader.steps_per_epoch)


def _save(step: Any, state: Any, batch: Any, count: int) -> dict[str, float]:
  """Seconds of an epoch of steps and of saving a checkpoint."""
  import jax

  from dmg_jax.training.checkpoint import Checkpoints

  begin = time.perf_counter()
  for _ in range(count):
    state, _ = step(state, batch)
  jax.block_until_ready(state)
  took = {EPOCH: time.perf_counter() - begin}
  with tempfile.TemporaryDirectory() as folder:
    checkpoints = Checkpoints(Path(folder))
    checkpoints.save(state, None)  # The first save creates folders and threads.
    checkpoints.close()
    checkpoints = Checkpoints(Path(folder))
    state, _ = jax.block_until_ready(step(state, batch))
    begin = time.perf_counter()
    checkpoints.save(state, None)
    took["save, stall"] = time.perf_counter() - begin
    checkpoints.close()
    took["save, written"] = time.perf_counter() - begin
  return took


if __name__ == "__main__":
  phases = _phases(sys.argv[1], sys.argv[2], float(sys.argv[3]))
  sys.stdout.write(json.dumps(phases) + "\n")
