"""What drops or masks, against NumPy: opm and amco."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import given
import toys
from dmg_jax.methods import amco, opm

Y = np.asarray(given.batch().labels)
ROWS = np.arange(given.SAMPLES)


def each_ce(logits):
  return -log_softmax(logits, axis=1)[ROWS, Y]


def ce(logits, rows=given.REAL):
  return each_ce(logits)[rows].mean()


def begun(method, value):
  bound = given.problem(value)
  return bound, given.start(method, bound, value)


# OPM.


def dropping(value, base, strength):
  """{m: q_m} by the scores of what is no padding."""
  s = {
    m: softmax(o, axis=1)[ROWS, Y][given.REAL].sum()
    for m, o in value["unimodal"].items()
  }
  q = {}
  for m in s:
    others = [s[j] for j in s if j != m]
    rho = s[m] / np.mean(others) if others else 1.0
    drop = base * (1 + strength * np.tanh(max(rho - 1, 0)))
    q[m] = np.clip(drop, 0, 1) if rho > 1 else 0.0
  return q


@pytest.mark.parametrize(
  ("count", "base", "strength"), [(1, 0.5, 0.5), (2, 0.8, 50.0), (3, 0.4, 0.5)]
)
def test_opm_drop_rates(count, base, strength):
  value = given.values(count)
  o = {m: jnp.array(v) for m, v in value["unimodal"].items()}
  got = opm.drop_rates(o, given.batch(), base, strength)
  expected = dropping(value, base, strength)
  toys.assert_close(got, expected, rtol=1e-6)
  assert count == 1 or max(expected.values()) > 0
  if count == 2:
    assert sorted(expected.values()) == [0, 1]


@pytest.mark.parametrize("count", [2, 3])
def test_opm_loss_and_gradient(count):
  """Which samples were dropped is read off the gradient."""
  value = given.values(count, seed=1)
  method = opm.make(base=0.6, strength=0.5, probability=1.0, warmup=0)
  bound, state = begun(method, value)
  grads, _, metrics, *_ = given.step(method, bound, state)
  q = dropping(value, 0.6, 0.5)
  keep = {m: np.any(g != 0, axis=1) for m, g in grads["features"].items()}
  real = given.REAL & np.any(list(keep.values()), axis=0)
  theta = np.mean(list(q.values()))  # Features of equal size.

  def loss(live):
    dropped = {
      m: z * keep[m][:, None] / (1 - theta) for m, z in live["features"].items()
    }
    return ce(given.logits_of(dropped, live["head"]), real)

  np.testing.assert_allclose(metrics["loss"], loss(value), rtol=1e-6)
  given.check_gradient(grads, loss, value)
  for m in q:
    np.testing.assert_allclose(metrics[f"drop_{m}"], q[m], rtol=1e-6)
    assert q[m] > 0 or keep[m][real].all()
  assert any(not keep[m][given.REAL].all() for m in q)


def test_opm_keeps_the_mean_and_leaves_out_what_has_nothing():
  ones = {"a": jnp.ones((4000, 2)), "b": jnp.ones((4000, 6))}
  q = {"a": jnp.array(0.7), "b": jnp.array(0.3)}
  kept, mask = opm.drop(ones, jnp.ones(4000), q, jax.random.key(0))
  theta = (2 * 0.7 + 6 * 0.3) / 8
  alive = {m: np.asarray(z[:, 0]) > 0 for m, z in kept.items()}
  for m, z in kept.items():
    np.testing.assert_allclose(alive[m].mean(), 1 - float(q[m]), atol=0.03)
    np.testing.assert_allclose(z[alive[m]], 1 / (1 - theta), rtol=1e-6)
    assert not np.asarray(z)[~alive[m]].any()
  np.testing.assert_array_equal(mask > 0, alive["a"] | alive["b"])
  assert abs((~alive["a"] & ~alive["b"]).mean() - 0.21) < 0.03


def test_opm_acts_after_its_warm_up_with_its_probability():
  value = given.values(2, seed=1)
  method = opm.make()
  bound, state = begun(method, value)
  assert float(state.method) == 0
  active = [
    float(method.between_epochs(bound, state, None, epoch).method)
    for epoch in range(8)
  ]
  assert active == [0] * 6 + [1] * 2
  state = state.replace(method=jnp.float32(1))

  @jax.jit
  def drops(keys, state):
    return jax.vmap(dropped, (0, None))(keys, state)

  def dropped(key, state):
    _, metrics = method.step(
      bound, state, given.batch(), key, lambda s, g, scale=None: s
    )
    return metrics["drop_a"] + metrics["drop_b"] > 0

  keys = jax.random.split(jax.random.key(1), 600)
  share = drops(keys, state).mean()
  np.testing.assert_allclose(share, 0.7, atol=0.06)
  state = state.replace(method=jnp.float32(0))
  assert not drops(keys, state).any()


# AMCo.


def test_amco_share_of_the_mask():
  level = np.array([0.0, 0.05, 0.15, 0.3, 0.31, 9.0])
  expected = [0, 0.2588190451, 0.7071067812, 1, 1, 1]
  np.testing.assert_allclose(amco.share(jnp.array(level), 0.3), expected)


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6])
def test_amco_dependence_is_the_mass_in_the_joint_softmax(threshold):
  value = given.values(3)
  joined = softmax(np.concatenate(list(value["unimodal"].values()), 1), axis=1)
  mass = joined.reshape(given.SAMPLES, 3, -1).sum(axis=2)[given.REAL].mean(0)
  o = {m: jnp.array(v) for m, v in value["unimodal"].items()}
  got = amco.dependent(o, given.batch(), threshold)
  assert [float(got[m]) for m in "abc"] == list(mass > threshold)
  alone = amco.dependent({"a": o["a"]}, given.batch(), threshold)
  assert float(alone["a"]) == 0


@pytest.mark.parametrize("p", [0.0, 0.2, 0.34, 0.7, 1.0])
def test_amco_masks_the_floor_of_the_share_for_all_samples(p):
  x = {m: jnp.ones((3, 10)) for m in "ab"}
  flags = {"a": jnp.float32(1), "b": jnp.float32(0)}
  masked = amco.mask_some(x, flags, jnp.array(p), jax.random.key(0))
  gone = np.asarray(masked["a"]) == 0
  assert (gone.sum(axis=1) == int(10 * p)).all() and (gone == gone[0]).all()
  np.testing.assert_array_equal(masked["b"], x["b"])


@pytest.mark.parametrize("target", ["features", "logits"])
def test_amco_loss_and_gradient(target):
  """Level .2 is capped to ⌊n / 2⌋ entries; which, tells a mask of ones."""
  value = given.values(3)
  method = amco.make(target=target, unimodal_weight=0.8)
  state = begun(method, value)[1]
  flags = {m: jnp.float32(m != "b") for m in "abc"}
  now = amco.State(flags, jnp.float32(0.2), jnp.float32(0.3))
  kind = "features" if target == "features" else "unimodal"
  ones = {m: jnp.ones(v.shape) for m, v in value[kind].items()}
  key = jax.random.split(jax.random.key(0))[1]
  mask = jax.tree.map(np.asarray, amco.mask_some(ones, flags, 0.5, key))

  def loss(live, stopped):
    del stopped
    masked = {m: v * mask[m] for m, v in live[kind].items()}
    if target == "features":
      logits = given.logits_of(masked, live["head"])
    else:
      logits = sum(masked.values())
    return ce(logits) + 0.8 * sum(ce(o) for o in live["unimodal"].values())

  given.check(method, value, loss, state.replace(method=now))


def test_amco_level_and_flags_over_steps():
  value = given.values(3)
  method = amco.make(threshold=0.3)
  bound, state = begun(method, value)
  flags = amco.dependent(value["unimodal"], given.batch(), 0.3)
  for epoch in (0, 2):
    state = method.between_epochs(bound, state, None, epoch)
    masked = []
    for _ in range(3):
      _, state, metrics, *_ = given.step(method, bound, state)
      masked.append(float(metrics["masked"]))
      toys.assert_close(state.method.dependent, flags)
    level = np.arange(3) * epoch / 10
    p = np.minimum(np.sin(np.pi / 2 * np.minimum(level, 0.3) / 0.3), 0.5)
    np.testing.assert_allclose(masked, p, atol=1e-6)
    np.testing.assert_allclose(state.method.level, 0.3 * epoch, atol=1e-6)


@pytest.mark.parametrize(
  ("name", "bad", "words"),
  [
    ("opm", {"base": 1.0}, "base must lie"),
    ("opm", {"probability": 2.0}, "probability must lie"),
    ("opm", {"warmup": -1}, "warmup must lie"),
    ("amco", {"target": "inputs"}, "choose from features, logits"),
    ("amco", {"cap": 1.5}, "cap must lie"),
    ("amco", {"ramp": 0.0}, "ramp must lie"),
  ],
)
def test_bad_options_are_refused(name, bad, words):
  with pytest.raises(ValueError, match=words):
    toys.make_method(name, **bad)
