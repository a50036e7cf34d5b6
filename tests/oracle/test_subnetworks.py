"""AMSS+ against its equations, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import toys
from dmg_jax.methods import amss

SGD = {"optimiser": "sgd", "rate": 1.0, "momentum": 0.0}


def ratios_by_hand(out, batch, rows, temperature):
  """ρ in the order of the modalities."""
  y = np.asarray(batch.labels)
  f = np.bincount(y) / len(y)
  labels = -(f[f > 0] * np.log(f[f > 0])).sum()
  rate = []
  for m, o in out.unimodal.items():
    there = rows[m] > 0
    log_p = log_softmax(np.float64(o), axis=-1)[np.arange(len(y)), y]
    log_z = log_softmax(np.float64(out.features[m]), axis=-1)
    spread = -(np.exp(log_z) * log_z).sum(axis=-1)[there].mean()
    rate.append((labels + log_p[there].mean() + 0.5) / spread / temperature)
  if min(rate) <= 0:
    return [0.5] * len(rate)
  return np.clip(1 - softmax(rate), 0.1, 0.9)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_ratios_with_missing_modalities(temperature):
  bound, params, _ = toys.problem(3)
  params = jax.tree.map(lambda x: x / 3, params)  # Less certain than chance.
  rows = {m: np.ones(8, np.float32) for m in toys.NAMES}
  rows["image"][:3] = rows["audio"][4] = 0
  present = {m: jnp.asarray(row) for m, row in rows.items()}
  batch = toys.batch(3).replace(present=present)
  out, _ = bound.run(params, {}, batch)
  found = amss.ratios(out, batch, temperature, False)
  expected = ratios_by_hand(out, batch, rows, temperature)
  ours = [found[m] for m in out.unimodal]
  np.testing.assert_allclose(ours, expected, rtol=1e-4)
  assert len({round(float(v), 4) for v in expected}) > 1


def test_the_leading_modality_has_the_smaller_subnetwork():
  batch = toys.batch(2)
  z = {m: jnp.ones((8, 4)) for m in batch.inputs}
  right = jax.nn.one_hot(batch.labels, toys.CLASSES)
  own = {"image": 3 * right, "text": 0 * right}
  found = amss.ratios(toys.Outputs(3 * right, own, z), batch, 1.0, False)
  assert float(found["image"]) < 0.5 < float(found["text"])
  np.testing.assert_allclose(sum(found.values()), 1, rtol=1e-6)
  wrong = {"image": -9 * right, "text": 0 * right}
  found = amss.ratios(toys.Outputs(3 * right, wrong, z), batch, 1.0, False)
  assert {float(v) for v in found.values()} == {0.5}


def many(q, size, unbiased, draws=20_000):
  """The factors of many draws, [draws n]."""
  q = jnp.asarray(q, jnp.float32)[:, None]
  keys = jax.random.split(jax.random.key(0), draws)

  def one(key):
    return amss.drawn(q, jax.random.gumbel(key, q.shape), size, unbiased)

  return np.asarray(jax.jit(jax.vmap(one))(keys))[:, :, 0]


def test_amss_plus_is_unbiased():
  found = many([0.7, 0.2, 0.06, 0.04, 0.0], 2, True)
  assert set((found > 0).sum(axis=1)) == {2}
  # Five standard errors of each mean.
  error = 5 * found.std(axis=0) / np.sqrt(len(found))
  assert (abs(found.mean(axis=0) - 1) < error).all()
  assert error.max() < 0.15


def test_amss_draws_by_importance():
  q = np.array([0.6, 0.3, 0.1, 0.0])
  first = many(q, 1, False)
  np.testing.assert_allclose(first.mean(axis=0), q, atol=0.02)
  two = many(q, 2, False)
  assert set(np.unique(two)) == {0, 1}
  pairs = [
    [0.3 / 0.4, 0.1 / 0.4],
    [0.6 / 0.7, 0.1 / 0.7],
    [0.6 / 0.9, 0.3 / 0.9],
  ]
  chance = q[0] + q[1] * pairs[1][0] + q[2] * pairs[2][0]
  np.testing.assert_allclose(two[:, 0].mean(), chance, atol=0.02)


def test_all_units_are_drawn_as_they_are():
  np.testing.assert_allclose(many([0.9, 0.1, 0.0], 3, True, 4), 1)


def changes(method, modalities=2):
  """What one SGD step subtracts from the weights, and its metrics."""
  run = toys.Run(method, modalities, **SGD)
  before = jax.tree.map(np.asarray, run.params)
  state, metrics = run.step(run.fresh(), toys.batch(modalities))
  moved = jax.tree.map(np.subtract, before, jax.device_get(state.params))
  return run, moved, metrics


def test_subnetworks_have_their_size():
  """Units of encoders and features of heads are whole or untouched."""
  _, joint, _ = changes(toys.make_method("joint"))
  run, moved, metrics = changes(amss.make(plus=False))
  owners = jax.tree.leaves(run.problem.owner)
  leaves = map(jax.tree.leaves, (joint, moved))
  for owner, whole, part in zip(owners, *leaves, strict=True):
    kept = part != 0
    np.testing.assert_allclose(part[kept], whole[kept], rtol=1e-4, atol=1e-6)
    if owner == "shared" or part.ndim == 1:
      np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-6)
      continue
    ratio = float(metrics[f"ratio_{owner.partition('/')[0]}"])
    if "/" in owner:
      expected = np.full(toys.CLASSES, np.ceil(ratio * len(part)))
      np.testing.assert_array_equal(kept.sum(axis=0), expected)
    else:
      alive = (whole != 0).any(axis=0).sum()
      size = min(np.ceil(ratio * part.shape[1]), alive)
      assert kept.any(axis=0).sum() == size


def test_faithful_leaves_the_head():
  _, joint, _ = changes(toys.make_method("joint"))
  _, moved, _ = changes(amss.make(faithful=True))
  toys.assert_close(moved["fusion"], joint["fusion"], rtol=1e-4)


def test_amss_plus_thins_the_head_and_enlarges_what_is_left():
  _, joint, _ = changes(toys.make_method("joint"))
  _, moved, _ = changes(amss.make())
  whole, part = (t["fusion"]["head_image"] for t in (joint, moved))
  kept = part != 0
  assert 0 < kept.sum() < part.size
  assert (part[kept] / whole[kept] > 0.999).all()
  assert (part[kept] / whole[kept]).max() > 1.01


def test_one_modality_is_updated_as_a_whole():
  _, joint, _ = changes(toys.make_method("joint"), 1)
  _, moved, metrics = changes(amss.make(), 1)
  assert toys.same(joint, moved)
  assert float(metrics["ratio_image"]) == 1


def test_refuses():
  with pytest.raises(ValueError, match="temperature must lie"):
    amss.make(temperature=0)
