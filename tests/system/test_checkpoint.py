"""Which states are written at the end of an epoch, and that none is missed."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.tracking.logging import Console
from dmg_jax.training import checkpoint, experiment, loop, runner
from dmg_jax.training.checkpoint import METRIC, Checkpoints
from dmg_jax.training.loop import Trainer

QUIET = Console(quiet=True)


@pytest.fixture
def at(quick, tiny):
  """``at(step)`` is the state of a run at a step."""
  del quick
  state = experiment.assemble(tiny("joint")).fresh()
  return lambda step: state.replace(step=jnp.int32(step))


def score(value):
  return {METRIC: value}


def test_what_is_due_what_is_kept_and_the_best(at, tmp_path):
  kept = Checkpoints(tmp_path, latest=1, keep=(40,))
  kept.offer(at(10), score(0.5), due=True)
  kept.offer(at(20), score(0.4), due=False)  # Not the best: left out.
  kept.offer(at(25), None, due=False)  # A method that is not ready yet.
  kept.offer(at(30), score(0.4), due=True)
  kept.offer(at(40), score(0.1), due=False)
  kept.close()
  assert checkpoint.saved(tmp_path) == {10, 40}


def test_the_best_is_held_until_the_next_is_written(at, tmp_path):
  kept = Checkpoints(tmp_path, latest=1)
  kept.offer(at(10), score(0.5), due=True)
  kept._manager.wait_until_finished()
  kept.offer(at(20), score(0.6), due=False)
  kept.offer(at(30), score(0.6), due=False)  # Of equals the later is the best.
  kept.offer(at(40), score(0.5), due=False)
  assert checkpoint.saved(tmp_path) == {10}
  kept.save(at(45), None)  # In mid-epoch.
  kept._manager.wait_until_finished()
  assert checkpoint.saved(tmp_path) == {30, 45}
  kept.close()
  again = Checkpoints(
    tmp_path, latest=1
  )  # The best so far is read from the disk.
  again.offer(at(50), score(0.5), due=False)
  assert again.best() == 30
  again.offer(at(60), score(0.7), due=False)
  again.close()
  assert checkpoint.saved(tmp_path) == {60}


def test_the_best_by_loss_is_the_lowest(at, tmp_path):
  def loss(value):
    return {"fused/loss": value, "fused/accuracy": value}

  kept = Checkpoints(tmp_path, latest=1, score="loss")
  kept.offer(at(10), loss(1.5), due=True)
  kept.offer(at(20), loss(0.7), due=False)
  kept.offer(at(30), loss(0.9), due=False)
  kept.offer(at(40), loss(0.8), due=True)
  kept.close()
  assert checkpoint.saved(tmp_path) == {20, 40}
  again = Checkpoints(tmp_path, latest=1, score="loss")
  assert again.best() == 20
  again.close()


def test_runs_together_keep_the_step_before(at, tmp_path):
  """One that has written its best and this step was killed before another."""
  kept = Checkpoints(tmp_path, latest=3)
  kept.offer(at(10), score(0.5), due=True)
  kept.offer(at(20), score(0.6), due=False)
  kept.offer(at(30), score(0.5), due=True)
  kept.close()
  assert checkpoint.saved(tmp_path) == {10, 20, 30}


def test_what_is_held_is_not_what_a_step_takes(at, tmp_path):
  """The state is donated; what is written later must be a copy."""
  kept = Checkpoints(tmp_path, latest=1)
  state = at(10)
  before = jax.device_get(jax.tree.map(jnp.copy, state))
  kept.offer(state, score(0.5), due=False)
  jax.jit(lambda s: jax.tree.map(lambda x: 0 * x, s), donate_argnums=0)(state)
  found = kept.restore(kept.best(), before)
  kept.close()
  jax.tree.map(np.testing.assert_array_equal, found, before)


def test_when_an_epoch_is_due(quick, tiny, monkeypatch):
  del quick
  now = [1000.0]
  monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
  trainer = Trainer([experiment.assemble(tiny("joint"))], QUIET)
  trainer.step = 15
  assert trainer._due()  # The first.
  now[0] += checkpoint.EVERY - 1
  assert not trainer._due()
  now[0] += 1
  assert trainer._due()
  assert not trainer._due()
  trainer.step = trainer.total
  assert trainer._due()
  trainer.step = 15
  monkeypatch.setattr(loop.processes, "several", lambda: True)
  assert trainer._due()  # Processes have clocks of their own.


def test_killed_after_an_epoch_that_was_not_written(
  straight, tiny, tmp_path, monkeypatch
):
  """It goes on from an earlier step and ends as a run that was left alone."""
  config, original = tiny("joint", {"train.checkpoint_steps": 7}), Trainer._save

  def save(self, state):
    if self.step == 21:
      raise KeyboardInterrupt
    original(self, state)

  with monkeypatch.context() as patch:
    patch.setattr(Trainer, "_save", save)
    patch.setattr(Checkpoints, "offer", lambda *args: None)
    with pytest.raises(KeyboardInterrupt):
      runner.run(config, tmp_path, QUIET)
  assert checkpoint.saved(tmp_path) == {7, 14}
  runner.run(config, tmp_path, QUIET)
  alone = straight("joint")
  for work in (alone, tmp_path):
    assert 30 in checkpoint.saved(work)
  log = (tmp_path / "metrics.jsonl").read_bytes()
  assert log == (alone / "metrics.jsonl").read_bytes()
  found, there = (
    json.loads((work / "results.json").read_text())
    for work in (tmp_path, alone)
  )
  assert found["test"] == there["test"]
  assert found["selected_step"] == there["selected_step"]


def test_what_a_signal_ends_is_written(quick, tiny, tmp_path, monkeypatch):
  del quick
  original = Trainer._end_epoch

  def end_epoch(self, state, epoch):
    signal.raise_signal(signal.SIGTERM)
    return original(self, state, epoch)

  monkeypatch.setattr(Trainer, "_end_epoch", end_epoch)
  monkeypatch.setattr(Trainer, "_due", lambda self: False)
  assert runner.run(tiny("joint"), tmp_path, QUIET) is None
  assert checkpoint.saved(tmp_path) == {15}
