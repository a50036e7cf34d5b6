"""Weights of classes: formulas, what is refused, and how far they reach."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.utils.class_weight import compute_class_weight

import given
import toys
from data_pipelines import core
from dmg_jax import losses
from dmg_jax.config import class_weights
from dmg_jax.evaluation import metrics, probe
from dmg_jax.evaluation.scores import balanced_accuracy
from dmg_jax.methods import _terms, domfn, joint, lb, reconboost
from dmg_jax.training import sharding, steps
from helpers import toy_dataset

CLASSES = ("cat", "dog", "rare, very")
WEIGHTS = np.array([0.5, 3.0, 1.0])


def test_balanced_is_the_formula_of_scikit_learn():
  labels = np.repeat([0, 1, 2], [50, 9, 3])
  found = class_weights.resolve("balanced", CLASSES, np.bincount(labels))
  want = compute_class_weight("balanced", classes=np.arange(3), y=labels)
  np.testing.assert_allclose(found, want, rtol=1e-12)


@pytest.mark.parametrize(
  "text", ["dog=4", "cat=1,dog=4.0", '{"dog": 4}', '{"dog": 4, "cat": 1}']
)
def test_tables(text):
  found = class_weights.resolve(text, CLASSES, [4, 2, 2])
  np.testing.assert_allclose(found, np.array([1, 4, 1]) / 1.75)


def test_a_class_that_train_lacks_has_weight_one():
  found = class_weights.resolve("balanced", CLASSES, [6, 2, 0])
  np.testing.assert_allclose(found, [4 / 6, 2, 1])


@pytest.mark.parametrize("text", ["", "cat=2,dog=2,rare=1"])
def test_equal_weights_are_none(text):
  names = ("cat", "dog")
  text = text.replace(",rare=1", "")
  assert class_weights.resolve(text, names, [5, 1]) is None
  assert class_weights.resolve("balanced", names, [5, 5]) is None


@pytest.mark.parametrize(
  "text,said",
  [
    ("cta=2", "'cta'; did you mean 'cat'"),
    ("cat=-1", "'cat' must be a number of at least 0, got '-1'"),
    ("cat=nan", "'cat' must be a number of at least 0, got 'nan'"),
    ("cat=inf", "got 'inf'"),
    ("cat=much", "got 'much'"),
    ('{"cat": true}', "got True"),
    ('{"cat": 1, "cat": 2}', "names the class 'cat' twice"),
    ('{"cat": 1', "is no JSON object"),
    ("{}", "names no class"),
    ("cat", "has 'cat' without a weight"),
    ("cat=1,,dog=2", "has '' without a weight"),
    ('{"cat": 0, "dog": 0, "rare, very": 0}', "a weight above 0"),
    ("cat=0,dog=0", "a weight above 0"),  # Train has no other class.
  ],
)
def test_what_is_refused(text, said):
  with pytest.raises(ValueError, match=r"train\.class_weights") as error:
    class_weights.resolve(text, CLASSES, [3, 2, 0])
  assert said in str(error.value)


def test_a_table_becomes_text_and_back():
  table = {"a=b": np.float32(2), "c,d": 1, 3: 0.5}
  text = class_weights.to_text(table)
  assert class_weights.parse(text) == {"a=b": 2, "c,d": 1, "3": 0.5}
  with pytest.raises(ValueError, match="'a' must be a number"):
    class_weights.to_text({"a": None})


def weighted(batch, relative=True):
  return losses.with_class_weights(batch, WEIGHTS, relative)


def test_the_mean_is_that_of_torch():
  torch = pytest.importorskip("torch")
  batch = toys.batch(1, 12)
  mask = np.arange(12) < 9
  logits = np.random.default_rng(0).normal(size=(12, 3))
  batch = weighted(batch.replace(mask=jnp.asarray(mask, jnp.float32)))
  ours = _terms.cross_entropy(jnp.asarray(logits), batch)
  theirs = torch.nn.functional.cross_entropy(
    torch.tensor(logits[mask]),
    torch.tensor(np.asarray(batch.labels)[mask]).long(),
    weight=torch.tensor(WEIGHTS),
  )
  np.testing.assert_allclose(ours, theirs.item(), rtol=1e-6)


def test_a_batch_without_weight_has_no_loss():
  batch = toys.batch(1).replace(labels=jnp.zeros(8, jnp.int32))
  none = losses.with_class_weights(batch, np.array([0.0, 1, 1]))
  logits = jnp.ones((8, 3))
  slope = jax.grad(lambda o: _terms.cross_entropy(o, none))(logits)
  assert float(_terms.cross_entropy(logits, none)) == 0 and not slope.any()
  assert losses.with_class_weights(batch, None) is batch


def test_weight_zero_is_a_sample_left_out():
  run, batch = toys.run_of("joint"), toys.batch(2)
  zero = np.array([0.0, 1, 1])
  left = batch.replace(mask=(batch.labels > 0).astype(jnp.float32))
  _, one = run.step(run.fresh(), losses.with_class_weights(batch, zero))
  _, two = run.step(run.fresh(), left)
  np.testing.assert_allclose(one["loss"], two["loss"], rtol=1e-6)


def test_the_square_of_domfn_is_weighted_once():
  value = given.values()
  outputs = given.problem(value).outputs
  batch = given.batch().replace(weight=jnp.full(given.SAMPLES, 2.0))
  double = domfn.terms(outputs, batch, 0.0, 0.8, 0.2, False)
  single = domfn.terms(outputs, given.batch(), 0.0, 0.8, 0.2, False)
  for a, b in zip(double[:2], single[:2], strict=True):
    np.testing.assert_allclose(a, 2 * b, rtol=1e-6)


def test_the_outer_loss_in_parts_is_the_whole():
  problem, params, stats = toys.problem(2)
  batch = weighted(toys.batch(2, 8))
  args = problem, params, stats, batch
  whole = lb.heldout_loss(*args, 8)
  parts = lb.heldout_loss(*args, 3, separate=True)
  plain = lb.heldout_loss(problem, params, stats, toys.batch(2, 8), 8)
  np.testing.assert_allclose(parts, whole, rtol=1e-6)
  assert abs(float(plain - whole)) > 1e-3


def test_both_batches_of_an_outer_step_are_weighted():
  run = toys.run_of("lb")
  inner, outer = toys.batch(2), toys.batch(2, seed=9)
  step = steps.make_outer_step(run.problem, run.method, weights=WEIGHTS)
  want, _ = run.outer(run.fresh(), weighted(inner), weighted(outer))
  got, _ = step(run.fresh(), inner, outer, seed=0)
  toys.assert_close(got.method, want.method, rtol=1e-6)
  half, _ = run.outer(run.fresh(), weighted(inner), outer)
  assert not toys.same(half.method, want.method)


def test_eight_devices_divide_by_the_mean_of_the_whole_batch():
  mesh = sharding.make_mesh(8)
  run, batch = toys.run_of("joint"), toys.batch(2)
  step = steps.make_train_step(
    run.problem, run.method, run.apply, donate=False, weights=WEIGHTS
  )
  _, here = step(run.fresh(), batch, 0)
  state = sharding.replicate(mesh, run.fresh())
  _, there = step(state, sharding.make_place(mesh)(batch), 0)
  np.testing.assert_allclose(there["loss"], here["loss"], rtol=1e-6)


def test_reconboost_and_the_fused_loss():
  """A boosting loss is a factor times a cross-entropy."""
  value = given.values()
  scale = {"scale": jnp.ones(())}
  outputs = given.problem(value, scale).outputs
  batch = given.batch().replace(weight=jnp.full(given.SAMPLES, 2.0))
  double = reconboost.boosts(outputs, batch, 5.0, 1.0)
  single = reconboost.boosts(outputs, given.batch(), 5.0, 1.0)
  for m, x in double.items():
    np.testing.assert_allclose(x, 2 * single[m], rtol=1e-6)
  cls, _ = joint.classification(outputs, batch)
  plain, _ = joint.classification(outputs, given.batch())
  np.testing.assert_allclose(cls, 2 * plain, rtol=1e-6)


def test_probes_are_fitted_with_the_weights():
  rng = np.random.default_rng(0)
  y = np.repeat([0, 1, 2], [60, 20, 10])
  x = rng.normal(size=(90, 2)) + 0.5 * y[:, None]
  data = probe.LabelledFeatures(x, y)
  found = probe.fit(data, data, x, WEIGHTS)
  z = (x - x.mean(axis=0)) / x.std(axis=0)
  table = dict(enumerate(WEIGHTS))
  model = LogisticRegression(
    C=found.strength, max_iter=1000, class_weight=table
  )
  assert (model.fit(z, y).predict(z) == found.predicted).all()
  assert (probe.fit(data, data, x).predicted != found.predicted).any()


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_balanced_accuracy_is_that_of_scikit_learn():
  rng = np.random.default_rng(1)
  for size in (3, 40):
    labels = rng.integers(0, 4, size) * 2  # Classes 1, 3, 5 do not occur.
    predicted = np.where(rng.random(size) < 0.5, labels, 0)
    want = balanced_accuracy_score(labels, predicted)
    assert balanced_accuracy(labels, predicted) == pytest.approx(want)
  wrong = np.full(3, -1)
  assert balanced_accuracy(np.array([0, 2, 2]), wrong) == 0


def test_the_loss_of_an_evaluation_has_no_weights():
  run = toys.run_of("joint")
  step = metrics.make_eval_step(run.problem, run.method)
  state, batch = run.fresh(), toys.batch(2)
  plain = metrics.evaluate(step, state, [batch])
  same = metrics.evaluate(step, state, [weighted(batch)])
  assert plain["fused"] == same["fused"]


def test_labels_are_read_wherever_they_are():
  data = toy_dataset(("array", "image"), 20)
  source = data.sources["train"]
  want = [source[i]["label"] for i in range(20)]
  assert core.labels(source).tolist() == want
  selected = data.select(["array"]).sources["train"]
  assert core.labels(selected).tolist() == want
  records = [{"label": c} for c in want]
  decoded = core.Decoded(records, lambda r: {"inputs": {}, "id": "", **r})
  assert core.labels(decoded).tolist() == want
