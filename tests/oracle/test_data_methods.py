"""Valuation, the released code's α and knobs at zero, in NumPy float64."""

import itertools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import numpy_toy as toy
import toys
from dmg_jax import losses
from dmg_jax.methods import _epochs, lfm_code, valuation


def concat_logits(params, z):
  """Fused logits of features."""
  head = params["fusion"]
  return sum(z[m] @ head[f"head_{m}"] for m in z) + head["bias"]


def test_valuation_of_all_patterns():
  patterns = np.array(list(itertools.product((0, 1), repeat=3)), bool)
  a, b, ab = patterns.T
  phi = valuation.contributions({"a": a, "b": b, "a/b": ab})
  expected = 0.5 * (1.0 * a + 2.0 * ab - 1.0 * b)
  np.testing.assert_allclose(phi["a"], expected)
  np.testing.assert_allclose(phi["b"], 0.5 * (1.0 * b + 2.0 * ab - 1.0 * a))
  assert set(expected) == {-0.5, 0, 0.5, 1, 1.5}
  table = {-0.5: 3, 0: 2, 0.5: 1, 1: 0, 1.5: 0}
  assert list(valuation.per_sample(phi["a"])) == [table[v] for v in expected]
  assert phi["a"][-1] == 1


def test_valuation_of_three_is_the_mean_over_orders():
  rng, names = np.random.default_rng(0), "cab"
  sets = [s for k in (1, 2, 3) for s in itertools.combinations(names, k)]
  right = {"/".join(s): rng.random(40) < 0.5 for s in sets}
  value = {frozenset(s): len(s) * right["/".join(s)] for s in sets}
  value[frozenset()] = np.zeros(40)
  phi = valuation.contributions(right)
  for m in names:
    gains = [
      value[frozenset(o[: o.index(m) + 1])] - value[frozenset(o[: o.index(m)])]
      for o in itertools.permutations(names)
    ]
    np.testing.assert_allclose(phi[m], np.mean(gains, axis=0), atol=1e-12)
  copies = valuation.per_modality(phi, 0.9)
  gap = {m: 1 - v.mean() for m, v in phi.items()}
  worst = max(gap, key=gap.get)
  ahead = gap[worst] - np.mean([g for m, g in gap.items() if m != worst])
  for m in names:
    expected = 2 / 3 * 0.9 * ahead if m == worst else 0.0
    np.testing.assert_allclose(copies[m], np.full(40, expected))


def alone(z, chosen):
  return {m: v * (m in chosen) for m, v in z.items()}


def test_valuation_reads_every_set_from_features():
  problem, params, stats = toys.problem(3, "concat")
  batch = toys.batch(3)
  found = jax.jit(valuation.correct, static_argnums=0)(
    problem, params, stats, batch
  )
  params = toy.double(params)
  z, y = toy.features(params, batch), np.asarray(batch.labels)
  assert len(found["correct"]) == 7
  for names, right in found["correct"].items():
    logits = concat_logits(params, alone(z, names.split("/")))
    assert (right == (logits.argmax(axis=1) == y)).all()
  assert (found["index"] == batch.index).all()


def test_valuation_step_counts_copies_as_rows():
  run = toys.Run(valuation.make(), 3, "concat", **toy.SGD)
  batch, state = toy.padded(3), run.fresh()
  batch = batch.replace(index=batch.index[::-1])
  rng = np.random.default_rng(0)
  copies = {m: rng.integers(0, 4, 16) for m in batch.inputs}
  plan = {m: jnp.asarray(c, jnp.float32) for m, c in copies.items()}
  state = state.replace(method=valuation.State(plan))
  params = toy.double(state.params)
  got, (_, metrics) = toy.gradient(run, state, batch)
  z, x = toy.features(params, batch), toy.double(batch.inputs)
  numbers = {"all": toy.MASK}
  for m, c in copies.items():
    numbers[m] = c[np.asarray(batch.index)] * toy.MASK
  count, loss, parts = sum(n.sum() for n in numbers.values()), 0.0, []
  for chosen, n in numbers.items():
    names = list(z) if chosen == "all" else [chosen]
    kept = alone(z, names)
    rows = batch.replace(mask=np.ones(8))
    logits = concat_logits(params, kept)
    loss += (toy.each_ce(logits, batch.labels) * n).sum() / count
    do = toy.ce_back(logits, rows) * 8 * n[:, None] / count
    part = {
      f"encoders_{m}": toy.encode_back(
        params, m, x[m], (m in names) * do @ params["fusion"][f"head_{m}"].T
      )
      for m in z
    }
    heads = {f"head_{m}": kept[m].T @ do for m in z}
    parts.append({**part, "fusion": {"bias": do.sum(axis=0), **heads}})
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  toy.close(got, toy.add(*parts))


