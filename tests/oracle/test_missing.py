"""What counts where samples lack modalities, against subsets in NumPy."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax import losses, missing, processes
from dmg_jax.evaluation import metrics
from dmg_jax.methods import _matching, _terms, joint

THERE = {
  "image": np.array([1, 1, 0, 1, 0, 1, 1, 1]),
  "text": np.array([1, 0, 1, 1, 1, 1, 1, 0]),
}


def lacking():
  batch = toys.batch(3)
  present = {m: jnp.asarray(row, jnp.float32) for m, row in THERE.items()}
  return batch.replace(present=present)


def rows(*modalities):
  found = np.ones(8, bool)
  for m in modalities:
    found &= THERE.get(m, np.ones(8)) > 0
  return found


@pytest.mark.parametrize("scaled", [False, True])
def test_matching_is_that_of_the_pairs_that_are_there(scaled):
  batch, rng = lacking(), np.random.default_rng(0)
  features = {m: jnp.asarray(rng.normal(size=(8, 4))) for m in batch.inputs}
  outputs = toys.Outputs(None, {}, features)
  got = _matching.Matching(scaled=scaled)(outputs, batch)
  each = []
  for a, b in itertools.combinations(features, 2):
    both = rows(a, b)
    nce = losses.info_nce(
      features[a][both], features[b][both], jnp.ones(both.sum())
    )
    each.append(nce / np.log(both.sum()) if scaled else nce)
  np.testing.assert_allclose(got, np.mean(each), rtol=1e-6)


def test_a_pair_that_nobody_has_does_not_count():
  batch = toys.batch(3)
  row = jnp.asarray([1, 1, 1, 1, 0, 0, 0, 0], jnp.float32)
  batch = batch.replace(present={"image": row, "text": 1 - row})
  z = {m: jnp.ones((8, 2)) for m in batch.inputs}
  count = losses.over_pairs(lambda x, y, mask: 1 + 0 * mask.sum(), z, batch)
  assert float(count) == 1


def test_losses_and_scores_of_a_modality_are_those_of_its_samples():
  batch, rng = lacking(), np.random.default_rng(1)
  logits = {m: jnp.asarray(rng.normal(size=(8, 3))) for m in batch.inputs}
  own = _terms.own(toys.Outputs(None, logits, {}), batch)
  scores = _terms.scores(logits, batch)
  for m, o in logits.items():
    each = losses.cross_entropy(o, batch.labels)[rows(m)]
    np.testing.assert_allclose(own[m], each.mean(), rtol=1e-6)
    p = _terms.true_class(o, batch.labels)[rows(m)]
    np.testing.assert_allclose(scores[m], 8 * p.mean(), rtol=1e-6)


def test_means_and_weights_over_what_is_there():
  batch, rng = lacking(), np.random.default_rng(2)
  x = {m: rng.normal(size=(8, 3)) for m in batch.inputs}
  there = np.stack([rows(m) for m in x])[:, :, None]
  stacked = np.stack(list(x.values()))
  mean = (stacked * there).sum(axis=0) / there.sum(axis=0)
  found = missing.mean({m: jnp.asarray(v) for m, v in x.items()}, batch.present)
  np.testing.assert_allclose(found, mean, rtol=1e-6)
  scores = {m: jnp.asarray(v[:, :1]) for m, v in x.items()}
  raw = np.where(there, np.exp(stacked[..., :1]), 0)
  np.testing.assert_allclose(
    missing.softmax(scores, batch.present), raw / raw.sum(axis=0), rtol=1e-6
  )


def test_metrics_count_what_is_there_and_tell_patterns():
  problem, params, stats = toys.problem(3, "sum")
  batch = lacking()
  step = metrics.make_eval_step(problem, joint.make())
  found = metrics.reduce([processes.gather(step(params, stats, (), batch))])
  outputs, _ = problem.run(params, stats, batch)
  labels = np.asarray(batch.labels)
  for m, o in outputs.unimodal.items():
    right = np.asarray(o).argmax(axis=1) == labels
    assert found[m]["accuracy"] == right[rows(m)].mean()
    gone = np.isnan(found.probabilities[m]).all(axis=1)
    assert (gone == ~rows(m)).all()
  right = np.asarray(outputs.logits).argmax(axis=1) == labels
  assert found["fused"]["accuracy"] == right.mean()
  expected = {
    "none": rows("image", "text"),
    "image": ~rows("image"),
    "text": ~rows("text"),
  }
  assert list(found["missing"]) == list(expected)
  for pattern, some in expected.items():
    assert found["missing"][pattern]["samples"] == some.sum()
    assert found["missing"][pattern]["accuracy"] == right[some].mean()


def test_a_modality_that_no_sample_has_is_nan_and_no_part_of_the_gap():
  problem, params, stats = toys.problem(3, "sum")
  batch = toys.batch(3).replace(present={"image": jnp.zeros(8)})
  step = metrics.make_eval_step(problem, joint.make())
  found = metrics.reduce([processes.gather(step(params, stats, (), batch))])
  assert np.isnan(found["image"]["accuracy"])
  own = [found[m]["accuracy"] for m in ("text", "audio")]
  assert found["gap"]["accuracy"] == max(own) - min(own)
  assert list(found["gap"]["centroid"]) == ["audio-text"]
