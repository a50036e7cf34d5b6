"""Several steps in one call of the device."""

import math
import signal

import pytest

import helpers
from configs import manifest
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import runner
from dmg_jax.training.loop import Trainer
from dmg_jax.training.programs import Programs

QUIET = Console(quiet=True)
KEY = "train.steps_per_execution"
# Of what is logged in two epochs: a loop's sums are in another order.
ROUNDING = 1e-3
# An update of α in mid-epoch; a gradient rule; an order of samples; several
# runs at once.
RECIPES = [
  "lb,inner_iters=7,iterations=1",
  "ogm_ge",
  "bss",
  "joint,seeds=2,vmap_seeds=on",
]


def logs(work):
  return [p.read_bytes() for p in sorted(work.rglob("metrics.jsonl"))]


def assert_close(work, other):
  pairs = [sorted(w.rglob("metrics.jsonl")) for w in (work, other)]
  for a, b in zip(*pairs, strict=True):
    for x, y in zip(read_metrics(a), read_metrics(b), strict=True):
      assert x.keys() == y.keys() and x["step"] == y["step"]
      for key in x.keys() - {"split"}:
        near = math.isclose(x[key], y[key], rel_tol=ROUNDING, abs_tol=ROUNDING)
        assert near, (key, x, y)


@pytest.mark.parametrize(
  "recipe",
  [
    r if r == "ogm_ge" else pytest.param(r, marks=pytest.mark.slow)
    for r in RECIPES
  ],
)
def test_any_grouping_gives_the_same(
  quick, tiny, tmp_path, monkeypatch, recipe
):
  """As one by one up to rounding; calls cut short or resumed, to the bit."""
  del quick
  fields = {"train.log_steps": 1}
  calls, advance = [], Programs.advance

  def counted(self, state, batches, seeds):
    calls.append(len(batches))
    return advance(self, state, batches, seeds)

  monkeypatch.setattr(Programs, "advance", counted)
  for name, more in {
    "single": {},
    "four": {KEY: 4},
    "cut": {KEY: 4, "train.checkpoint_steps": 6},
  }.items():
    calls.clear()
    runner.run(tiny(recipe, {**fields, **more}), tmp_path / name, QUIET)
    assert sum(calls) == 30 and max(calls) == more.get(KEY, 1)
  assert_close(tmp_path / "single", tmp_path / "four")
  assert logs(tmp_path / "four") == logs(tmp_path / "cut")
  original = Trainer._save_here

  def save_here(self, step, stop):
    if step >= 17:
      signal.raise_signal(signal.SIGTERM)
    return original(self, step, stop)

  config = tiny(recipe, {**fields, KEY: 4})
  with monkeypatch.context() as patch:
    patch.setattr(Trainer, "_save_here", save_here)
    assert runner.run(config, tmp_path / "stopped", QUIET) is None
  runner.run(config, tmp_path / "stopped", QUIET)
  assert logs(tmp_path / "four") == logs(tmp_path / "stopped")


@pytest.mark.slow
def test_data_on_the_device(tmp_path):
  table = helpers.write_manifest(tmp_path, 64, ("one:array", "two:array"))
  for size in (1, 3):
    config = manifest.get_config("joint,batch_size=8,epochs=2")
    config.data.manifest, config.data.dir = str(table), str(tmp_path / "data")
    config.loader.resident = "on"
    config.train.steps_per_execution = size
    runner.run(config, tmp_path / str(size), QUIET)
  assert_close(tmp_path / "1", tmp_path / "3")
