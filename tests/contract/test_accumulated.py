"""A batch in parts is the whole batch, for each kind of recipe.

Where there are no batch statistics and no dropout: steps, running means of
methods and α are those of the whole batch up to the rounding of float32 sums.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toys
from all_recipes import ROWS, batches, every_kind, run_of
from dmg_jax.config.recipes import RECIPES
from dmg_jax.model import registry
from dmg_jax.training import steps
from dmg_jax.training.inputs import accumulate


def in_parts(run, size):
  """The same run, whose steps hold ``size`` samples at a time."""
  problem = accumulate.in_parts(run.problem, size)
  return toys.Run.on(run.method, problem, run.params, run.stats, "sgd")


@every_kind
def test_parts_are_the_whole(name):
  """Two steps and an outer step, on batches with padding and gaps."""
  run = run_of(name)
  parts = in_parts(run, 2)
  data = toys.ToyData(len(run.problem.modalities))
  whole, divided = (r.between(r.fresh(), data, 0) for r in (run, parts))
  for seed in range(2):
    whole, one = run.step(whole, batches(run, seed))
    divided, two = parts.step(divided, batches(run, seed))
  if run.outer is not None:
    outer = batches(run, 9), batches(run, 8)
    whole, _ = run.outer(whole, *outer)
    divided, _ = parts.outer(divided, *outer)
  # Running gates of ``channel`` are means over parts, as documented.
  stats = {k: v for k, v in whole.stats.items() if k != "gates"}
  toys.assert_close(one, two, rtol=1e-5, atol=1e-6)
  toys.assert_close(whole.params, divided.params, rtol=1e-4, atol=1e-5)
  toys.assert_close(whole.method, divided.method, rtol=1e-4, atol=1e-5)
  assert stats == {} or toys.same(stats, {k: divided.stats[k] for k in stats})
  assert jax.tree.structure(whole) == jax.tree.structure(divided)


def test_every_method_has_a_row():
  methods = {RECIPES[n].method for n in ROWS.values()}
  assert methods == set(registry.known("methods"))


def test_outputs_are_those_of_the_batch_in_its_order():
  run = run_of("lb")
  parts = accumulate.in_parts(run.problem, 3)  # 8 is no multiple of it.
  batch = batches(run, 0)
  args = run.params, run.stats, batch
  whole, divided = (p.run(*args)[0] for p in (run.problem, parts))
  toys.assert_close(whole, divided, rtol=1e-6, atol=1e-6)


def test_statistics_are_those_of_parts():
  """BatchNorm's running statistics move once a part, as documented."""
  run = run_of("joint", norm="batch")
  parts = accumulate.in_parts(run.problem, 4)
  batch, key = toys.batch(3), jax.random.key(0)
  _, found = parts.run(run.params, run.stats, batch, key, True)
  stats = run.stats
  for part in range(2):
    own = jax.tree.map(lambda x, i=part: x[i::2], batch)
    _, stats = run.problem.run(run.params, stats, own, key, True)
  toys.assert_close(found, stats, rtol=1e-6, atol=1e-7)


def test_parts_draw_their_own_dropout():
  run = run_of("joint", dropout=0.5)
  parts = accumulate.in_parts(run.problem, 4)
  batch = jax.tree.map(lambda x: jnp.concatenate([x[:1]] * 8), toys.batch(3))
  outputs, _ = parts.run(run.params, run.stats, batch, jax.random.key(0), True)
  logits = np.asarray(outputs.logits)
  assert len(np.unique(logits, axis=0)) > 4  # Not one mask for all parts.


def test_one_part_is_in_memory(optimised):
  """Activations of half a batch: most of what a step of wide layers holds."""
  model = registry.make_encoder("small.MLP", widths=(256,) * 8, features=8)
  x = jnp.ones((512, 64), jnp.float32)
  params = model.init(jax.random.key(0), x, False)

  def forward(params, stats, inputs, key, train, *masks):
    del key, masks
    z = model.apply(params, inputs["image"], train)
    return toys.Outputs(z, {"image": z}, {"image": z}), stats

  def temporary(problem):
    def loss(params):
      out, _ = problem.forward(params, {}, {"image": x}, None, True)
      return (out.logits**2).sum()

    step = jax.jit(jax.grad(loss)).lower(params).compile()
    return step.memory_analysis().temp_size_in_bytes

  whole = toys.bare_problem(forward, ["image"])
  divided = accumulate.in_parts(whole, 64)
  assert temporary(divided) < 0.5 * temporary(whole)


@pytest.mark.parametrize(
  ("sizes", "devices", "said"),
  [
    ({"batch_size": 9, "inner_batch_size": 9}, 1, "multiple of 2"),
    ({"batch_size": 8, "inner_batch_size": 8}, 8, "multiple of 16"),
    ({"batch_size": 8, "inner_batch_size": 6}, 1, "inner_batch_size=6"),
  ],
)
def test_unequal_parts_are_refused(sizes, devices, said):
  with pytest.raises(ValueError, match=said):
    accumulate.check(sizes, 2, devices)
  accumulate.check({"batch_size": 16, "inner_batch_size": 8}, 2, 4)


def test_several_seeds_in_one_step():
  """``jax.vmap`` over the state and the parts."""
  run = run_of("lb")
  parts = in_parts(run, 4)
  found = []
  for r in (run, parts):
    step = steps.make_train_step(r.problem, r.method, r.apply, several=True)
    state, batch = (
      jax.tree.map(lambda x: jnp.stack([x, x]), t)
      for t in (run.fresh(), batches(run, 0))
    )
    found.append(step(state, batch, jnp.arange(2, dtype=jnp.int32)))
  toys.assert_close(*found, rtol=1e-4, atol=1e-5)
