"""Which states at the end of an epoch are written, and that none is missed."""

import json
import signal

import numpy as np
import pytest

from dmg_jax import assemble, checkpoint, train
from dmg_jax.checkpoint import METRIC, Checkpoints
from dmg_jax.logging import Console
from dmg_jax.loop import Trainer

QUIET = Console(quiet=True)


@pytest.fixture
def at(quick, tiny):
  """``at(step)`` is the state of a run at a step."""
  del quick
  state = assemble.assemble(tiny("joint")).fresh()
  return lambda step: state.replace(step=np.int32(step))


@pytest.fixture
def clock(monkeypatch):
  """``clock[0]`` is the time in seconds."""
  now = [1000.0]
  monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
  return now


def score(value):
  return {METRIC: value}


def test_the_best_those_asked_for_and_one_in_a_while(at, clock, tmp_path):
  kept = Checkpoints(tmp_path, keep=(40,))
  assert kept.wanted(at(10), None)  # The first, whatever it is.
  kept.save(at(10), score(0.5))
  clock[0] += checkpoint.EVERY - 1
  assert not kept.wanted(at(20), score(0.4))
  assert not kept.wanted(at(20), None)
  assert kept.wanted(at(20), score(0.5))  # Of equals the later is the best.
  assert kept.wanted(at(40), score(0.4))
  clock[0] += 1
  assert kept.wanted(at(20), score(0.4))
  kept.save(at(20), score(0.4))
  assert not kept.wanted(at(30), score(0.4))
  kept.close()
  again = Checkpoints(tmp_path)  # The best so far is read from the disk.
  again.save(at(30), None)
  assert not again.wanted(at(35), score(0.4))
  assert again.wanted(at(35), score(0.5))
  again.close()


def test_runs_that_train_together_write_every_epoch(at, clock, tmp_path):
  del clock
  kept = Checkpoints(tmp_path, latest=2)
  kept.save(at(10), score(0.5))
  assert kept.wanted(at(20), score(0.4))
  kept.close()


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
    patch.setattr(Checkpoints, "wanted", lambda self, state, val: False)
    with pytest.raises(KeyboardInterrupt):
      train.run(config, tmp_path, QUIET)
  assert checkpoint.saved(tmp_path) == {14}
  train.run(config, tmp_path, QUIET)
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
  monkeypatch.setattr(Checkpoints, "wanted", lambda self, state, val: False)
  assert train.run(tiny("joint"), tmp_path, QUIET) is None
  assert checkpoint.saved(tmp_path) == {15}
