"""Weights and moments divided over devices, for each kind of recipe.

``sharding=fsdp`` gives the numbers of ``replicated`` up to the rounding of
float32 sums, and the new state lies where the old one did.
"""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType

import toys
from all_recipes import batches, every_kind, run_of
from dmg_jax.training import sharding, steps
from dmg_jax.training.checkpoint import Checkpoints

HOW = "fsdp"


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Every array that can be is divided, however small."""
  monkeypatch.setattr(sharding, "SMALL", 1)


def mesh_of(count):
  kind = (AxisType.Auto,)
  return jax.make_mesh((count,), ("b",), kind, devices=jax.devices()[:count])


def divided(run, mesh, several=False):
  """The run's problem and steps, compiled for a state that is divided."""
  problem = sharding.gathered(run.problem, mesh, HOW)

  def keep(step):
    return sharding.keep(step, mesh, HOW, several)

  step = steps.make_train_step(
    problem, run.method, run.apply, several, keep=keep
  )
  outer = None
  if run.method.outer_step is not None:
    outer = steps.make_outer_step(problem, run.method, keep=keep)
  return step, outer


def placements(state):
  return [x.sharding.spec for x in jax.tree.leaves(state)]


@every_kind
def test_divided_is_replicated(name):
  run, mesh = run_of(name), mesh_of(4)
  step, outer = divided(run, mesh)
  place = sharding.make_place(mesh)
  data = toys.ToyData(len(run.problem.modalities))
  whole = run.between(run.fresh(), data, 0)
  parts = sharding.put(mesh, run.fresh(), HOW)
  parts = run.between(parts, data, 0)
  before = placements(parts)
  assert any("b" in spec for spec in before)
  for seed in range(2):
    batch = batches(run, seed)
    whole, one = run.step(whole, batch)
    parts, two = step(parts, place(batch), 0)
  if outer is not None:
    hyper = batches(run, 9), batches(run, 8)
    whole, _ = run.outer(whole, *hyper)
    parts, _ = outer(parts, *map(place, hyper), 0)
  assert placements(parts) == before
  assert step._cache_size() == 1
  toys.assert_close(one, two, rtol=1e-4, atol=1e-5)
  toys.assert_close(whole, parts, rtol=1e-3, atol=1e-5)


def test_the_longest_axis_that_fits_is_divided(monkeypatch):
  mesh = mesh_of(4)

  def spec(*shape, several=False):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return tuple(sharding.state_sharding(mesh, x, HOW, several).spec)

  monkeypatch.setattr(sharding, "SMALL", 64)
  assert spec(8, 16) == (None, "b") and spec(16, 8) == ("b",)
  assert spec(8, 15) == ("b",)  # The longest does not fit.
  assert spec(9, 15) == () and spec() == ()
  assert spec(4, 8) == ()  # Small.
  assert spec(64, 8, 16, several=True) == (None, None, "b")
  assert spec(64, 3, 5, several=True) == ()  # Replicas stay together.


def test_checkpoints_move_between_shardings_and_devices(tmp_path):
  """From four devices to two, whole, and divided again."""
  run = run_of("lb")
  step, _ = divided(run, mesh_of(4))
  state = sharding.put(mesh_of(4), run.fresh(), HOW)
  place = sharding.make_place(mesh_of(4))
  state, _ = step(state, place(batches(run, 0)), 0)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state, {"fused/accuracy": 0.5})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path)
  for count, how in ((2, HOW), (1, "replicated"), (8, HOW), (4, "replicated")):
    like = sharding.put(mesh_of(count), run.fresh(), how)
    found = checkpoints.restore(1, like)
    assert placements(found) == placements(like)
    assert toys.same(state, found)
  checkpoints.close()


def test_several_seeds_divided(monkeypatch):
  """``jax.vmap`` over a divided state: replicas stay together."""
  run, mesh = run_of("joint"), mesh_of(4)
  step, _ = divided(run, mesh, several=True)
  state = jax.tree.map(lambda x: jnp.stack([x, x]), run.fresh())
  whole = steps.make_train_step(run.problem, run.method, run.apply, True)
  batch = jax.tree.map(lambda x: jnp.stack([x, x]), batches(run, 0))
  seeds = jnp.arange(2, dtype=jnp.int32)
  parts = sharding.put(mesh, jax.tree.map(jnp.copy, state), HOW, several=True)
  place = sharding.make_place(mesh, stacked=True)
  for _ in range(2):
    state, _ = whole(state, batch, seeds)
    parts, _ = step(parts, place(batch), seeds)
  assert step._cache_size() == 1
  toys.assert_close(state, parts, rtol=1e-3, atol=1e-5)


def test_a_device_holds_its_part():
  """Bytes of the state a device, by the compiled step and by its arrays."""
  mesh = mesh_of(4)
  made = wide_run()
  where = {}
  for how in sharding.HOW:
    problem = sharding.gathered(made.problem, mesh, how)
    step = steps.make_train_step(
      problem,
      made.method,
      made.apply,
      keep=lambda s, how=how: sharding.keep(s, mesh, how, False),
    )
    state = sharding.put(mesh, made.fresh(), how)
    held = sum(
      x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state)
    )
    place = sharding.make_place(mesh)
    args = state, place(toys.batch(2)), 0
    compiled = step.lower(*args).compile().memory_analysis()
    where[how] = held, compiled.argument_size_in_bytes
  for whole, part in zip(where["replicated"], where["fsdp"], strict=True):
    assert part <= 0.3 * whole


def wide_run():
  """Layers of 256 units, as large as the weights of a network are."""
  from dmg_jax.model import classifier, registry

  names = toys.NAMES[:2]
  options = {"name": "small.MLP", "features": 64, "widths": (256, 256)}
  model = registry.make_classifier(
    dict.fromkeys(names, options), {"name": "concat"}, toys.CLASSES
  )
  inputs = toys.batch(2).inputs
  params, stats = classifier.make_init(model, inputs)(0)
  problem = classifier.bind(model, params, stats, inputs, toys.SAMPLES, "R1")
  return toys.Run.on(toys.make_method("joint"), problem, params, stats)
