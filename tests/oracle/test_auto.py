"""Every weight learned: against closed forms and runs trained again."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import toys
from dmg_jax.bilevel import (
  ConjugateGradient,
  Range,
  VectorOptimiser,
  hypergradient,
)
from dmg_jax.bilevel.alpha import AlphaOptimiser
from dmg_jax.methods import auto, lb
from dmg_jax.methods._matching import Matching
from dmg_jax.training import steps
from dmg_jax.types import Outputs, TrainState

RAW = {"normalise": "none", "rate": 1e-12}
ALL = "alpha+unimodal+temperature+smoothing+decay"


def wide(tree):
  """Every float leaf in float64."""

  def leaf(x):
    return x.astype(jnp.float64) if x.dtype == jnp.float32 else x

  return jax.tree.map(leaf, tree)


class Small:
  """Encoders of one layer, own heads, their sum: 30 weights in float64."""

  def __init__(self, method):
    problem = toys.bare_problem(self.forward, toys.NAMES[:2])
    rng = np.random.default_rng(0)
    self.params = {
      m: {
        "encoder": jnp.asarray(rng.normal(size=(d, 2))),
        "head": jnp.asarray(rng.normal(size=(2, toys.CLASSES))),
      }
      for m, d in zip(problem.modalities, toys.SIZES, strict=False)
    }
    owner = {m: {"encoder": m, "head": f"{m}/head"} for m in self.params}
    self.problem = dataclasses.replace(problem, owner=owner)
    self.method = method
    self.outer = steps.make_outer_step(self.problem, method, donate=False)
    self.inner_batch = wide(toys.batch(2))
    self.outer_batch = wide(toys.batch(2, seed=1))

  @staticmethod
  def forward(params, stats, inputs, key, train, present=None, keep=None):
    del key, train, keep, present
    features = {m: jnp.tanh(inputs[m] @ params[m]["encoder"]) for m in params}
    own = {m: features[m] @ params[m]["head"] for m in params}
    return Outputs(sum(own.values()), own, features), stats

  def state(self, params, opt_state=()):
    state = TrainState(jnp.int32(0), params, {}, opt_state, ())
    memory = self.method.init(self.problem, state, jax.random.key(0))
    return wide(state.replace(method=memory))

  def found(self, params):
    metrics = self.outer(
      self.state(params), self.inner_batch, self.outer_batch, 0
    )[1]
    return {k: float(v) for k, v in metrics.items()}


def log_softmax(x):
  return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))


def cross_entropy(logits, labels, s):
  """With label smoothing s, from its definition."""
  target = (1 - s) * jnp.eye(toys.CLASSES)[labels] + s / toys.CLASSES
  return -(target * log_softmax(logits)).sum(-1).mean()


def objective(params, h, batch, kind):
  """The inner loss of two modalities, written again."""
  out, _ = Small.forward(params, {}, batch.inputs, None, True)
  s = h["smoothing"]
  cls = cross_entropy(out.logits, batch.labels, s)
  for m, logits in out.unimodal.items():
    cls = cls + h[f"unimodal_{m}"] * cross_entropy(logits, batch.labels, s)
  read = out.features if kind == "info_nce" else out.unimodal
  matching = Matching(kind, scaled=True)
  loss = matching.of_pair(
    read["image"], read["text"], batch.mask, h["temperature"]
  )
  total = (1 - h["alpha_image_text"]) * cls + h["alpha_image_text"] * loss
  for m, own in params.items():
    total += h[f"decay_{m}"] / 2 * (own["encoder"] ** 2).sum()
    total += h[f"decay_{m}/head"] / 2 * (own["head"] ** 2).sum()
  return total


def heldout(params, batch):
  out, _ = Small.forward(params, {}, batch.inputs, None, False)
  return cross_entropy(out.logits, batch.labels, 0.0)


def values_of(metrics):
  return {
    k.removeprefix("learned_"): jnp.float64(v)
    for k, v in metrics.items()
    if k.startswith("learned_")
  }


def test_four_weight_decays_and_their_closed_form():
  """Ridge with a decay for each of four coefficients."""
  rng = np.random.default_rng(0)
  x, y = jnp.asarray(rng.normal(size=(9, 4))), jnp.asarray(rng.normal(size=9))
  a, b = jnp.asarray(rng.normal(size=(7, 4))), jnp.asarray(rng.normal(size=7))
  hyper = {f"decay_{i}": jnp.float64(0.3 + i) for i in range(4)}

  def inner(w, h):
    decay = jnp.stack(list(h.values()))
    return ((x @ w - y) ** 2).sum() / 2 + (decay * w * w).sum() / 2

  def outer(w, h):
    del h
    return ((a @ w - b) ** 2).sum() / 2

  inverse = np.linalg.inv(x.T @ x + np.diag(list(hyper.values())))
  w = inverse @ (x.T @ y)
  expected = -(inverse @ np.asarray(a.T @ (a @ w - b))) * w
  found, _ = hypergradient(inner, outer, w, hyper, ConjugateGradient())
  np.testing.assert_allclose(list(found.values()), expected, rtol=1e-9)


@pytest.mark.slow
def test_implicit_form_is_the_slope_of_retraining():
  """Every knob, at a strict minimum, by training again at h ± ε."""
  kind, learn = "divergence", "alpha+unimodal+smoothing+decay"
  run = Small(
    auto.make(
      learn=learn,
      solver="dense",
      matching=kind,
      decay=0.0625,
      smoothing=0.125,
      start=0.375,
      **RAW,
    )
  )
  metrics = run.found(run.params)
  h = {**values_of(metrics), "temperature": jnp.float64(1.0)}
  start, back = ravel_pytree(run.params)

  def loss(x, h):
    return objective(back(x), h, run.inner_batch, kind)

  @jax.jit
  def descend(x, h):
    slope = jax.grad(loss)
    x = jax.lax.fori_loop(0, 4000, lambda i, x: x - 0.2 * slope(x, h), x)

    def newton(i, x):
      return x - jnp.linalg.solve(jax.hessian(loss)(x, h), slope(x, h))

    x = jax.lax.fori_loop(0, 5, newton, x)
    return x, jnp.linalg.norm(slope(x, h)), heldout(back(x), run.outer_batch)

  minimum, norm, _ = descend(start, h)
  assert norm < 1e-12
  metrics = run.found(back(minimum))
  found = {k: v for k, v in metrics.items() if k.startswith("hypergradient_")}
  assert len(found) == 8
  for name, value in found.items():
    name, eps = name.removeprefix("hypergradient_"), 1e-4
    high, low = (
      descend(minimum, {**h, name: h[name] + d})[2] for d in (eps, -eps)
    )
    np.testing.assert_allclose(
      value, (high - low) / (2 * eps), rtol=1e-5, atol=1e-9, err_msg=name
    )


def test_trajectory_form_is_the_slope_of_whole_runs():
  """Every knob, temperature too, through five steps with momentum."""
  run = Small(
    auto.make(learn=ALL, form="forward", decay=0.0625, smoothing=0.125, **RAW)
  )
  optimiser = optax.sgd(0.1, momentum=0.9)

  def apply(state, grads):
    updates, opt = optimiser.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt)

  state = run.state(run.params, optimiser.init(run.params))
  step = jax.jit(
    lambda s, b: run.method.step(run.problem, s, b, jax.random.key(0), apply)
  )
  batches = [wide(toys.batch(2, seed=s)) for s in range(5)]
  for batch in batches:
    state, metrics = step(state, batch)
  h = values_of(metrics)
  metrics = run.outer(state, run.inner_batch, run.outer_batch, 0)[1]

  @jax.jit
  def trained(h):
    params, opt = run.params, optimiser.init(run.params)
    for batch in batches:
      grads = jax.grad(objective)(params, h, batch, "info_nce")
      updates, opt = optimiser.update(grads, opt, params)
      params = optax.apply_updates(params, updates)
    return heldout(params, run.outer_batch)

  assert len(h) == 9
  for name in h:
    eps = 1e-5
    high, low = (trained({**h, name: h[name] + d}) for d in (eps, -eps))
    np.testing.assert_allclose(
      metrics[f"hypergradient_{name}"],
      (high - low) / (2 * eps),
      rtol=1e-5,
      atol=1e-9,
      err_msg=name,
    )


@pytest.mark.slow
def test_one_alpha_is_lb():
  options = {"start": 0.375, "unimodal_weight": 0.75, **RAW}
  ours = Small(auto.make(learn="alpha", **options))
  theirs = Small(lb.make(**options))
  state = theirs.state(theirs.params)
  batches = theirs.inner_batch, theirs.outer_batch
  expected = theirs.outer(state, *batches, 0)[1]["hypergradient"]
  found = ours.found(ours.params)["hypergradient_alpha_image_text"]
  np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.mark.parametrize("normalise", ["sign", "rms", "none"])
def test_vector_on_the_unit_interval_is_alpha(normalise):
  one = AlphaOptimiser(0.5, 0.1, normalise)
  all_ = VectorOptimiser({"alpha": Range(0, 1)}, 0.1, normalise)
  alpha, vector = one.init(), all_.init({"alpha": {"": 0.5}})
  for g in (0.7, -0.2, jnp.nan, -9.0, 30.0):
    alpha = one.update(alpha, jnp.float32(g))
    vector = all_.update(vector, {"alpha": {"": jnp.float32(g)}})
    assert all_.values(vector)["alpha"][""] == alpha.value


def test_log_scale_steps_are_factors_and_stop_at_the_bounds():
  chain = VectorOptimiser({"w": Range(0.01, 100, log=True)}, 0.25, "sign")
  at, seen = chain.init({"w": {"a": 1.0}}), []
  for _ in range(3):
    at = chain.update(at, {"w": {"a": jnp.float32(1e-9)}})
    seen.append(float(chain.values(at)["w"]["a"]))
  np.testing.assert_allclose(seen, [0.1, 0.01, 0.01], rtol=1e-5)
  # dv/du of w = .01 at the log of the range: g = 3 becomes 3 w log(10⁴).
  scaled = chain.scaled(at, {"w": {"a": 3.0}})["w"]["a"]
  np.testing.assert_allclose(scaled, 3 * 0.01 * np.log(1e4), rtol=1e-5)


def test_replay_sets_the_rows_of_each_epoch():
  rows = (0.25, 0.5, 2.0, 0.75, 1.0, 4.0)  # α, w of image, w of text.
  run = toys.Run(auto.make(replay=rows), 2, "sum")
  assert run.outer is None
  state, data = run.fresh(), toys.ToyData(2, epochs=4)
  seen = []
  for epoch in range(4):
    state = run.between(state, data, epoch)
    state, metrics = run.step(state, toys.batch(2))
    seen.append(
      [
        float(metrics[f"learned_{k}"])
        for k in ("alpha_image_text", "unimodal_image", "unimodal_text")
      ]
    )
  first, last = rows[:3], rows[3:]
  np.testing.assert_allclose(seen, [first, first, last, last], rtol=1e-5)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"learn": "alpha+weigth"}, ("weigth", "unimodal", "decay")),
    ({"learn": "alpha+alpha"}, ("alpha", "twice")),
    ({"form": "reverse"}, ("reverse", "implicit", "forward")),
    ({"learn": "decay", "decay": 3.0}, ("decay", "[1e-07, 0.1]", "3")),
    (
      {"learn": "temperature", "matching": "divergence"},
      ("divergence", "temperature"),
    ),
  ],
)
def test_refuses_by_name(options, words):
  with pytest.raises(ValueError) as error:
    auto.make(**options)
  assert all(word in str(error.value) for word in words)


def test_refuses_a_replay_of_another_length():
  with pytest.raises(ValueError, match="3 values for each epoch"):
    toys.Run(auto.make(replay=(0.5, 1.0)), 2, "sum").fresh()


def test_one_modality_has_nothing_to_match():
  with pytest.raises(ValueError, match="two modalities"):
    toys.Run(auto.make(learn="alpha+temperature"), 1, "sum").fresh()
