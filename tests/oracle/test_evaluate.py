"""Metrics against their definitions, in plain numpy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax.evaluation import metrics as ev
from dmg_jax.evaluation.metrics import check_names, evaluate, make_eval_step
from dmg_jax.report.features import load_features, pairs, save_features
from dmg_jax.types import Batch, Method, Outputs, TrainState

NAMES, K, D = ("image", "text", "audio"), 5, 4


def problem(names):
  """Inputs are the answer: {m: [b, K + D]} holds logits and features."""

  def forward(params, stats, inputs, key, train, present=None):
    assert key is None and train is False
    logits = {m: x[:, :K] * params for m, x in inputs.items()}
    features = {m: x[:, K:] for m, x in inputs.items()}
    return Outputs(sum(logits.values()), logits, features), stats

  return toys.bare_problem(forward, names)


def state(method=()):
  """Only what an evaluation reads."""
  return TrainState(jnp.zeros((), int), jnp.ones(()), {}, (), method)


def method(predict=None):
  """A method that never trains."""

  def step(*args):
    raise AssertionError

  return Method(step=step, **({"predict": predict} if predict else {}))


def samples(names, n=23, seed=0, classes=K):
  """{m: [n, K + D]}, labels [n]; every score is tied with some other."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, n)
  inputs = {}
  for m in names:
    x = rng.normal(size=(n, K + D)).round(1)
    x[np.arange(n), labels] += 0.7
    x[n // 2] = x[n // 2 - 1]
    inputs[m] = x
  return inputs, labels


def batches(inputs, labels, size=8, junk=np.nan, order=None):
  """Of one shape; padding is ``junk`` and repeats an index."""
  n = len(labels)
  order = np.arange(n) if order is None else order
  for start in range(0, n, size):
    rows = order[start : start + size]
    pad = size - len(rows)
    filler = {m: np.full((pad, *x.shape[1:]), junk) for m, x in inputs.items()}
    yield Batch(
      {m: np.concatenate([x[rows], filler[m]]) for m, x in inputs.items()},
      np.concatenate([labels[rows], np.zeros(pad, int)]),
      np.concatenate([np.ones(len(rows)), np.zeros(pad)]),
      np.concatenate([rows, np.zeros(pad, int)]),
    )


def softmax(x):
  """Of rows, in float64."""
  e = np.exp(x - x.max(axis=1, keepdims=True))
  return e / e.sum(axis=1, keepdims=True)


def average_precision(positive, score):
  """Σ_t (R_t - R_{t-1}) P_t over the distinct thresholds, falling."""
  total, recall_before = 0.0, 0.0
  for threshold in sorted(set(score), reverse=True):
    chosen = [p for p, s in zip(positive, score, strict=True) if s >= threshold]
    recall = sum(chosen) / sum(positive)
    total += (recall - recall_before) * sum(chosen) / len(chosen)
    recall_before = recall
  return total


def oracle(logits, labels):
  """The four metrics of one head, from the definitions."""
  p, n = softmax(logits), len(labels)
  predicted = logits.argmax(axis=1)
  f1 = []
  for c in range(logits.shape[1]):
    tp = sum((predicted == c) & (labels == c))
    wrong = sum((predicted == c) != (labels == c))
    if tp or wrong:
      f1.append(2 * tp / (2 * tp + wrong))
  return {
    "accuracy": sum(predicted == labels) / n,
    "balanced_accuracy": np.mean(
      [np.mean(predicted[labels == c] == c) for c in sorted(set(labels))]
    ),
    "map": np.mean(
      [
        average_precision((labels == c).tolist(), p[:, c].tolist())
        for c in sorted(set(labels))
      ]
    ),
    "macro_f1": np.mean(f1),
    "loss": -np.mean(np.log(p[np.arange(n), labels])),
  }


def assert_same(got, want):
  """Every metric of a head."""
  assert set(got) == set(want)
  for name in want:
    np.testing.assert_allclose(got[name], want[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_metrics_by_definition(count):
  names = NAMES[:count]
  inputs, labels = samples(names)
  step = make_eval_step(problem(names), method())
  got = evaluate(step, state(), batches(inputs, labels))
  assert next(iter(got)) == "fused" and set(got) == {"fused", "gap", *names}
  own = {m: x[:, :K] for m, x in inputs.items()}
  assert_same(got["fused"], oracle(sum(own.values()), labels))
  for m in names:
    assert_same(got[m], oracle(own[m], labels))
  accuracies = [got[m]["accuracy"] for m in names]
  gap = max(accuracies) - min(accuracies)
  assert got["gap"]["accuracy"] == gap and (gap > 0) == (count > 1)
  centroid = {}
  for m, x in inputs.items():
    z = x[:, K:]
    centroid[m] = (z / np.linalg.norm(z, axis=1, keepdims=True)).mean(axis=0)
  assert len(got["gap"]["centroid"]) == count * (count - 1) // 2
  for pair, distance in got["gap"]["centroid"].items():
    a, b = pair.split("-")
    want = np.linalg.norm(centroid[a] - centroid[b])
    np.testing.assert_allclose(distance, want, rtol=1e-12)


def test_arrays_are_in_order_of_index():
  inputs, labels = samples(NAMES[:2])
  order = np.random.default_rng(1).permutation(len(labels))
  step = make_eval_step(problem(NAMES[:2]), method())
  got = evaluate(step, state(), batches(inputs, labels, order=order))
  assert got.index.tolist() == list(range(len(labels)))
  assert got.labels.tolist() == labels.tolist()
  want = softmax(inputs["text"][:, :K])
  np.testing.assert_allclose(got.probabilities["text"], want, rtol=1e-12)
  length = np.linalg.norm(got.features["image"], axis=1)
  np.testing.assert_allclose(length, 1, rtol=1e-12)
  straight = evaluate(step, state(), batches(inputs, labels))
  assert got["image"]["map"] == straight["image"]["map"]


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e300, 0.0])
def test_padding_has_no_influence(junk):
  inputs, labels = samples(NAMES[:2])
  step = make_eval_step(problem(NAMES[:2]), method())
  want = evaluate(step, state(), batches(inputs, labels, junk=1.0))
  got = evaluate(step, state(), batches(inputs, labels, junk=junk))
  assert got.metrics == want.metrics
  for m in got.features:
    np.testing.assert_array_equal(got.features[m], want.features[m])


def test_one_compile_and_same_bits():
  names, compiled = NAMES[:2], []
  inner = problem(names)

  def forward(*args, **kwargs):
    compiled.append(1)
    return inner.forward(*args, **kwargs)

  step = make_eval_step(toys.bare_problem(forward, names), method())
  inputs, labels = samples(names)
  first = evaluate(step, state(), batches(inputs, labels))
  second = evaluate(step, state(), batches(inputs, labels))
  assert len(compiled) == 1
  assert first.metrics == second.metrics
  for head in first.probabilities:
    a, b = first.probabilities[head], second.probabilities[head]
    np.testing.assert_array_equal(a, b)


def test_sharded_is_the_same():
  inputs, labels = samples(NAMES[:2])
  mesh = jax.make_mesh((8,), ("b",))
  split = jax.NamedSharding(mesh, jax.P("b"))
  step = make_eval_step(problem(NAMES[:2]), method())
  whole = evaluate(step, state(), batches(inputs, labels))
  parts = evaluate(
    step,
    state(),
    batches(inputs, labels),
    place=lambda batch: jax.device_put(batch, split),
  )
  for name, value in whole.flat().items():
    np.testing.assert_allclose(parts.flat()[name], value, rtol=1e-12)


def test_method_gives_the_fused_logits():
  inputs, labels = samples(NAMES[:2])

  def predict(outputs, weight):
    return weight * outputs.unimodal["text"]

  step = make_eval_step(problem(NAMES[:2]), method(predict))
  got = evaluate(step, state(jnp.ones(())), batches(inputs, labels))
  assert got["fused"] == got["text"] != got["image"]


def test_absent_classes():
  """Class 4 is no label; it counts for F1 where it is predicted."""
  inputs, labels = samples(("text",), classes=4)
  step = make_eval_step(problem(("text",)), method())
  for shift in (-9.0, 0.0, 3.0):
    inputs["text"][:, 4] += shift
    got = evaluate(step, state(), batches(inputs, labels))
    assert_same(got["text"], oracle(inputs["text"][:, :K], labels))


def test_only_features_of_one_size_are_compared():
  def forward(params, stats, inputs, key, train, present=None):
    logits = {m: x[:, :K] for m, x in inputs.items()}
    sizes = {"image": D, "text": D - 1, "audio": D}
    z = {m: x[:, K : K + sizes[m]] for m, x in inputs.items()}
    return Outputs(logits["text"], logits, z), stats

  inputs, labels = samples(NAMES)
  step = make_eval_step(toys.bare_problem(forward, NAMES), method())
  got = evaluate(step, state(), batches(inputs, labels))
  assert list(got["gap"]["centroid"]) == ["audio-image"]
  assert got.features["text"].shape == (23, D - 1)


def test_diverged_model_scores_nothing():
  inputs, labels = samples(("text",))
  inputs["text"][:, 1] = np.nan
  step = make_eval_step(problem(("text",)), method())
  got = evaluate(step, state(), batches(inputs, labels))["text"]
  assert got["accuracy"] == got["macro_f1"] == 0
  assert got["balanced_accuracy"] == 0
  assert np.isnan(got["map"]) and np.isnan(got["loss"])


def test_float32_and_bfloat16():
  inputs, labels = samples(NAMES[:2])
  want = oracle(inputs["text"][:, :K], labels)
  step = make_eval_step(problem(NAMES[:2]), method())
  for dtype, rtol in ((jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)):
    low = (
      b.replace(inputs={m: jnp.asarray(x, dtype) for m, x in b.inputs.items()})
      for b in batches(inputs, labels)
    )
    got = evaluate(step, state().replace(params=jnp.ones((), dtype)), low)
    assert got.probabilities["text"].dtype == np.float32
    np.testing.assert_allclose(got["text"]["loss"], want["loss"], rtol=rtol)


def test_flat_and_report(tmp_path):
  inputs, labels = samples(NAMES[:2])
  step = make_eval_step(problem(NAMES[:2]), method())
  got = evaluate(step, state(), batches(inputs, labels))
  save_features(tmp_path, got)
  (distance,) = pairs(load_features(tmp_path)).values()
  want = got["gap"]["centroid"]["image-text"]
  np.testing.assert_allclose(distance, want, rtol=1e-12)
  flat = got.flat()
  assert flat["image/macro_f1"] == got["image"]["macro_f1"]
  assert flat["gap/accuracy"] == got["gap"]["accuracy"]
  assert "gap/centroid/image-text" in flat and len(flat) == 3 * 5 + 2
  assert all(type(value) is float for value in flat.values())


def test_nothing_to_evaluate():
  inputs, labels = samples(("text",))
  step = make_eval_step(problem(("text",)), method())
  with pytest.raises(ValueError, match="split is empty"):
    evaluate(step, state(), [])
  padding = next(batches(inputs, labels))
  padding = padding.replace(mask=np.zeros_like(padding.mask))
  with pytest.raises(ValueError, match="holds only padding"):
    evaluate(step, state(), [padding])


@pytest.mark.parametrize("name", [ev.FUSED, ev.GAP])
def test_reserved_names(name):
  with pytest.raises(ValueError, match=f"cannot be called '{name}'"):
    make_eval_step(problem(("text", name)), method())


def test_other_bad_names():
  with pytest.raises(ValueError, match="'/'"):
    check_names(("a/b",))
  with pytest.raises(ValueError, match="share a name"):
    check_names(("a", "a"))
  check_names(("a", "b"))
