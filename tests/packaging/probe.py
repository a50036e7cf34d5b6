"""What a user does with the installed wheel; run where nothing else is."""

import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

import dmg_jax


def made(n=48):
  """A picture, a text and a sensor that carry the label."""
  rng = np.random.default_rng(0)
  labels = np.array(["ant", "bee", "cat"])[np.arange(n) % 3]
  code = np.unique(labels, return_inverse=True)[1]
  picture = rng.integers(0, 60, (n, 8, 8, 3)) + 60 * code[:, None, None, None]
  text = [f"a {name} number {i % 5}" for i, name in enumerate(labels)]
  sensor = rng.normal(size=(n, 4)) + code[:, None]
  data = {"picture": picture.astype(np.uint8), "text": text}
  return {**data, "sensor": sensor.astype(np.float32)}, labels


def main():
  """Trains, predicts, loads and cross-validates."""
  for absent in ("configs", "tests", "launch", "benchmarks"):
    assert importlib.util.find_spec(absent) is None, absent
  assert "site-packages" in dmg_jax.__file__
  data, labels = made()
  run = dmg_jax.fit(data, labels, recipe="lb", epochs=2)
  assert 0 <= run.results["val"]["fused"]["accuracy"] <= 1
  with tempfile.TemporaryDirectory() as folder:
    work = Path(folder) / "run"
    run = dmg_jax.fit(data, labels, recipe="joint", epochs=2, workdir=work)
    again = dmg_jax.load(work)
    one, two = (r.predict(data).probabilities["fused"] for r in (run, again))
    np.testing.assert_array_equal(one, two)
  model = dmg_jax.MultimodalClassifier(recipe="joint", epochs=2, random_state=0)
  table = np.concatenate([data["sensor"], data["sensor"] ** 2], axis=1)
  scores = cross_val_score(clone(model), table, labels, cv=2)
  assert scores.shape == (2,) and np.isfinite(scores).all()
  assert dmg_jax.recipes()


if __name__ == "__main__":
  main()
