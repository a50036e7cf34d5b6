"""AUG and BSS against their equations, in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import toys
from dmg_jax.methods import aug, bss


def cross_entropy(logits, labels):
  return -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]


def with_boosters(state, counts):
  counts = {m: jnp.int32(n) for m, n in counts.items()}
  return {**state.stats, "boosters": {"fusion": counts}}


@pytest.fixture
def run():
  return toys.run_of("aug", 2)


def logits_by_hand(params, z, m, n):
  """{k: f_{m,k}} of the active boosters."""
  own = jax.tree.map(np.float64, params["fusion"][f"head_{m}"])
  head = jax.tree.map(np.float64, params["fusion"]["head"])
  hidden = [
    np.maximum(np.float64(z) @ own["kernel"][k] + own["bias"][k], 0)
    for k in range(n + 1)
  ]
  return [h @ head["kernel"] + head["bias"] for h in hidden]


@pytest.mark.parametrize("n", [0, 1, 3])
def test_boosters_add_up(run, n):
  state, batch = run.fresh(), toys.batch(2)
  stats = with_boosters(state, {"image": n, "text": 0})
  out, _ = run.problem.forward(state.params, stats, batch.inputs, None, False)
  f = logits_by_hand(state.params, out.features["image"], "image", n)
  np.testing.assert_allclose(out.unimodal["image"], sum(f), rtol=1e-4)
  np.testing.assert_allclose(out.extra["last"]["image"], f[-1], rtol=1e-4)
  before = sum(f[:-1]) if n else f[0]
  got = out.extra["previous"]["image"]
  np.testing.assert_allclose(got, before, rtol=1e-3, atol=1e-5)
  mean = sum(out.unimodal.values()) / 2
  np.testing.assert_allclose(out.logits, mean, rtol=1e-5)


def test_a_full_classifier_stays_full(run):
  state, batch = run.fresh(), toys.batch(2)
  logits = []
  for n in (10, 11):
    stats = with_boosters(state, {"image": n, "text": n})
    out, _ = run.problem.forward(state.params, stats, batch.inputs, None, False)
    logits.append(out.logits)
  assert np.isfinite(logits[0]).all()
  np.testing.assert_array_equal(*logits)


@pytest.mark.parametrize("n", [0, 2])
def test_aug_loss(run, n):
  state, batch, sigma = run.fresh(), toys.batch(2), 0.5
  stats = with_boosters(state, {"image": n, "text": 0})
  got, (out, _) = aug.turn(
    state.params, run.problem, stats, batch, jax.random.key(0), "image", sigma
  )
  y = np.asarray(batch.labels)
  f = logits_by_hand(state.params, out.features["image"], "image", n)
  expected = cross_entropy(sum(f), y).mean()
  if n:
    before = sum(f[:-1])
    p = softmax(before, axis=-1)[np.arange(8), y]
    residual = ((1 - sigma * p) * cross_entropy(f[-1], y)).mean()
    expected += cross_entropy(before, y).mean() + residual
  np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_aug_trains_the_boosters_in_use(run):
  start = run.fresh()
  state = start.replace(stats=with_boosters(start, {"image": 1, "text": 0}))
  old = jax.tree.map(np.asarray, start.params["fusion"])
  state, _ = run.step(state, toys.batch(2))
  for m, used in (("image", 2), ("text", 1)):
    now, was = state.params["fusion"][f"head_{m}"], old[f"head_{m}"]
    moved = [not np.array_equal(a, b) for a, b in zip(
      now["kernel"], was["kernel"], strict=True
    )]  # fmt: skip
    assert moved == [True] * used + [False] * (11 - used)


@pytest.mark.parametrize(
  ("scores", "weak"),
  [
    ({"a": 3.0, "b": 2.0}, "b"),
    ({"a": 2.0, "b": 3.0}, "a"),
    ({"a": 1.0, "b": 1.005}, None),
    ({"a": 3.0, "b": 2.0, "c": 1.0}, "c"),
    ({"a": 3.0}, None),
  ],
)
def test_aug_who_is_behind(scores, weak):
  found = aug.behind({m: jnp.float32(s) for m, s in scores.items()}, 0.01)
  assert found == weak


def test_aug_adds_after_the_first_epoch_and_then_in_tenths(run):
  data, grown = toys.ToyData(2, epochs=40), []
  state = run.fresh()
  for epoch in range(13):
    scores = {"image": jnp.float32(2), "text": jnp.float32(1)}
    state = state.replace(method=aug.State(scores))
    before = int(state.stats["boosters"]["fusion"]["text"])
    state = run.between(state, data, epoch)
    if int(state.stats["boosters"]["fusion"]["text"]) > before:
      grown.append(epoch)
    assert float(state.method.scores["image"]) == 0
  assert grown == [1, 4, 8, 12]


def test_bss_difficulty():
  run, data = toys.run_of("bss", 3), toys.ToyData(3)
  state = run.between(run.fresh(), data, 0)
  loss, alike, index = [], [], []
  for batch in data.batches("train"):
    out, _ = run.problem.forward(state.params, {}, batch.inputs, None, False)
    y = np.asarray(batch.labels)
    own = [np.float64(o) for o in out.unimodal.values()]
    heads = [np.float64(out.logits), *own]
    loss.append(sum(cross_entropy(o, y) for o in heads))
    p = [softmax(o, axis=-1) for o in own]
    p = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in p]
    pairs = [(0, 1), (0, 2), (1, 2)]
    alike.append(np.mean([(p[a] * p[b]).sum(-1) for a, b in pairs], axis=0))
    index.append(batch.index)
  low, high = np.concatenate(loss), np.concatenate(alike)
  hat = [(x - x.min()) / (x.max() - x.min()) for x in (low, high)]
  expected = np.zeros(toys.SAMPLES)
  expected[np.concatenate(index)] = 1 - hat[1] + hat[0]
  np.testing.assert_allclose(state.method, expected, rtol=1e-4, atol=1e-5)


def test_bss_scaling_and_share():
  x = np.array([3.0, 1.0, 2.0])
  np.testing.assert_allclose(bss.scaled(x), [1, 0, 0.5])
  np.testing.assert_allclose(bss.scaled(np.ones(3)), 0)
  got = [bss.share(e, 0.1, 40) for e in (0, 9, 19, 29, 39, 80)]
  np.testing.assert_allclose(got, [0.186, 0.507, 0.711, 0.868, 1, 1], atol=6e-4)


def test_bss_draws_all_samples_the_balanced_first():
  d = jnp.concatenate([jnp.zeros(50), jnp.full(50, 2.0)])
  ranks = []
  for seed in range(20):
    order = np.asarray(bss.drawn(d, jax.random.key(seed)))
    assert sorted(order) == list(range(100))
    ranks.append(np.argsort(order)[:50].mean())
  assert np.mean(ranks) < 26  # 24.5 if every easy one came first.
  first = [int(bss.drawn(jnp.array([0.0, 1.0]), k)[0]) for k in
           jax.random.split(jax.random.key(1), 4000)]  # fmt: skip
  np.testing.assert_allclose(np.mean(first), 1.01 / 3.02, atol=0.03)


def test_bss_heuristic_repeats_the_easiest():
  d = np.arange(20)[::-1] / 10
  order = bss.easiest(jnp.asarray(d), 0.25, jax.random.key(0))
  assert len(order) == 20
  assert set(order) == {15, 16, 17, 18, 19}
  assert all(set(order[i : i + 5]) == set(order) for i in (0, 5, 10, 15))


def test_bss_predicts_the_sum():
  run = toys.run_of("bss", 2)
  out, _ = run.problem.forward(
    run.params, {}, toys.batch(2).inputs, None, False
  )
  expected = out.logits + sum(out.unimodal.values())
  got = run.method.predict(out, jnp.zeros(toys.SAMPLES))
  np.testing.assert_allclose(got, expected, rtol=1e-6)
