"""Any method on a bound problem, in a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dmg_jax
import toys
from all_recipes import KINDS
from bound_models import ADAM, bound, count, numpy_batch, two
from dmg_jax.config.recipes import RECIPES
from dmg_jax.errors import InputError, UnsuitableError
from dmg_jax.model import registry
from dmg_jax.training import optim, steps

METHODS = sorted({RECIPES[r].method for r in KINDS})
QUICK = {"joint", "lb", "mla", "ogm_ge"}


def slow(name):
  return pytest.param(name, marks=pytest.mark.slow)


def options_of(name):
  return {
    "unimodal": {"modality": None},
    "lb": {"iterations": 1},
  }.get(name, {})


def splits(name):
  return {
    "train": [numpy_batch(name, 10), numpy_batch(name, 11)],
    "outer": lambda: iter([numpy_batch(name, 20)]),
    "val": [numpy_batch(name, 30)],
  }


def train(name, loop, number=2):
  """Steps as in a user's loop; the state and the metrics of each step."""
  state, seen = loop.init(), []
  for epoch in range(2):
    state = loop.between_epochs(state, splits(name), epoch)
    order = loop.order(state, epoch)
    assert order is None or len(order) >= toys.SAMPLES
    for i in range(number // 2):
      state, metrics = loop.step(state, numpy_batch(name, i))
      seen.append({k: float(v) for k, v in metrics.items()})
    if loop.has_outer:
      state, extra = loop.outer_step(
        state, numpy_batch(name, 0), numpy_batch(name, 9)
      )
      seen.append({k: float(v) for k, v in extra.items()})
  return state, seen


@pytest.mark.parametrize(
  "name", [n if n in QUICK else slow(n) for n in METHODS]
)
def test_methods_of_each_kind_train_a_bound_problem(name):
  problem, _ = bound(name)
  loop = dmg_jax.Loop(problem, name, ADAM, epochs=2, **options_of(name))
  state, seen = train(name, loop)
  assert int(state.step) == 2 and loop._step._cache_size() == 1
  assert toys.finite((state.params, seen))
  assert not toys.same(state.params, loop.init().params)
  logits = loop.predict(state, toys.batch(count(name)).inputs)
  assert logits.shape == (8, toys.CLASSES)
  assert loop.epochs >= 2 and loop.ready(state) in (True, False)


@pytest.mark.parametrize("name", ["ogm_ge", slow("gblend")])
def test_seeds_are_reproducible(name):
  problem, _ = bound(name)
  runs = [
    train(name, dmg_jax.Loop(problem, name, ADAM, seed=s, **options_of(name)))
    for s in (1, 1, 2)
  ]
  assert toys.same(runs[0][0], runs[1][0])
  assert not toys.same(runs[0][0].params, runs[2][0].params)


def to64(tree):
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


@pytest.mark.parametrize(
  "name", ["joint", *map(slow, ("lb", "ogm_ge", "mla", "agm"))]
)
def test_the_same_as_the_library_in_float64(name):
  """Gradients through the optimiser, and lb's hypergradient."""
  problem, plain = bound(name)
  modalities = count(name)
  inputs64 = to64(toys.batch(modalities).inputs)
  start = to64(problem.start)
  method = registry.make_method(name, **options_of(name))
  init_opt, apply = optim.make(
    plain.owner, lambda step: 0.05, name="sgd", momentum=0.9
  )
  theirs = steps.init_state(plain, method, *start, init_opt, 0)
  step = steps.make_train_step(plain, method, apply)
  loop = dmg_jax.Loop(
    problem, method, optax.chain(optax.trace(0.9), optax.scale(-0.05))
  )
  mine = loop.init(*start)
  batch = toys.batch(modalities).replace(inputs=inputs64)
  for _ in range(2):
    theirs, one = step(theirs, batch, 0)
    mine, two = loop.step(mine, batch)
  toys.assert_close(one, two, rtol=1e-12, atol=1e-13)
  toys.assert_close(theirs.params, mine.params, rtol=1e-12, atol=1e-13)
  toys.assert_close(theirs.stats, mine.stats, rtol=1e-12, atol=1e-13)
  assert jax.tree.leaves(mine.params)[0].dtype == jnp.float64
  if method.outer_step is not None:
    outer = steps.make_outer_step(plain, method)
    other = toys.batch(modalities, seed=9)
    other = other.replace(inputs=to64(other.inputs))
    _, one = outer(theirs, batch, other, 0)
    _, two = loop.outer_step(mine, batch, other)
    assert abs(float(two["hypergradient"])) > 0
    np.testing.assert_allclose(
      one["hypergradient"], two["hypergradient"], rtol=1e-10
    )


@pytest.mark.slow
def test_the_outer_step_leaves_weights_and_statistics_alone():
  problem, _ = bound("lb")
  loop = dmg_jax.Loop(problem, "lb", ADAM, iterations=1)
  state, _ = loop.step(loop.init(), numpy_batch("lb"))
  after, metrics = loop.outer_step(
    state, numpy_batch("lb"), numpy_batch("lb", 5)
  )
  assert toys.same((state.params, state.stats), (after.params, after.stats))
  assert float(metrics["alpha"]) != float(state.method.value)


def test_splits_and_steps_that_are_not_given_are_named():
  whole = ("logits", "unimodal", "features")
  loop = dmg_jax.Loop(two(whole), "mslr", ADAM)
  state = loop.init()
  with pytest.raises(UnsuitableError, match=r"^mslr needs the split 'val'"):
    for epoch in range(10):
      state = loop.between_epochs(state, {}, epoch)
  loop = dmg_jax.Loop(two(whole), "lb", ADAM)
  with pytest.raises(UnsuitableError, match=r"^lb needs the number of steps"):
    loop.between_epochs(loop.init(), {}, 0)
  loop = dmg_jax.Loop(two(whole), "lb", ADAM, steps_per_epoch=3)
  loop.between_epochs(loop.init(), {}, 0)


def test_joint_needs_logits_only():
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  state, metrics = loop.step(loop.init(), toys.batch(2))
  assert np.isfinite(metrics["loss"])
  assert loop.predict(state, toys.batch(2).inputs).shape == (8, 3)


def test_a_method_of_other_modalities_is_refused():
  with pytest.raises(UnsuitableError, match="unimodal trains a model of image"):
    dmg_jax.Loop(two(), "unimodal", ADAM, modality="image")


def test_what_a_loop_refuses():
  problem = two()
  with pytest.raises(InputError, match=r"unknown method 'jiont'.*joint"):
    dmg_jax.Loop(problem, "jiont", ADAM)
  with pytest.raises(InputError, match=r"option of method 'ogm_ge' 'alhpa'"):
    dmg_jax.Loop(problem, "ogm_ge", ADAM, alhpa=1)
  with pytest.raises(InputError, match="gradient transformation of optax"):
    dmg_jax.Loop(problem, "joint", 1e-3)  # type: ignore[arg-type]
  with pytest.raises(InputError, match="options alpha are for a method by"):
    dmg_jax.Loop(problem, registry.make_method("joint"), ADAM, alpha=1)
  loop = dmg_jax.Loop(problem, "joint", ADAM)
  with pytest.raises(InputError, match="joint has no outer level"):
    loop.outer_step(loop.init(), toys.batch(2), toys.batch(2))


def test_clip_norm_is_of_the_whole_gradient():
  problem = two()
  batch = toys.batch(2)
  sgd = optax.sgd(1.0)
  moved = []
  for clip in (None, 0.1):
    loop = dmg_jax.Loop(problem, "joint", sgd, clip_norm=clip)
    state = loop.init()
    after, _ = loop.step(state, batch)
    moved.append(
      jax.tree.map(lambda a, b: np.asarray(b - a), state.params, after.params)
    )
  norm = float(optax.global_norm(moved[0]))
  np.testing.assert_allclose(optax.global_norm(moved[1]), 0.1, rtol=1e-4)
  toys.assert_close(
    jax.tree.map(lambda x: x * (0.1 / norm), moved[0]), moved[1], atol=1e-6
  )


def test_a_state_is_kept_unless_donated():
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  state = loop.init()
  before = jax.tree.map(np.asarray, state)
  loop.step(state, toys.batch(2))
  assert toys.same(before, state)
  loop = dmg_jax.Loop(two(), "joint", ADAM, donate=True)
  one, _ = loop.step(loop.init(), toys.batch(2))
  two_, _ = loop.step(loop.init(), toys.batch(2))
  assert toys.same(one, two_)
