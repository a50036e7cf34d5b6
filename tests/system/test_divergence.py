"""A run that becomes NaN or infinite ends, and nothing bad is saved."""

import itertools
import json
import math

import numpy as np
import pytest

import toys
from data_pipelines.core import Dataset
from dmg_jax.config import compose
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import experiment, loop, runner
from dmg_jax.training.checkpoint import Checkpoints
from helpers import toy_dataset


def assert_finite_checkpoints(work, like, last):
  """Only good checkpoints, the newest of step ``last``, and they load."""
  checkpoints = Checkpoints(work)
  assert checkpoints.last() == last
  for step in {last, checkpoints.best() or last}:
    state = checkpoints.restore(step, like)
    assert int(state.step) == step
    assert toys.finite(state)
  checkpoints.close()


@pytest.mark.slow
def test_learning_rate(quick, command, words, tmp_path):
  del quick
  given = words("joint", tmp_path / "w", **{"optimiser.learning_rate": 1e30})
  code, _, err = command(*given, "--quiet")
  assert code == 1 and err.startswith("error: ") and err.count("\n") == 1
  assert "step 1" in err and "weight_norm is inf" in err
  assert "learning_rate" in err and "none had been saved" in err
  assert not (tmp_path / "w" / "results.json").exists()
  assert not list((tmp_path / "w" / "checkpoints").iterdir())


@pytest.mark.slow
def test_last_good_checkpoint_is_kept(quick, command, words, tiny, tmp_path):
  """The first step of a warm-up has rate 0; the second one diverges."""
  del quick
  work, fields = tmp_path / "w", {
    "optimiser.learning_rate": 1e30,
    "optimiser.warmup_epochs": 1,
    "train.checkpoint_steps": 1,
  }  # fmt: skip
  given = [*words("joint", work, **fields), "--quiet"]
  for _ in range(2):  # The same command fails in the same way.
    code, _, err = command(*given)
    assert code == 1 and err.count("\n") == 1
    assert "step 2" in err and "step 1 is kept" in err
    like = experiment.assemble(tiny("joint", fields)).fresh()
    assert_finite_checkpoints(work, like, 1)
    assert not (work / "results.json").exists()
  code, out, err = command(*given[:-1], "--mode=report")
  assert (code, err) == (0, "") and "report.html" in out


class Broken:
  """A split whose third sample has a NaN, from the ``first`` reading on."""

  def __init__(self, source, first):
    self._source, self._first = source, first
    self._read = itertools.count()

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    sample = self._source[index]
    if index == 2 and next(self._read) >= self._first:
      broken = np.full_like(sample["inputs"]["array"], math.nan)
      sample = {**sample, "inputs": {**sample["inputs"], "array": broken}}
    return sample


@pytest.fixture
def toy(monkeypatch):
  """Config of a toy data set; ``split`` has a NaN."""

  def make(split, first):
    data = toy_dataset(("array", "text"))
    sources = {**data.sources, split: Broken(data.sources[split], first)}
    broken = Dataset(data.spec, sources, data.augment)
    monkeypatch.setattr(experiment, "load", lambda config, method: broken)
    config = compose.base()
    config.data.name = f"toy-{split}"
    config.encoders = {
      "array": compose.encoder("small.MLP", features=8, widths=(8,)),
      "text": compose.encoder("small.WordBag", features=8, width=8),
    }
    config.train.update(batch_size=16, outer_batch_size=8, epochs=4)
    config.eval.batch_size = 16
    config.loader.workers = 0  # A process could not import ``Broken``.
    return compose.with_recipe(config, "constant")

  return make


def test_nan_in_the_training_data(toy, tmp_path):
  config = toy("train", 0)
  with pytest.raises(loop.DivergedError) as caught:
    runner.run(config, tmp_path / "w", Console(quiet=True))
  assert "is nan at step" in str(caught.value)
  assert "none had been saved" in str(caught.value)
  assert not list((tmp_path / "w" / "checkpoints").iterdir())


def test_nan_in_the_validation_data(toy, tmp_path):
  """From the third epoch on; the checkpoint of the second is kept."""
  work, config = tmp_path / "w", toy("val", 2)
  with pytest.raises(loop.DivergedError) as caught:
    runner.run(config, work, Console(quiet=True))
  assert "val loss is nan at step 9" in str(caught.value)
  assert "step 6 is kept" in str(caught.value)
  assert_finite_checkpoints(work, experiment.assemble(config).fresh(), 6)
  steps = [x["step"] for x in read_metrics(work / "metrics.jsonl")]
  assert max(steps) == 9 and json.loads((work / "config.json").read_text())