@pytest.mark.parametrize("level", ["sample", "modality"])
def test_valuation_plans_after_the_warmup(monkeypatch, level):
  rng = np.random.default_rng(3)
  right = {s: rng.random(16) < q for s, q in
           (("image", 0.3), ("text", 0.8), ("image/text", 0.7))}  # fmt: skip
  index = rng.permutation(16)
  found = {"correct": right, "index": index, "present": {}}
  monkeypatch.setattr(_epochs, "sweep", lambda *_: found)
  run = toys.Run(valuation.make(level=level, alpha=0.6, warmup=2), 2)
  none = run.fresh()
  assert toys.same(run.between(none, toys.ToyData(2), 1), run.fresh())
  state = run.between(run.fresh(), toys.ToyData(2), 2)
  a, b, ab = (right[s] * 1.0 for s in right)
  phi = {"image": (a + 2 * ab - b) / 2, "text": (b + 2 * ab - a) / 2}
  for m, v in phi.items():
    expected = np.digitize(-v, [-1 + 1e-9, -0.4, 0.1])
    if level == "modality":
      ahead = phi["text"].mean() - phi["image"].mean()
      assert ahead > 0
      expected = np.full(16, 2 / 3 * ahead * 0.6 * (m == "image"))
    got = np.asarray(state.method.copies[m])[index]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_valuation_draws_fractions_and_no_padding():
  batch = toy.padded(2, seed=1)
  plan = {m: jnp.full(16, 1.25, jnp.float32) for m in batch.inputs}
  keys = jax.random.split(jax.random.key(0), 4000)
  got = jax.vmap(lambda k: valuation.drawn(plan, batch, k)["text"])(keys)
  assert set(np.unique(got[:, toy.MASK > 0])) == {1.0, 2.0}
  np.testing.assert_allclose(got.mean(axis=0), 1.25 * toy.MASK, atol=0.03)


def divergence(a, b):
  """Σ m (log m - ½ log pq) of each row."""
  p, q = softmax(a, axis=1), softmax(b, axis=1)
  m = (p + q) / 2
  return (m * (np.log(m) - 0.5 * np.log(p * q))).sum(axis=1)


def divergence_back(a, b):
  """Gradient by ``a``."""
  p, q = softmax(a, axis=1), softmax(b, axis=1)
  m = (p + q) / 2
  by_p = (np.log(m) + 1 - 0.5 * np.log(p * q)) / 2 - m / (2 * p)
  return p * (by_p - (p * by_p).sum(axis=1, keepdims=True))


def lfm_gradient(params, batch, k):
  """Gradient of (1 - k) CE(mean of own heads) + k AG."""
  z, x = toy.features(params, batch), toy.double(batch.inputs)
  head = params["fusion"]
  o = {m: toy.dense(head[f"head_{m}"], z[m]) for m in z}
  names = list(o)
  do = toy.ce_back(sum(o.values()) / 2, batch) / 2
  out = {"fusion": {}}
  for m, other in (names, names[::-1]):
    mine = (1 - k) * do + k * divergence_back(o[m], o[other]) / len(x[m])
    p = head[f"head_{m}"]
    out["fusion"][f"head_{m}"] = toy.dense_back(z[m], mine)
    dz = mine @ p["kernel"].T
    out[f"encoders_{m}"] = toy.encode_back(params, m, x[m], dz)
  return out


def test_lfm_code_step_against_a_dense_hessian():
  """H by central differences of NumPy gradients, in float64 throughout."""
  method = lfm_code.make(rate=40.0, halve_every=3)
  run = toys.Run(method, 2, "sum", fusion_options=(("mean", True),))
  state, data = run.fresh(), toys.ToyData(2)
  params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), state.params)
  k = 0.55
  state = state.replace(params=params, method=lfm_code.State(jnp.float32(k)))
  batch = next(data.batches("outer"))
  flat, back = jax.flatten_util.ravel_pytree(params)
  flat = np.asarray(flat)

  def gradient(w, k):
    tree = toy.double(back(jnp.asarray(w)))
    return np.asarray(
      jax.flatten_util.ravel_pytree(lfm_gradient(tree, batch, k))[0]
    )

  steps = 1e-5 * np.eye(len(flat))
  dense = [gradient(flat + e, k) - gradient(flat - e, k) for e in steps]
  hessian = np.array(dense) / 2e-5
  np.testing.assert_allclose(hessian, hessian.T, atol=1e-5)
  product = toy.double(back(jnp.asarray(hessian @ gradient(flat, 0.0))))
  first = product["encoders_image"]["Dense_0"]["kernel"].mean()
  got = float(run.between(state, data, 7).method.alpha)
  assert abs(got - k) > 1e-3
  np.testing.assert_allclose(got, k - 40.0 / 4 * first, rtol=1e-5)


