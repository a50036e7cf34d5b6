"""A run that was stopped anywhere ends with the bits of one that was not."""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import launch
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, runner, sharding
from dmg_jax.training.checkpoint import Checkpoints
from dmg_jax.training.loop import Trainer

ROOT = Path(launch.__file__).parent
QUIET = Console(quiet=True)


@pytest.fixture
def stopped(tiny, monkeypatch):
  """Runs in ``work``, with a signal in each of ``steps``, then to the end."""
  original = Trainer._save_here

  def run(recipe, work, steps):
    config = tiny(recipe)
    for at, number in steps:

      def save_here(self, step, stop, at=at, number=number):
        if step == at:
          signal.raise_signal(number)
        return original(self, step, stop)

      monkeypatch.setattr(Trainer, "_save_here", save_here)
      assert runner.run(config, work, QUIET) is None
      assert not (work / "results.json").exists()
      score = config.train.select_by
      checkpoints = Checkpoints(_last_run(work), score=score)
      assert checkpoints.last() == at
      checkpoints.close()
    monkeypatch.setattr(Trainer, "_save_here", original)
    return runner.run(config, work, QUIET)

  return run


def _last_run(work):
  return (sorted(work.glob("seed_*")) or [work])[-1]


def _untimed(results):
  return {
    k: [_untimed(r) for r in v] if k == "runs" else v
    for k, v in results.items()
    if k != "timing"
  }


def _states(work, like):
  config = json.loads((work / "config.json").read_text())["config"]
  checkpoints = Checkpoints(work, score=config["train"]["select_by"])
  wanted = {"best": checkpoints.best(), "last": checkpoints.last()}
  found = {
    name: (step, jax.device_get(checkpoints.restore(step, like)))
    for name, step in wanted.items()
  }
  checkpoints.close()
  return found


def assert_same_bits(work, other, like):
  """Checkpoints, logged lines and results of two runs."""
  for name, (step, state) in _states(work, like).items():
    step_there, there = _states(other, like)[name]
    assert step == step_there
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for (path, x), y in zip(leaves, jax.tree.leaves(there), strict=True):
      assert x.dtype == y.dtype, path
      assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), (name, path)
  lines = (work / "metrics.jsonl").read_bytes()
  assert lines == (other / "metrics.jsonl").read_bytes()
  results, there = (
    json.loads((w / "results.json").read_text()) for w in (work, other)
  )
  assert _untimed(results) == _untimed(there)


TERM, INT = signal.SIGTERM, signal.SIGINT
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
CHAINS = [
  # First step, before and after an α step, last step of an epoch, mid-epoch.
  (
    "lb,inner_iters=7,iterations=1",
    [(1, TERM), (7, INT), (8, TERM), (15, TERM), (29, INT)],
  ),
  # Samples drawn with replacement, in mid-epoch.
  slow(
    "joint,sampler=balanced,class_weights=balanced,select_by=loss",
    [(4, TERM), (22, INT)],
  ),
  # The tangent is half-way between two α steps.
  slow("lb_forward,inner_iters=7", [(11, TERM)]),
  slow("ogm_ge", [(15, INT), (22, TERM)]),
  slow("mla", [(4, TERM)]),
  # An order of its own; two phases, the second of which val is watched in.
  slow("bss", [(4, TERM), (22, INT)]),
  slow("umt,teacher_epochs=1,schedule=plateau", [(15, TERM), (17, INT)]),
]


@pytest.mark.parametrize("recipe,steps", CHAINS)
def test_stopped_and_started_again(
  straight, stopped, tiny, tmp_path, recipe, steps
):
  one = straight(recipe)
  stopped(recipe, tmp_path / "work", steps)
  like = experiment.assemble(tiny(recipe)).fresh()
  assert_same_bits(one, tmp_path / "work", like)


@pytest.mark.slow
def test_signal_in_the_last_step(straight, stopped, tmp_path, monkeypatch):
  """Nothing is left to do: the run ends as if there had been none."""
  original = Trainer._end_epoch

  def end_epoch(self, state, epoch):
    if epoch == 1:
      signal.raise_signal(signal.SIGTERM)
    return original(self, state, epoch)

  monkeypatch.setattr(Trainer, "_end_epoch", end_epoch)
  results = stopped("ogm_ge", tmp_path / "work", [])
  there = json.loads((straight("ogm_ge") / "results.json").read_text())
  assert _untimed(json.loads(json.dumps(results))) == _untimed(there)


@pytest.mark.slow
def test_stopped_between_and_in_seeds(straight, stopped, tmp_path):
  recipe, work = "joint,seeds=2,vmap_seeds=off", tmp_path / "work"
  one = json.loads((straight(recipe) / "results.json").read_text())
  results = stopped(recipe, work, [(9, TERM), (15, TERM)])
  assert _untimed(json.loads(json.dumps(results))) == _untimed(one)


