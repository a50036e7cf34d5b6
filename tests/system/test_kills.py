"""Runs killed at random times end with the bits of runs left alone.

``DMG_KILLS=40`` kills each of them so often; ``DMG_KILLS_SEED`` changes when.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launch
from data_pipelines.disk import locks

ROOT = Path(launch.__file__).parent
KILLS = int(os.environ.get("DMG_KILLS", "1"))
SEED = int(os.environ.get("DMG_KILLS_SEED", "0"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FIELDS = {"train.epochs": 12, "train.checkpoint_steps": 7, "train.log_steps": 5}
WHAT = [
  "openmoji.py:igm",
  "openmoji.py:joint,seeds=2,vmap_seeds=on",
]


@pytest.fixture
def start(words, tmp_path):
  """Starts a command in a folder; ends what is left of it."""
  started = []

  def begin(what, work):
    arguments = words("", work, **FIELDS)[1:]
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    begun = subprocess.Popen(
      [sys.executable, "launch.py", f"--config=configs/{what}", *arguments],
      cwd=ROOT,
      env={
        **environment,
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    started.append(begun)
    return begun

  yield begin
  for begun in started:
    if begun.poll() is None:
      begun.kill()
      begun.communicate()


def content(work):
  """{file: what it says} of all runs in a folder, without times."""
  found = {}
  for path in sorted(work.rglob("metrics.jsonl")):
    found[path.relative_to(work)] = path.read_text()
    path = path.with_name("results.json")
    results = json.loads(path.read_text())
    results.pop("timing")
    found[path.relative_to(work)] = results
  return found


@pytest.mark.slow
@pytest.mark.parametrize("what", WHAT)
def test_killed_at_random(start, tmp_path, what):
  draw = random.Random(f"{SEED} {what}")
  alone, work = tmp_path / "alone", tmp_path / "work"
  begin = time.monotonic()
  process = start(what, alone)
  _, err = process.communicate(timeout=600)
  took = time.monotonic() - begin
  assert process.returncode == 0, err
  for _ in range(KILLS):
    process = start(what, work)
    try:
      process.wait(draw.uniform(0.1 * took, 0.9 * took))
    except subprocess.TimeoutExpired:
      process.send_signal(draw.choice(SIGNALS))
    _, err = process.communicate(timeout=600)
    assert "error:" not in err and "bug in dmg_jax" not in err, err
  process = start(what, work)
  _, err = process.communicate(timeout=600)
  assert process.returncode == 0, err
  assert content(work) == content(alone) and content(work)
  assert not list(work.rglob("*.orbax-checkpoint-tmp"))
  with locks.Locks() as free:  # Whoever was killed holds nothing.
    assert all(free.take(p.parent) for p in work.rglob("results.json"))
