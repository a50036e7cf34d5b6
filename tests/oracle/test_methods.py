"""Each rule against its equation, re-derived in NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import toys
from dmg_jax import losses
from dmg_jax.methods import heuristic, lb, ogm_ge, stepwise
from dmg_jax.types import Batch


def after(method, name, steps=3, **options):
  run = toys.Run(method, 2, **toys.fusion_of(name), **options)
  state = run.fresh()
  for seed in range(steps):
    state, _ = run.step(state, toys.batch(2, seed=seed))
  return state.params


@functools.cache
def trained(name, **options):
  """The weights after three steps on concat, the hook before them."""
  method = toys.make_method(name, **options)
  run = toys.Run(method, 2, "concat", dropout=0.2)
  state = run.between(run.fresh(), toys.ToyData(2), 0)
  for seed in range(3):
    state, _ = run.step(state, toys.batch(2, seed=seed))
  return state.params


@pytest.mark.parametrize(
  ("name", "off"),
  [
    ("constant", {"alpha": 0.0}),
    ("stepwise", {"p": 0.0}),
    ("multitask", {"weight": 0.0}),
    ("label_fitting", {"weight": 0.0}),
    ("ogm_ge", {"alpha": 0.0, "noise": False}),
    ("lb", {"start": 0.0}),
    ("lb_forward", {"start": 0.0}),
    ("pmr", {"alpha": 0.0}),
    ("opm", {"base": 0.0, "probability": 1.0, "warmup": 0}),
    ("amco", {"cap": 0.0, "unimodal_weight": 0.0}),
    ("cml", {"weight": 0.0}),
  ],
)
def test_knob_at_zero_is_joint_training(name, off):
  toys.assert_close(trained(name, **off), trained("joint"), 1e-6, 1e-7)


@pytest.mark.parametrize(
  ("name", "off"),
  [
    ("mbsd", {"weight": 0.0}),
    ("weight", {"fused": 1.0, "diversity": 0.0}),
    ("constant", {"alpha": 0.0, "unimodal_weight": 1.0}),
    ("lb", {"start": 0.0, "unimodal_weight": 1.0}),
  ],
)
def test_knob_at_zero_is_multitask_training(name, off):
  toys.assert_close(trained(name, **off), trained("multitask"), 1e-6, 1e-7)


def info_nce(x, y, tau):
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  y = y / np.linalg.norm(y, axis=1, keepdims=True)
  s = x @ y.T / tau
  rows, columns = log_softmax(s, axis=1), log_softmax(s, axis=0)
  return -0.5 * np.mean(np.diag(rows) + np.diag(columns))


def test_info_nce_is_the_papers_equation():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 7, 5))
  got = losses.info_nce(jnp.array(x), jnp.array(y), jnp.ones(7), 0.3)
  np.testing.assert_allclose(got, info_nce(x, y, 0.3), rtol=1e-12)


def test_info_nce_ignores_padding_as_anchor_and_negative():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 7, 5))
  mask = jnp.array([1, 1, 0, 1, 0, 1, 1.0])
  keep = np.array(mask) > 0
  got = losses.info_nce(jnp.array(x), jnp.array(y), mask, 0.3)
  np.testing.assert_allclose(got, info_nce(x[keep], y[keep], 0.3), rtol=1e-12)


def test_info_nce_closed_forms():
  aligned = jnp.eye(6)
  got = losses.info_nce(aligned, aligned, jnp.ones(6), 0.2)
  np.testing.assert_allclose(got, np.log1p(5 * np.exp(-5.0)), rtol=1e-12)
  equal = jnp.ones((6, 4))
  got = losses.info_nce(equal, equal, jnp.ones(6), 0.2)
  np.testing.assert_allclose(got, np.log(6), rtol=1e-12)


def test_info_nce_has_finite_gradients_at_zero_features():
  zero = jnp.zeros((4, 3))
  grad = jax.grad(losses.info_nce)(zero, zero, jnp.ones(4))
  assert np.isfinite(grad).all()


def test_divergence_is_the_released_codes():
  rng = np.random.default_rng(1)
  a, b = 3 * rng.normal(size=(2, 6, 4))
  p, q = softmax(a, axis=1), softmax(b, axis=1)
  m = (p + q) / 2
  expected = np.mean(np.sum(m * (np.log(m) - 0.5 * np.log(p * q)), axis=1))
  got = losses.divergence(jnp.array(a), jnp.array(b), jnp.ones(6))
  np.testing.assert_allclose(got, expected, rtol=1e-10)
  assert losses.divergence(jnp.array(a), jnp.array(a), jnp.ones(6)) < 1e-12


def test_pairs_are_averaged():
  rng = np.random.default_rng(2)
  z = {m: rng.normal(size=(5, 3)) for m in "abc"}
  got = losses.over_pairs(
    functools.partial(losses.info_nce, temperature=0.5),
    {m: jnp.array(v) for m, v in z.items()},
    Batch({}, jnp.zeros(5, int), jnp.ones(5), jnp.arange(5)),
  )
  pairs = [("a", "b"), ("a", "c"), ("b", "c")]
  expected = np.mean([info_nce(z[i], z[j], 0.5) for i, j in pairs])
  np.testing.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("epoch", [0, 1, 2, 49])
def test_heuristic_schedule(epoch):
  run = toys.Run(heuristic.make())
  state = run.method.between_epochs(
    run.problem, run.fresh(), toys.ToyData(2), epoch
  )
  expected = 1 - np.exp(-1 / (epoch + 1))
  np.testing.assert_allclose(state.method, expected, rtol=1e-6)


def test_stepwise_schedule():
  run = toys.Run(stepwise.make(p=0.95))
  data = toys.ToyData(2, epochs=5)
  alpha = [
    float(run.method.between_epochs(run.problem, run.fresh(), data, e).method)
    for e in range(5)
  ]
  np.testing.assert_allclose(alpha, [0.95] * 3 + [0.05] * 2, rtol=1e-5)


@pytest.mark.parametrize("modalities", [2, 3])
def test_ogm_coefficients(modalities):
  rng = np.random.default_rng(3)
  batch = toys.batch(modalities)
  logits = {
    m: (i + 1) * rng.normal(size=(8, 3)) for i, m in enumerate(batch.inputs)
  }
  s = {
    m: softmax(o, axis=1)[np.arange(8), batch.labels].sum()
    for m, o in logits.items()
  }
  got = ogm_ge.coefficients(
    {m: jnp.array(o) for m, o in logits.items()}, batch, 0.8
  )
  for m in logits:
    rho = s[m] / np.mean([s[j] for j in logits if j != m])
    expected = 1 - np.tanh(0.8 * rho) if rho > 1 else 1.0
    np.testing.assert_allclose(got[m], expected, rtol=1e-6)
  if modalities == 2:
    assert sum(float(k) < 1 for k in got.values()) <= 1


def test_ogm_touches_encoder_matrices_only():
  """SGD, so that an update is the gradient: ratios must be κ or one."""
  run = toys.Run(ogm_ge.make(noise=False), optimiser="sgd", rate=1e-3)
  base = toys.Run(toys.make_method("joint"), optimiser="sgd", rate=1e-3)
  batch = toys.batch(2)
  a, metrics = run.step(run.fresh(), batch)
  b, _ = base.step(base.fresh(), batch)
  start = base.fresh().params
  owner = jax.tree.leaves(run.problem.owner)
  trees = [jax.tree.leaves(t) for t in (a.params, b.params, start)]
  for o, x, y, p in zip(owner, *trees, strict=True):
    kappa = metrics[f"kappa_{o}"] if o in toys.NAMES and p.ndim > 1 else 1.0
    np.testing.assert_allclose(x - p, kappa * (y - p), rtol=2e-2, atol=1e-7)


def test_ogm_noise_has_the_gradients_spread():
  g = jnp.array(np.random.default_rng(0).normal(size=(200, 300))) * 3
  noisy = ogm_ge._modulate(g, 0.5, jax.random.key(0), noise=True)
  np.testing.assert_allclose(np.std(noisy - 0.5 * g), np.std(g), rtol=1e-2)


def test_ogm_acts_in_its_epochs_only():
  run = toys.Run(ogm_ge.make(start=1, end=2))
  active = [
    float(
      run.method.between_epochs(
        run.problem, run.fresh(), toys.ToyData(2), epoch
      ).method
    )
    for epoch in range(4)
  ]
  assert active == [0, 1, 1, 0]


@pytest.mark.parametrize(
  ("name", "bad", "words"),
  [
    ("constant", {"alpha": 1.5}, "alpha"),
    ("constant", {"matching": "jsd"}, "info_nce"),
    ("stepwise", {"p": -1}, "p must lie"),
    ("lb", {"solver": "neuman"}, "neumann"),
    ("lb", {"start": 2.0}, "start"),
    ("lb", {"rate": 0.0}, "rate"),
    ("lb", {"normalise": "l2"}, "sign"),
    ("lb", {"outer": "test"}, "heldout"),
    ("lb", {"inner_iters": 0}, "inner_iters"),
    ("lb_forward", {"momentum": 1.0}, "momentum"),
    ("ogm_ge", {"alpha": -0.1}, "alpha"),
    ("mla", {"projection": "on"}, "scalar"),
    ("heuristic", {"temperature": 0.0}, "temperature"),
    ("joint", {"alpha": 0.5}, "alpha"),
  ],
)
def test_bad_options_are_refused(name, bad, words):
  with pytest.raises(ValueError, match=words):
    toys.make_method(name, **bad)


def test_outer_split_names():
  assert lb.outer_split("heldout", None) == "outer"
  assert lb.outer_split("train", 3) == "train"
