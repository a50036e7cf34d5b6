"""CPSC and its fusion against their equations, in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import toys
from dmg_jax import losses
from dmg_jax.methods import _conformal, cpsc

SGD = {"optimiser": "sgd", "rate": 1.0, "momentum": 0.0}


def cross_entropy(logits, labels):
  labels = np.asarray(labels)
  return -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]


def dense(z, p):
  return np.float64(z) @ np.float64(p["kernel"]) + np.float64(p["bias"])


def test_components_are_a_head_and_a_network_of_variants():
  bound, params, _ = toys.problem(3, "components")
  out, _ = bound.run(params, {}, toys.batch(3))
  for m, z in out.features.items():
    own = params["fusion"][f"head_{m}"]
    np.testing.assert_allclose(
      out.unimodal[m], dense(z, own["out"]), rtol=1e-4, atol=1e-5
    )
    flat = dense(np.maximum(dense(z, own["hidden"]), 0), own["variants"])
    variants = out.extra["variants"][m]
    assert variants.shape == (8, 10, 6)
    np.testing.assert_allclose(
      variants, flat.reshape(8, 10, 6), rtol=1e-4, atol=1e-5
    )
  mean = np.mean(list(out.unimodal.values()), axis=0)
  np.testing.assert_allclose(out.logits, mean, rtol=1e-4, atol=1e-6)


def js(p, q):
  p, q = softmax(np.float64(p), axis=-1), softmax(np.float64(q), axis=-1)
  m = (p + q) / 2
  each = p * np.log(p / m) + q * np.log(q / m)
  return each.sum(axis=-1) / 2


def test_jensen_shannon():
  p, q = np.random.default_rng(0).normal(size=(2, 5, 4))
  mask = jnp.asarray([1.0, 1, 0, 1, 1])
  found = losses.jensen_shannon(jnp.asarray(p), jnp.asarray(q), mask)
  np.testing.assert_allclose(found, js(p, q)[[0, 1, 3, 4]].mean(), rtol=1e-6)
  same = losses.jensen_shannon(jnp.asarray(p), jnp.asarray(p), mask)
  np.testing.assert_allclose(same, 0, atol=1e-7)
  one, other = 99 * jnp.eye(5, 4), 99 * jnp.eye(5, 4)[:, ::-1]
  far = losses.jensen_shannon(one, other, jnp.asarray([1.0, 1, 1, 1, 0]))
  np.testing.assert_allclose(far, np.log(2), rtol=1e-6)


@pytest.mark.parametrize(
  ("n", "alpha", "place"),
  [(9, 0.2, 8), (10, 0.2, 9), (4, 0.2, 4), (3, 0.2, None), (16, 0.2, 14)],
)
def test_threshold_is_the_conformal_quantile(n, alpha, place):
  doubt = np.random.default_rng(n).permutation(n) / n
  expected = 1.0 if place is None else (place - 1) / n
  assert _conformal.threshold(doubt, alpha, False) == expected


def test_threshold_covers():
  """A new sample is in the set with probability of at least 1 - α."""
  rng = np.random.default_rng(0)
  hits = []
  for _ in range(4000):
    doubt = rng.random(15)
    hits.append(doubt[0] <= _conformal.threshold(doubt[1:], 0.25, False))
  assert 0.75 - 0.02 < np.mean(hits) < 0.82


def test_threshold_of_nobody_trusts_every_class():
  for faithful in (False, True):
    assert _conformal.threshold(np.zeros(0), 0.2, faithful) == 1


def test_reliability_is_one_over_the_rank_in_the_set():
  p = np.array([[0.5, 0.3, 0.2]] * 4)
  classes = jnp.asarray([0, 1, 2, 1])
  found = _conformal.reliability(jnp.log(p), classes, jnp.float32(0.75))
  np.testing.assert_allclose(found, [1, 1 / 2, 0, 1 / 2])
  found = _conformal.reliability(jnp.log(p), classes, jnp.float32(1))
  np.testing.assert_allclose(found, [1, 1 / 2, 1 / 3, 1 / 2])


def active(run, limit, names):
  limit = {m: jnp.float32(limit) for m in (*names, "fused")}
  state = run.fresh()
  memory = state.method.replace(active=jnp.float32(1), limit=limit)
  return state.replace(method=memory)


def test_the_most_reliable_variants_are_chosen():
  run, mix = toys.Run(cpsc.make(mix=1.0), 2, "components"), 1.0
  params = jax.tree.map(lambda w: 4 * w, run.params)
  batch = toys.batch(2)
  out, _ = run.problem.run(params, {}, batch)
  memory = active(run, 0.9, ("image", "text")).method
  found = cpsc.chosen(
    out.features,
    out.extra["variants"],
    lambda z: run.problem.fuse(params, {}, z, None, True),
    memory,
    batch,
    mix,
  )
  several = 0
  for m, raw in out.extra["variants"].items():
    z, head = np.float64(out.features[m]), params["fusion"][f"head_{m}"]["out"]
    for i, y in enumerate(np.asarray(batch.labels)):
      v = np.float64(raw[i])
      v = v * np.linalg.norm(z[i]) / np.linalg.norm(v, axis=1, keepdims=True)
      p = softmax(dense(v, head), axis=-1)
      rank = 1 + (p > p[:, [y]]).sum(axis=1)
      sure = np.where(p[:, y] >= 0.1, 1 / rank, 0)
      several += len(set(sure)) > 1
      best = np.argsort(-sure, kind="stable")[:3]
      expected = v[best].mean(axis=0)
      np.testing.assert_allclose(found[m][i], expected, rtol=1e-3, atol=1e-4)
  assert several > 4


def variety_by_hand(z, raw, there):
  near = np.mean([js(raw[:, i], z)[there].mean() for i in range(10)])
  pairs = itertools.combinations(range(10), 2)
  far = np.mean([js(raw[:, i], raw[:, j])[there].mean() for i, j in pairs])
  return 0.8 * near - 0.2 * far


@pytest.mark.slow
def test_loss_of_three_modalities_with_missing_ones():
  run = toys.run_of("cpsc", 3)
  rows = {m: np.ones(8, np.float32) for m in toys.NAMES}
  rows["image"][:3] = rows["audio"][2:4] = 0
  present = {m: jnp.asarray(row) for m, row in rows.items()}
  batch = toys.batch(3).replace(present=present)
  out, _ = run.problem.run(run.params, {}, batch)
  y, there = np.asarray(batch.labels), {m: r > 0 for m, r in rows.items()}
  own = sum(
    cross_entropy(out.unimodal[m], y)[there[m]].mean() for m in toys.NAMES
  )
  spread = sum(
    variety_by_hand(out.features[m], out.extra["variants"][m], there[m])
    for m in toys.NAMES
  )
  match = np.mean([
    js(out.unimodal[a], out.unimodal[b])[there[a] & there[b]].mean()
    for a, b in itertools.combinations(toys.NAMES, 2)
  ])  # fmt: skip
  cls = cross_entropy(out.logits, y).mean()
  expected = 2 * (0.8 * cls + 0.2 * own + match + spread)
  _, metrics = run.step(run.fresh(), batch)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-4)
  np.testing.assert_allclose(metrics["matching"], match, rtol=1e-4)
  np.testing.assert_allclose(metrics["variants"], spread, rtol=1e-4)


@pytest.mark.slow
def test_what_a_missing_modality_holds_has_no_influence():
  run, batch = toys.run_of("cpsc", 3), toys.batch(3)
  row = jnp.asarray([0, 1, 1, 1, 1, 1, 0, 1], jnp.float32)
  batch = batch.replace(present={"text": row})
  states = []
  for garbage in (0.0, 50.0):
    text = batch.inputs["text"].at[0].set(garbage).at[6].set(garbage)
    inputs = {**batch.inputs, "text": text}
    state = active(run, 0.9, toys.NAMES)
    states.append(run.step(state, batch.replace(inputs=inputs)))
  toys.assert_close(*states)


@pytest.mark.parametrize(("limit", "factor"), [(0.0, 0.6), (1.0, 1.2)])
def test_gradients_of_encoders_go_by_reliability(limit, factor):
  """No class is in the set, or the predicted one is the first of it."""
  run = toys.Run(cpsc.make(mix=0.0), 2, "components", **SGD)
  batch, moved = toys.batch(2), []
  for state in (run.fresh(), active(run, limit, ("image", "text"))):
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = run.step(state, batch)
    moved.append(jax.tree.map(np.subtract, state.params, before))
  plain, scaled = moved
  toys.assert_close(scaled["fusion"], plain["fusion"], rtol=1e-3, atol=1e-5)
  for m in ("image", "text"):
    key = f"encoders_{m}"
    expected = jax.tree.map(lambda g: factor * g, plain[key])
    toys.assert_close(scaled[key], expected, rtol=1e-3, atol=1e-5)
  assert float(metrics["reliability"]) == (0 if limit == 0 else 1)


def test_gradients_are_scaled_by_sample():
  z = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
  factor = jnp.asarray([[0.6], [1.2], [0.9]])
  value, pull = jax.vjp(lambda z: cpsc.scaled(z, factor), z)
  np.testing.assert_array_equal(value, z)
  np.testing.assert_allclose(pull(jnp.ones_like(z))[0][:, 0], factor[:, 0])


def test_the_predictor_is_measured_on_outer_before_each_epoch():
  run = toys.Run(cpsc.make(start=2, alpha=0.3), 2, "components")
  data, state = toys.ToyData(2), run.fresh()
  assert toys.same(run.between(state, data, 1).method, state.method)
  params = jax.tree.map(lambda w: 1.5 * w, state.params)
  state = run.between(state.replace(params=params), data, 2)
  doubt = {"image": [], "text": [], "fused": []}
  for batch in data.batches("outer"):
    out, _ = run.problem.run(params, {}, batch)
    for h, o in {**out.unimodal, "fused": out.logits}.items():
      doubt[h].extend(1 - np.exp(-cross_entropy(o, batch.labels)))
  for h, each in doubt.items():  # The 12th of 16, ⌈17 · .7⌉.
    expected = np.sort(each)[11]
    np.testing.assert_allclose(state.method.limit[h], expected, rtol=1e-4)
  heads = jax.tree.leaves(params["fusion"])
  assert toys.same(state.method.heads, heads)
  assert float(state.method.active) == 1
  # The next step changes the heads, and not those of the predictor.
  after, _ = run.step(jax.tree.map(jnp.copy, state), toys.batch(2))
  assert toys.same(after.method, state.method)
  whole = cpsc.with_heads(run.problem, after.params, after.method.heads)
  assert toys.same(whole["fusion"], params["fusion"])
  assert not toys.same(after.params["fusion"], params["fusion"])


@pytest.mark.parametrize(
  ("options", "fusion", "words"),
  [
    ({"alpha": 1}, "components", "alpha must lie"),
    ({"start": -1}, "components", "start must lie"),
    ({"mix": 2}, "components", "mix must lie"),
    ({}, "own_heads", "fusion=components"),
  ],
)
def test_refuses(options, fusion, words):
  with pytest.raises(ValueError, match=words):
    toys.Run(cpsc.make(**options), 2, fusion).fresh()


def test_components_refuses():
  with pytest.raises(ValueError, match="variants of at least 2"):
    toys.problem(2, "components", fusion_options=(("variants", 1),))


def test_an_empty_outer_split_is_refused():
  run, data = toys.Run(cpsc.make(start=0), 2, "components"), toys.ToyData(2)
  data.batches = lambda split: iter(())
  with pytest.raises(ValueError, match="outer, which is empty"):
    run.between(run.fresh(), data, 0)
