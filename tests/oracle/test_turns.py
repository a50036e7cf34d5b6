"""IGM against its equations, in NumPy and by plain gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import toys
from dmg_jax import losses
from dmg_jax.methods import _routing, igm

SGD = {"optimiser": "sgd", "rate": 0.1, "momentum": 0.0}


def of(run, modality):
  """The cross-entropy of one modality, as a function of all weights."""

  def loss(params):
    batch = toys.batch(len(run.problem.modalities))
    out, _ = run.problem.run(params, {}, batch)
    each = losses.cross_entropy(out.unimodal[modality], batch.labels)
    return each.mean()

  return jax.value_and_grad(loss)


def in_turn(run, turn, projection=None):
  memory = run.fresh().method
  memory = memory.replace(
    turn=jnp.int32(turn), projection=projection or memory.projection
  )
  return run.fresh().replace(method=memory)


@pytest.mark.parametrize("flat", [0.0, 0.3])
def test_step_is_that_of_both_points(flat):
  """One modality moves, by P and the mean of two gradients."""
  run = toys.Run(igm.make(flat=flat, rho=0.5), 3, "sum", **SGD)
  rng = np.random.default_rng(0)
  p = {m: jnp.asarray(rng.normal(size=(6, 6)), jnp.float32) for m in toys.NAMES}
  grad = of(run, "text")
  value, one = grad(run.params)
  norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(one)))
  there = jax.tree.map(lambda w, g: w + 0.5 * g / norm, run.params, one)
  second, two = grad(there)
  expected = jax.tree.map(
    lambda w, a, b: w - 0.1 * ((1 - flat) * a + flat * b), run.params, one, two
  )
  head = expected["fusion"]["head_text"]
  old = run.params["fusion"]["head_text"]["kernel"]
  head["kernel"] = old + p["text"] @ (head["kernel"] - old)
  state, metrics = run.step(in_turn(run, 1, p), toys.batch(3))
  toys.assert_close(state.params, expected, rtol=1e-4, atol=1e-6)
  loss = (1 - flat) * value + flat * second
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  assert float(metrics["turn"]) == 1 and second > value


def test_others_stand_still_even_with_momentum():
  run = toys.run_of("igm", 3)
  state = run.fresh()
  for turn in (0, 0, 2):
    before = jax.tree.map(np.asarray, state.params)
    memory = state.method.replace(turn=jnp.int32(turn))
    state, _ = run.step(state.replace(method=memory), toys.batch(3))
    owners = jax.tree.leaves(run.problem.owner)
    pairs = zip(*map(jax.tree.leaves, (before, state.params)), strict=True)
    moved = {
      o for o, (a, b) in zip(owners, pairs, strict=True) if (a != b).any()
    }
    m = toys.NAMES[turn]
    assert moved == {m, f"{m}/head"}


def test_turns_and_who_learns_from_whom():
  """Six turns of two epochs; P is that of the modality before."""
  run, data = toys.Run(igm.make(stages=6), 3, "sum"), toys.ToyData(3, epochs=12)
  state, turns = run.fresh(), []
  for epoch in range(12):
    old = state.method.projection
    state = run.between(state, data, epoch)
    turns.append(int(state.method.turn))
    now = state.method.projection
    changed = {m for m in now if (now[m] != old[m]).any()}
    begins = epoch and epoch % 2 == 0
    assert changed == ({toys.NAMES[turns[-1]]} if begins else set())
    if begins:
      last = toys.NAMES[turns[-2]]
      means = []
      for batch in data.batches("train"):
        out, _ = run.problem.run(state.params, {}, batch)
        means.append(np.float64(out.features[last]).mean(axis=0))
      expected = _routing.matrix(sum(np.outer(r, r) for r in means), 0.4)
      p = now[toys.NAMES[turns[-1]]]
      np.testing.assert_allclose(p, expected, rtol=1e-4, atol=1e-5)
    state = state.replace(params=jax.tree.map(lambda w: 1.01 * w, state.params))
  assert turns == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]


def test_routing_shrinks_the_directions_that_were_used():
  rng = np.random.default_rng(0)
  basis, _ = np.linalg.qr(rng.normal(size=(4, 4)))
  seen = (basis * np.array([9.0, 5.0, 1.0, 1.0])) @ basis.T
  p = _routing.matrix(seen, 0.4)
  np.testing.assert_allclose(p, p.T, atol=1e-12)
  for i, factor in enumerate(np.exp([-0.4, -0.2, 0, 0])):
    np.testing.assert_allclose(p @ basis[:, i], factor * basis[:, i])
  for other, tau in ((seen, 0.0), (0 * seen, 0.4), (np.eye(4), 0.4)):
    np.testing.assert_allclose(
      _routing.matrix(other, tau), np.eye(4), atol=1e-12
    )


def test_covariance_is_of_those_that_have_the_modality():
  run, batch = toys.run_of("igm", 2), toys.batch(2)
  row = np.array([1, 1, 0, 1, 0, 0, 0, 1], np.float32)
  batch = batch.replace(present={"image": jnp.asarray(row)})
  nobody = batch.replace(present={"image": jnp.zeros(8)})
  found = _routing.covariance(
    run.problem, run.fresh(), [batch, nobody], "image"
  )
  out, _ = run.problem.run(run.params, {}, batch)
  r = np.float64(out.features["image"])[row > 0].mean(axis=0)
  np.testing.assert_allclose(found, np.outer(r, r), rtol=1e-5, atol=1e-7)


def test_one_modality_has_no_projection():
  run, data = toys.Run(igm.make(stages=4), 1, "sum"), toys.ToyData(1)
  state = run.fresh()
  for epoch in range(3):
    state = run.between(state, data, epoch)
  np.testing.assert_array_equal(state.method.projection["image"], np.eye(6))
  assert int(state.method.turn) == 0


def test_predicts_the_mean_probability_of_what_is_there():
  rng = np.random.default_rng(0)
  o = {m: rng.normal(size=(3, 4)) for m in toys.NAMES}
  present = {"image": jnp.asarray([1.0, 0.0, 1.0])}
  out = toys.Outputs(None, jax.tree.map(jnp.asarray, o), {}, present=present)
  got = np.exp(igm.make().predict(out, ()))
  p = [softmax(v, axis=-1) for v in o.values()]
  expected = np.mean(p, axis=0)
  expected[1] = (p[1] + p[2])[1] / 2
  np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("options", "fusion", "words"),
  [
    ({"stages": 0}, "sum", "stages must lie"),
    ({"flat": 2}, "sum", "flat must lie"),
    ({"rho": -1}, "sum", "rho must lie"),
    ({"temperature": -1}, "sum", "temperature must lie"),
    ({}, "shared_head", "fusion=sum"),
    ({}, "aug", "fusion=sum"),
    ({}, "channel", "own_heads"),
  ],
)
def test_refuses(options, fusion, words):
  with pytest.raises(ValueError, match=words):
    toys.Run(igm.make(**options), 2, fusion).fresh()