def test_lfm_code_objective_and_clip():
  rng = np.random.default_rng(0)
  problem, _, _ = toys.problem(2, "sum", fusion_options=(("mean", True),))
  o = {m: 2 * rng.normal(size=(8, 3)) for m in problem.modalities}
  batch, k = toy.padded(2), 0.3
  outputs = problem.outputs.replace(
    logits=jnp.array(sum(o.values()) / 2),
    unimodal={m: jnp.array(v) for m, v in o.items()},
  )
  mstate = lfm_code.State(jnp.float64(k))
  got, _ = lfm_code.objective(outputs, batch, mstate)
  apart = divergence(*o.values())[toy.MASK > 0].mean()
  expected = 2 * (0.7 * toy.ce(sum(o.values()) / 2, batch) + k * apart)
  np.testing.assert_allclose(got, expected, rtol=1e-6)
  a, b = (jnp.array(v) for v in o.values())
  slope = jax.jit(jax.grad(lambda a: losses.divergence(a, b, jnp.ones(8))))(a)
  np.testing.assert_allclose(slope, divergence_back(*o.values()) / 8, atol=1e-7)


def test_lfm_code_fitted_polynomial():
  values = {
    0: 0.795, 20: 0.699, 40: 0.600, 60: 0.536, 80: 0.500, 100: 0.461,
    120: 0.385, 140: 0.258, 160: 0.099, 180: -0.008, 199: 0.084,
  }  # fmt: skip
  for epoch, value in values.items():
    assert abs(lfm_code.polynomial(epoch) - value) < 6e-4
  method = lfm_code.make(fitted=True)
  run = toys.Run(method, 2, "sum", fusion_options=(("mean", True),))
  state = run.between(run.fresh(), toys.ToyData(2), 100)
  np.testing.assert_allclose(state.method.alpha, 0.461, atol=5e-4)


def trained(method):
  """Weights after three steps with concat, the hook before the first one."""
  run = toys.Run(method, 2, "concat")
  state = run.between(run.fresh(), toys.ToyData(2), 0)
  for seed in range(3):
    state, _ = run.step(state, toys.batch(2, seed=seed))
  return state.params


@pytest.fixture(scope="module")
def joint():
  return trained(toys.make_method("joint"))


@pytest.mark.parametrize(
  ("name", "off"),
  [
    ("agm", {"alpha": 0.0}),
    ("relearning", {"times": 0}),
    ("umt", {"teacher_epochs": 0, "weight": 0.0}),
    ("gblend", {"weights": (0.0, 0.0, 1.0)}),
    ("valuation", {"level": "modality", "alpha": 0.0}),
    ("mslr", {"strategy": "keep"}),
    ("mses", {"unimodal_weight": 0.0}),
  ],
)
def test_knob_at_zero_is_joint_training(name, off, joint):
  got = trained(toys.make_method(name, **off))
  toys.assert_close(got, joint, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(
  ("name", "options", "fusion", "words"),
  [
    ("valuation", {"level": "batch"}, "concat", "modality, sample"),
    ("valuation", {"alpha": -1.0}, "concat", "alpha must lie"),
    ("lfm_code", {}, "concat", "fusion=sum"),
    ("lfm_code", {"start": 1.0}, "sum", "start must lie"),
    ("mslr", {"strategy": "smooth"}, "sum", "dynamic, keep"),
    ("mslr", {"factors": (1.0,)}, "sum", "image, text"),
    ("mslr", {"factors": (0.0, 1.0)}, "sum", "factors must lie"),
    ("mses", {"patience": 0}, "own_heads", "patience must lie"),
    ("relearning", {"every": 0}, "concat", "every must lie"),
  ],
)
def test_what_cannot_work_is_refused(name, options, fusion, words):
  with pytest.raises(ValueError, match=words):
    toys.Run(toys.make_method(name, **options), 2, fusion).fresh()
