"""PMR against NumPy: its loss, and its prototypes over epochs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import given
import toys
from dmg_jax.methods import pmr

Y = np.asarray(given.batch().labels)


def ce(logits):
  picked = log_softmax(logits, axis=1)[np.arange(given.SAMPLES), Y]
  return -picked[given.REAL].mean()


def memory(count, seen):
  rng = np.random.default_rng(9)
  size = given.CLASSES, given.FEATURES
  prototypes = {m: jnp.array(rng.normal(size=size)) for m in "abc"[:count]}
  seen = jnp.array(seen, jnp.float32)
  one = jnp.ones((), jnp.float32)
  return pmr.State(prototypes, seen, one, one)


def pmr_loss(mstate, faithful):
  """α = .7, η = .3; the coefficients have no gradient."""
  known = np.asarray(mstate.seen) > 0
  rows = given.REAL & known[Y]
  columns = np.flatnonzero(known)
  at = np.searchsorted(columns, Y[rows])

  def near(value, m):
    c = np.asarray(mstate.prototypes[m])[columns]
    apart = value["features"][m][rows][:, None] - c[None]
    return log_softmax(-np.sqrt((apart**2).sum(axis=2) + 1e-12), axis=1)

  def loss(live, stopped):
    total, names = ce(live["logits"]), list(live["features"])
    picked = np.arange(len(at)), at
    s = {m: np.exp(near(stopped, m))[picked].sum() for m in names}
    for m in names:
      log_p, lag = near(live, m), max(s.values()) / s[m] - 1
      beta = float(lag > 0) if faithful else np.clip(lag, 0, 1)
      gamma = np.clip(s[m] / min(s.values()) - 1, 0, 1)
      entropy = -(np.exp(log_p) * log_p).sum(axis=1).mean()
      total += 0.7 * beta * -log_p[picked].mean() - 0.3 * gamma * entropy
    return total

  return loss


@pytest.mark.parametrize(
  ("count", "faithful", "seen"),
  [
    (1, False, (1, 1, 1, 1)),
    (2, True, (1, 0, 1, 1)),
    (2, False, (1, 1, 1, 1)),
    (3, False, (1, 0, 1, 1)),
    (3, True, (1, 1, 1, 1)),
  ],
)
def test_pmr_loss(count, faithful, seen):
  value = given.values(count)
  method = pmr.make(alpha=0.7, entropy=0.3, faithful=faithful)
  state = given.start(method, given.problem(value), value)
  mstate = memory(count, seen)
  state = state.replace(method=mstate)
  given.check(method, value, pmr_loss(mstate, faithful), state)


@pytest.mark.parametrize("off", [{"active": 0.0}, {"seen": [0.0] * 4}])
def test_pmr_is_joint_training_outside_its_epochs_and_before_prototypes(off):
  value = given.values()
  method = pmr.make(alpha=3.0, entropy=2.0)
  off = {k: jnp.array(v, jnp.float32) for k, v in off.items()}
  state = given.start(method, given.problem(value), value)
  state = state.replace(method=memory(3, (1, 1, 1, 1)).replace(**off))
  given.check(method, value, lambda live, _: ce(live["logits"]), state)


def test_pmr_distances_scale_with_features_and_prototypes():
  rng = np.random.default_rng(0)
  z, c = jnp.array(rng.normal(size=(5, 3))), jnp.array(rng.normal(size=(4, 3)))
  one = pmr.nearness(z, c, jnp.ones(4))
  np.testing.assert_allclose(
    pmr.nearness(2.5 * z, 2.5 * c, jnp.ones(4)), 2.5 * one, rtol=1e-9
  )
  at_zero = jax.grad(lambda z: pmr.nearness(z, c, jnp.ones(4)).sum())(c)
  assert np.isfinite(at_zero).all()


class Passes(toys.ToyData):
  """Other labels in every pass; ``given`` has the features."""

  def __init__(self):
    super().__init__(2)
    self.labels = [[0, 0, 1, 1, 2, 2, 2], [1, 1, 3, 0, 1, 3, 0]] * 3

  def batches(self, split):
    assert split == "train"
    labels = jnp.asarray(self.labels[self.epoch], jnp.int32)
    yield given.batch().replace(labels=labels)


def test_pmr_prototypes_over_epochs():
  value, data, eps = given.values(2), Passes(), 0.25
  bound = given.problem(value)
  method = pmr.make(momentum=eps, fraction=1.0, start=1, end=3)
  state = given.start(method, bound, value)
  shape = given.CLASSES, given.FEATURES
  old = {m: np.zeros(shape) for m in value["features"]}
  seen = np.zeros(given.CLASSES)
  for epoch in range(6):
    data.epoch = epoch
    state = method.between_epochs(bound, state, data, epoch)
    labels = np.array(data.labels[epoch])
    for m, z in value["features"].items():
      for c in range(given.CLASSES):
        own = z[given.REAL & (labels == c)]
        if len(own) and seen[c] and epoch >= 2:
          old[m][c] = (1 - eps) * own.mean(axis=0) + eps * old[m][c]
        elif len(own):
          old[m][c] = own.mean(axis=0)
    seen = np.maximum(seen, np.bincount(labels[given.REAL], minlength=4) > 0)
    toys.assert_close(state.method.prototypes, old, rtol=1e-6)
    np.testing.assert_array_equal(state.method.seen, seen)
    assert float(state.method.active) == (1 <= epoch <= 3)


@pytest.mark.parametrize(("samples", "fraction"), [(70, 0.1), (50, 0.5)])
def test_pmr_measures_every_batch_in_turn(samples, fraction):
  batches = [given.batch(seed) for seed in range(-(-samples // 7))]
  epochs = round(1 / fraction)
  parts = [
    list(pmr.part(iter(batches), samples, fraction, epoch))
    for epoch in range(epochs)
  ]
  assert all(parts)
  met = sorted(id(b) for part in parts for b in part)
  assert met == sorted(id(b) for b in batches)
