"""Read-outs from their definitions, and the probe's optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax.evaluation import probe, readout_scores, readouts
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.report.tables import readouts as shown
from dmg_jax.types import Method, TrainState


def never(*args):
  """A method that is not trained."""
  raise AssertionError(args)


@pytest.fixture(scope="module")
def read():
  """All passes over 13 samples, three of them padding, in two batches."""
  problem, params, stats = toys.problem(3)
  rng = np.random.default_rng(0)
  bias = jnp.asarray(rng.normal(size=toys.CLASSES), jnp.float32)
  params = {**params, "fusion": {**params["fusion"], "bias": bias}}
  whole = toys.batch(3, 16)
  mask = np.ones(16)
  mask[13:] = 0
  whole = whole.replace(mask=jnp.asarray(mask, jnp.float32))
  parts = [jax.tree.map(lambda x, s=s: x[s], whole) for s in (
    slice(8, 16), slice(0, 8)
  )]  # fmt: skip
  method = Method(step=never)
  state = TrainState(jnp.zeros((), int), params, stats, (), ())
  step = readouts.make_step(problem, method)
  variants = readouts._variants(problem.modalities)
  return (
    problem, state, whole, readouts.passes(step, state, parts, variants)
  )  # fmt: skip


def test_r3_is_r1_and_the_rest_of_the_bias(read):
  problem, state, _, found = read
  own = found["own", FUSED]["unimodal"]
  bias = np.asarray(state.params["fusion"]["bias"])
  assert np.abs(bias).min() > 0.05
  for m in problem.modalities:
    difference = found["feature_ablation", m]["fused"] - own[m]
    want = np.broadcast_to(bias * (1 - 1 / 3), difference.shape)
    np.testing.assert_allclose(difference, want, atol=2e-6)


def test_r1_sums_to_the_fused_logits_in_order_without_padding(read):
  problem, state, whole, found = read
  made = found["own", FUSED]
  assert made["index"].tolist() == list(range(13))
  np.testing.assert_array_equal(made["labels"], whole.labels[:13])
  total = sum(made["unimodal"].values())
  np.testing.assert_allclose(made["fused"], total, atol=1e-6)
  outputs, _ = problem.forward(
    state.params, state.stats, whole.inputs, None, False
  )
  np.testing.assert_allclose(made["fused"], outputs.logits[:13], atol=1e-6)


def test_r4_has_the_inputs_of_the_others_at_zero(read):
  problem, state, whole, found = read
  for m in problem.modalities:
    inputs = {
      j: x if j == m else jnp.zeros_like(x) for j, x in whole.inputs.items()
    }
    out, _ = problem.forward(state.params, state.stats, inputs, None, False)
    got = found["input_ablation", m]["fused"]
    np.testing.assert_allclose(got, out.logits[:13], atol=1e-6)


def blobs(n, seed, scale=1.0):
  """Three classes, far apart in 2 of 4 features; one never changes."""
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % 3
  corners = np.array([[0, 0], [9, 0], [0, 9.0]])[labels]
  noise = rng.normal(size=(n, 2))
  x = np.concatenate([corners + noise, rng.normal(size=(n, 1))], axis=1)
  return probe.LabelledFeatures(np.c_[scale * x, np.full(n, 7.0)], labels)


def test_probe_separates_what_is_linear():
  train, val, test = blobs(60, 0), blobs(30, 1), blobs(90, 2)
  made = probe.fit(train, val, test.features)
  assert made.converged and made.val_accuracy == 1
  np.testing.assert_array_equal(made.predicted, test.labels)
  again = probe.fit(train, val, test.features)
  np.testing.assert_array_equal(again.predicted, made.predicted)
  assert again[1:] == made[1:]
  # Features are standardised: their units are of no account.
  other = probe.fit(
    blobs(60, 0, 1e4), blobs(30, 1, 1e4), blobs(90, 2, 1e4).features
  )
  np.testing.assert_array_equal(other.predicted, made.predicted)
  assert other.strength == made.strength


def test_probe_is_at_the_optimum_of_its_objective():
  train = blobs(30, 3)
  x = (train.features - train.features.mean(0)) / np.maximum(
    train.features.std(0), 1e-9
  )
  model = probe._fitted(x, train.labels, 0.1)
  p = model.predict_proba(x)
  slope = model.coef_.T + 0.1 * x.T @ (p - np.eye(3)[train.labels])
  np.testing.assert_allclose(slope, 0, atol=2e-3)


def test_probe_chooses_by_val():
  """Labels of train that are noise beyond one feature want a strong penalty."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(60, 40))
  labels = (x[:, 0] + rng.normal(size=60) > 0).astype(int)
  other = rng.normal(size=(400, 40))
  val = probe.LabelledFeatures(other, (other[:, 0] > 0).astype(int))
  made = probe.fit(probe.LabelledFeatures(x, labels), val, other)
  accuracies = []
  scale = (x - x.mean(0)) / x.std(0), (other - x.mean(0)) / x.std(0)
  for strength in probe.GRID:
    model = probe._fitted(scale[0], labels, strength)
    accuracies.append(np.mean(model.predict(scale[1]) == val.labels))
  assert made.val_accuracy == pytest.approx(max(accuracies))
  assert made.strength == probe.GRID[int(np.argmax(accuracies))]
  assert made.strength < 1


def test_a_class_that_train_lacks_and_a_single_one():
  train = probe.LabelledFeatures(
    np.arange(4.0)[:, None], np.array([0, 0, 1, 1])
  )
  val = probe.LabelledFeatures(np.array([[0.0], [3.0]]), np.array([2, 2]))
  assert probe.fit(train, val, val.features).val_accuracy == 0
  one = probe.LabelledFeatures(train.features, np.zeros(4, int))
  test = probe.LabelledFeatures(val.features, np.zeros(2, int))
  said = readout_scores._probed(one, val, test)
  assert str(said).startswith("no probe could be fitted:")


def test_reasons_where_there_is_no_readout():
  labels = np.array([0, 1])
  good = np.eye(2)
  passes = {
    ("own", FUSED): {
      "fused": good,
      "unimodal": {"a": good},
      "labels": labels,
      "present": {},
    },
    ("feature_ablation", "a"): {"fused": good},
    ("input_ablation", "a"): {"fused": good * np.nan},
  }
  found = readout_scores.of_heads(
    passes, "R3 feature ablation", "affine", False
  )
  assert "no head for a single modality" in found["a"]["own"]
  assert found["a"]["feature_ablation"]["accuracy"] == 1
  assert found["a"]["input_ablation"] == "its logits are not finite"
  found = readout_scores.of_heads(passes, "R2 own head", "channel", True)
  assert set(found["a"]["own"].values()) == {1}
  absent = found["a"]["feature_ablation"]
  assert "exchanges information between the encoders" in absent
  good, absent = readout_scores.split(found)
  assert set(good["a"]) == {"own"} and set(absent) == {"a"}
  assert shown.cell([{"scores": good}], "a", "input_ablation") == "–"


def test_chance_is_the_most_frequent_class_of_train():
  train, test = np.array([2, 2, 0, 1]), np.array([0, 2, 2, 2, 1])
  found = readout_scores.chance(train, test)
  f1 = 2 * 3 / (2 * 3 + 2)
  assert found == pytest.approx(
    {"accuracy": 0.6, "macro_f1": f1 / 3, "balanced_accuracy": 1 / 3}
  )
