"""The benchmark of where imbalance costs: its samples, and its arithmetic."""

import json

import numpy as np
import pytest

pytest.importorskip("pandas")
from benchmarks import regime


@pytest.fixture
def images(tmp_path):
  """420 pictures of each digit."""
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (4200, 8, 8), dtype=np.uint8)
  np.savez(tmp_path / "x.npz", x=x, y=np.arange(4200) % 10)
  return tmp_path / "x.npz"


def test_samples_of_a_cell(images):
  few = regime.table(images, regime.BASE._replace(train=5), 0)
  many = regime.table(images, regime.BASE._replace(train=20), 0)
  assert few["split"].value_counts().to_dict() == {
    "test": 3000, "val": 300, "outer": 300, "train": 50,
  }  # fmt: skip

  def key(samples, split):
    own = samples[samples["split"] == split]
    numbers = (a.tobytes() for a in own["numbers:array"])
    return set(zip(own["label"], numbers, strict=True))

  assert key(few, "train") < key(many, "train")
  assert key(few, "test") == key(many, "test")
  assert not key(many, "train") & key(many, "test")


def test_wrong_labels_are_those_of_training(images):
  right = regime.table(images, regime.BASE, 0)
  wrong = regime.table(images, regime.BASE._replace(wrong=0.4), 0)
  changed = right["label"] != wrong["label"]
  assert set(right["split"][changed]) == {"train"}
  assert changed.sum() / 500 == pytest.approx(0.4, abs=0.07)


def test_noise_has_its_size(images):
  plain = np.stack(regime.table(images, regime.BASE, 0)["numbers:array"])
  cell = regime.BASE._replace(array="noise=3")
  noise = np.stack(regime.table(images, cell, 0)["numbers:array"]) - plain
  np.testing.assert_allclose(noise.std(axis=0), 3 * plain.std(axis=0), rtol=0.1)


def test_cost_is_of_the_best_on_val(tmp_path):
  """``multitask`` is better on test but worse on val, so it does not count."""

  def scores(val, test):
    own = {"picture": 1.0, "numbers": 2.0}
    return {"val": {"fused": val, **own}, "test": {"fused": test, **own}}

  runs = {}
  for seed, extra in enumerate((0.0, 4.0)):
    for recipe, val, test in (
      ("joint", 60.0, 61.0),
      ("multitask", 69.0, 75.0),
      ("ensemble", 70.0, 68.0 + extra),
    ):
      runs[regime._key(regime.BASE, recipe, seed)] = scores(val, test)
  found = {"machine": "none", "runs": runs}
  assert regime.costs(found, regime.BASE) == [7.0, 11.0]
  assert regime.costs(found, regime.BASE._replace(epochs=5)) == []
  text = regime.summary(found)
  assert "| epochs: 40 | 61.0 | 75.0 | 70.0 | 1.0 | 2.0 | +9.0 ± 2.8 | 2 |" in (
    text
  )
  panels = regime.figure(json.loads(json.dumps(found))).axes
  assert len(panels) == len(regime.AXES)