@pytest.mark.slow
def test_seed_decides(straight, tiny):
  """The same seed elsewhere gives the same bits; another seed gives others."""
  both, alone = straight("joint,seeds=2,vmap_seeds=off"), straight("joint")
  like = experiment.assemble(tiny("joint")).fresh()
  assert_same_bits(both / "seed_0", alone, like)
  lines = [
    (both / f"seed_{i}" / "metrics.jsonl").read_bytes().splitlines()
    for i in (0, 1)
  ]
  assert len(lines[0]) == len(lines[1])
  assert not set(lines[0]) & set(lines[1])


@pytest.mark.slow
def test_eight_devices(quick, stopped, tiny, tmp_path, monkeypatch):
  del quick
  monkeypatch.setattr(sharding, "make_mesh", _all_devices)
  runner.run(tiny("joint"), tmp_path / "one", QUIET)
  stopped("joint", tmp_path / "other", [(13, TERM)])
  like = experiment.assemble(tiny("joint")).fresh()
  assert_same_bits(tmp_path / "one", tmp_path / "other", like)


def _all_devices(batch_size):
  del batch_size
  kind = (jax.sharding.AxisType.Auto,)
  return jax.make_mesh((jax.device_count(),), ("b",), axis_types=kind)


@pytest.mark.slow
def test_killed_while_the_folder_was_made(tiny, tmp_path, straight):
  """A half-written file of a run is no reason to refuse the folder."""
  work = tmp_path / "work"
  work.mkdir()
  (work / "config.json.12.part").write_text("{")
  results = runner.run(tiny("ogm_ge"), work, QUIET)
  there = json.loads((straight("ogm_ge") / "results.json").read_text())
  assert results["test"] == there["test"]


@pytest.fixture
def process(words, tmp_path):
  """Starts ``launch.py`` as a process."""
  started = []

  def start(recipe, work, **fields):
    arguments = words(recipe, work, **fields)
    cache = {
      "JAX_ENABLE_COMPILATION_CACHE": "true",
      "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    begun = subprocess.Popen(
      [sys.executable, "launch.py", *arguments],
      cwd=ROOT,
      env={**environment, **cache},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    started.append(begun)
    return begun

  yield start
  for begun in started:
    if begun.poll() is None:
      begun.kill()
      begun.communicate()


def _steps(work):
  """Steps of the whole checkpoints."""
  names = [p.name for p in (work / "checkpoints").glob("*")]
  return [int(n) for n in names if n.isdigit()] or [0]


def _when(process, work, step, number):
  """Sends a signal once a checkpoint of ``step`` or later is there.

  SIGINT goes to worker processes too, as a terminal's Ctrl-C does.
  """
  until = time.monotonic() + 120
  while max(_steps(work)) < step:
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < until
    time.sleep(0.005)
  send = os.killpg if number == signal.SIGINT else os.kill
  send(process.pid, number)
  out, err = process.communicate(timeout=120)
  return process.returncode, out, err


def _living(group):
  """Processes of a group that are not zombies."""
  found = []
  for path in Path("/proc").glob("[0-9]*/stat"):
    with contextlib.suppress(OSError):
      state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
      found += [path.parent.name] * (state != "Z" and int(its_group) == group)
  return found


@pytest.mark.slow
@pytest.mark.parametrize("workers,number", [(0, TERM), (2, INT)])
def test_processes_killed_and_stopped(process, tmp_path, workers, number):
  """A signal, then kill -9, then to the end: the bits of one process."""
  work, one = tmp_path / "work", tmp_path / "one"
  fields = {"train.epochs": 3, "train.checkpoint_steps": 2}
  fields |= {"loader.workers": workers, "loader.resident": "off"}
  code, out, err = _when(process("h", work, **fields), work, 4, number)
  assert (code, err) == (0, "") and "stopped by a signal" in out
  saved = max(_steps(work))
  assert f"saved at step {saved}" in out and 4 <= saved < 45
  killed = process("h", work, **fields)
  code, *_ = _when(killed, work, saved + 12, signal.SIGKILL)
  assert code == -signal.SIGKILL and not (work / "results.json").exists()
  until = time.monotonic() + 30
  while _living(killed.pid):
    assert time.monotonic() < until, "worker processes are left"
    time.sleep(0.1)
  ends = [process("h", w, **fields) for w in (work, one)]
  for end in ends:
    out, err = end.communicate(timeout=240)
    assert (end.returncode, err) == (0, ""), err
  for name in ("metrics.jsonl", "results.json"):
    a, b = ((w / name).read_text() for w in (work, one))
    if name == "results.json":
      a, b = (_untimed(json.loads(x)) for x in (a, b))
    assert a == b
  assert sorted(_steps(work)) == sorted(_steps(one))
  assert not list((work / "checkpoints").glob("*tmp*"))
