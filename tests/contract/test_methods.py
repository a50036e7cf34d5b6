"""What every method owes the loop, for every file in ``dmg_jax/methods``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import toys
from dmg_jax import build, sharding
from dmg_jax.checkpoint import Checkpoints

METHODS = build.known("methods")
TWO_ONLY = {"greedy"}
ANY_NUMBER = [
  (name, count)
  for name in METHODS
  for count in ((2,) if name in TWO_ONLY else (1, 2, 3))
]


def advance(run, state, steps=3, modalities=2, size=8):
  """Between-epochs hook, steps, and an outer step where there is one."""
  data = toys.ToyData(modalities)
  state = run.between(state, data, 0)
  for i in range(steps):
    batch = toys.batch(modalities, size, seed=i)
    state, metrics = run.step(state, batch)
  if run.outer is not None:
    outer = toys.batch(modalities, size, seed=99)
    state, extra = run.outer(state, batch, outer)
    metrics = {**metrics, **extra}
  return state, metrics


def signature(tree):
  return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.weak_type), tree)


@pytest.mark.parametrize(("name", "modalities"), ANY_NUMBER)
def test_runs_compiles_once_and_keeps_its_structure(name, modalities):
  run = toys.run_of(name, modalities)
  before = signature(run.fresh())
  state, metrics = advance(run, run.fresh(), 1, modalities)
  compiled = run.step._cache_size()
  state, metrics = advance(run, state, 2, modalities)
  state = run.between(state, toys.ToyData(modalities), 1)
  state, _ = run.step(state, toys.batch(modalities, seed=7))
  assert run.step._cache_size() == compiled
  assert signature(state) == before
  assert int(state.step) == 4
  assert toys.finite((state.params, metrics))
  assert "loss" in metrics
  outputs, _ = run.problem.forward(
    state.params, state.stats, toys.batch(modalities).inputs, None, False
  )
  logits = run.method.predict(outputs, state.method)
  assert logits.shape == (8, toys.CLASSES)


@pytest.mark.parametrize("name", METHODS)
def test_learns(name):
  run = toys.run_of(name)
  state, losses = run.fresh(), []
  for _ in range(60):
    state, metrics = run.step(state, toys.batch(2, 32))
    losses.append(float(metrics["loss"]))
  assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_is_deterministic(name):
  run = toys.run_of(name, dropout=0.3)
  one, _ = advance(run, run.fresh())
  two, _ = advance(run, run.fresh())
  assert toys.same(one, two)


@pytest.mark.parametrize("name", METHODS)
def test_padding_has_no_influence(name):
  run = toys.run_of(name)
  mask = jnp.array([1, 1, 1, 1, 1, 0, 0, 0], jnp.float32)

  def padded(garbage):
    batch = toys.batch(2)
    inputs = {m: x.at[5:].set(garbage) for m, x in batch.inputs.items()}
    return batch.replace(inputs=inputs, mask=mask)

  states = []
  for garbage in (0.0, 50.0):
    state, metrics = run.step(run.fresh(), padded(garbage))
    if run.outer is not None:
      state, _ = run.outer(state, padded(garbage), padded(garbage))
    states.append((state, metrics))
  toys.assert_close(*states, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", ["huge logits", "one class", "one sample"])
def test_stays_finite(name, case):
  run = toys.run_of(name, rate=1e-4)
  state, size = run.fresh(), 1 if case == "one sample" else 8
  batch = toys.batch(2, size)
  if case == "huge logits":
    state = state.replace(params=jax.tree.map(lambda p: 100 * p, state.params))
  if case == "one class":
    batch = batch.replace(labels=jnp.zeros(8, jnp.int32))
  for _ in range(2):
    state, metrics = run.step(state, batch)
    assert toys.finite((state.params, metrics))
  if run.outer is not None:
    state, _ = run.outer(state, batch, batch)
    assert toys.finite((state.params, state.method))


@pytest.mark.parametrize("name", METHODS)
def test_sharded_equals_unsharded(name):
  mesh = sharding.make_mesh(8)
  place = sharding.make_place(mesh)
  run = toys.run_of(name)
  here, elsewhere = run.fresh(), sharding.replicate(mesh, run.fresh())
  for seed in range(2):
    batch = toys.batch(2, seed=seed)
    here, one = run.step(here, batch)
    elsewhere, two = run.step(elsewhere, place(batch))
  if run.outer is not None:
    outer = toys.batch(2, seed=9)
    here, _ = run.outer(here, batch, outer)
    elsewhere, _ = run.outer(elsewhere, place(batch), place(outer))
  toys.assert_close(one, two, rtol=1e-4, atol=1e-5)
  toys.assert_close(here, elsewhere, rtol=1e-3, atol=1e-5)
  spec = NamedSharding(mesh, P())
  for leaf in jax.tree.leaves(elsewhere.params):
    assert leaf.sharding.is_equivalent_to(spec, leaf.ndim)


@pytest.mark.parametrize("name", METHODS)
def test_state_survives_a_checkpoint(name, tmp_path):
  run = toys.run_of(name, norm="batch")
  state, _ = advance(run, run.fresh())
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state, {"fused/accuracy": 0.5})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path)
  restored = checkpoints.restore(3, run.fresh())
  checkpoints.close()
  assert toys.same(state, restored)
  assert signature(state) == signature(restored)


@pytest.mark.parametrize("name", METHODS)
def test_running_statistics_move_in_training_only(name):
  run = toys.run_of(name, norm="batch")
  state, _ = run.step(run.fresh(), toys.batch(2))
  assert not toys.same(state.stats, run.fresh().stats)
  if run.outer is not None:
    before = jax.tree.map(np.asarray, state.stats)
    state, _ = run.outer(state, toys.batch(2), toys.batch(2, seed=1))
    assert toys.same(before, state.stats)


@pytest.mark.parametrize("name", METHODS)
def test_has_its_equation_and_reference(name):
  doc = build._module("methods", "method", name).__doc__
  assert ".. math::" in doc and "Reference:" in doc
