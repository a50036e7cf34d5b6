"""Runs in bfloat16, in parts, with recomputed blocks, divided over devices.

Each command is a process of its own, because the number of devices is one of a
process.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import launch
import process_group

ROOT = Path(launch.__file__).parent
ONE_BY_ONE = {
  "precision": {"precision": "bf16"},
  "accumulate": {"train.accumulate": 2},
  "remat": {"remat": True},
  "sharding": {"sharding": "fsdp"},
}
ALL = {k: v for fields in ONE_BY_ONE.values() for k, v in fields.items()}
# Layers large enough to be divided.
FIELDS = {
  "encoders.image.features": 64,
  "encoders.text.features": 64,
  "encoders.text.width": 64,
  "train.epochs": 1,
}
# Of losses on val: another order of sums, or bfloat16, after an epoch.
ROUNDING, COARSE = 1e-3, 0.05


@pytest.fixture
def launched(words):
  """``launch.py`` on so many devices: ``(exit code, output)``."""

  def run(devices, recipe, workdir, mode="train", **fields):
    given = {**FIELDS, **fields} if mode == "train" else fields
    command = words(recipe, workdir, **given)
    done = subprocess.run(
      [sys.executable, "launch.py", *command, f"--mode={mode}"],
      cwd=ROOT,
      env=process_group.environment(devices),
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      timeout=900,
    )
    return done.returncode, done.stdout

  return run


def loss_of(workdir):
  results = json.loads((workdir / "results.json").read_text())
  assert all(0 <= a <= 1 for a in results["alpha"])
  return results["val"]["fused"]["loss"]


@pytest.mark.slow
def test_all_together(launched, tmp_path):
  """On four devices; then evaluated, predicted and exported on one."""
  code, said = launched(4, "lb", tmp_path / "all", **ALL)
  assert code == 0, said
  code, said = launched(4, "lb", tmp_path / "plain")
  assert code == 0, said
  losses = [loss_of(tmp_path / name) for name in ("all", "plain")]
  np.testing.assert_allclose(*losses, rtol=COARSE)
  for mode in ("evaluate", "predict", "export"):
    code, said = launched(1, "lb", tmp_path / "all", mode, **FIELDS, **ALL)
    assert code == 0, (mode, said)


@pytest.mark.slow
def test_one_by_one(launched, tmp_path):
  found = {}
  for name, fields in {"plain": {}, **ONE_BY_ONE}.items():
    code, said = launched(4, "lb", tmp_path / name, **fields)
    assert code == 0, said
    found[name] = loss_of(tmp_path / name)
  for name in ONE_BY_ONE:
    close = COARSE if name in ("precision", "accumulate") else ROUNDING
    np.testing.assert_allclose(found[name], found["plain"], close, err_msg=name)


@pytest.mark.slow
def test_a_divided_run_goes_on_elsewhere(launched, tmp_path):
  """Begun on four devices, replicated on one, divided again on two."""
  straight = tmp_path / "straight"
  code, said = launched(4, "lb", straight, **{"train.epochs": 3})
  assert code == 0, said
  work = tmp_path / "moved"
  for epochs, devices, how in (
    (1, 4, "fsdp"), (2, 1, "replicated"), (3, 2, "fsdp"),
  ):  # fmt: skip
    if work.exists():  # The same run, asked for more epochs.
      more_epochs(work, epochs)
    fields = {"train.epochs": epochs, "sharding": how}
    code, said = launched(devices, "lb", work, **fields)
    assert code == 0, said
  lines = (work / "metrics.jsonl").read_text().splitlines()
  val = [json.loads(x)["step"] for x in lines if '"split": "val"' in x]
  assert len(val) == 3 and val == sorted(set(val))


def more_epochs(work, epochs):
  (work / "results.json").unlink()
  path = work / "config.json"
  stored = json.loads(path.read_text())
  stored["config"]["train"]["epochs"] = epochs
  path.write_text(json.dumps(stored))
