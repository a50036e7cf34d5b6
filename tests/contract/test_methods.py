"""What every method owes the loop, for every file in ``dmg_jax/methods``.

Each method is compiled for a problem of three modalities with BatchNorm and
dropout; some, and all of them in the slow suite, for one with neither. Of those
that are alike to the loop, one is in the fast suite.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import toys
from dmg_jax import losses, types
from dmg_jax.model import registry
from dmg_jax.training import sharding
from dmg_jax.training.checkpoint import Checkpoints

METHODS = registry.known("methods")
TWO_ONLY = {"greedy"}
# Those that differ most in what is summed over a batch; the others are slow.
SHARDED = {"mla"}
# test_divided.py runs every recipe over devices, with its weights divided.
OVER_DEVICES = ("mla", "lb", "ogm_ge", "tcmax", "pmr")

# Near others in what the loop does for them; their oracles are all fast.
NEAR = {
  "amco", "amss", "arl", "cggm", "cml", "constant", "cpsc", "dgl", "domfn",
  "ensemble", "etmc", "g2d", "greedy", "heuristic", "igm", "inforeg", "iprm",
  "joint", "label_fitting", "lfm_code", "mbsd", "mcr", "mses", "ogm_ge", "pmr",
  "reconboost", "remix", "stepwise", "tcmax", "valuation", "weight",
}  # fmt: skip

every_method = pytest.mark.parametrize(
  "name",
  [
    pytest.param(n, marks=pytest.mark.slow) if n in NEAR else n for n in METHODS
  ],
)
every_sharded = pytest.mark.parametrize(
  "name",
  [
    n if n in SHARDED else pytest.param(n, marks=pytest.mark.slow)
    for n in METHODS
  ],
)


def noisy(name):
  """Three modalities (two where there is no other way), BatchNorm, dropout."""
  return toys.run_of(name, count(name), norm="batch", dropout=0.3)


def plain(name):
  """The same, no statistics, no dropout."""
  return toys.run_of(name, count(name))


def count(name):
  return 2 if name in TWO_ONLY else 3


def advance(run, state, steps=3):
  """Between-epochs hook, steps, and an outer step where there is one."""
  modalities = len(run.problem.modalities)
  state = run.between(state, toys.ToyData(modalities), 0)
  for i in range(steps):
    state, metrics = run.step(state, toys.batch(modalities, seed=i))
  if run.outer is not None:
    batch, outer = (toys.batch(modalities, seed=s) for s in (0, 99))
    state, extra = run.outer(state, batch, outer)
    metrics = {**metrics, **extra}
  return state, metrics


def signature(tree):
  return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.weak_type), tree)


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize("modalities", [slow(1), 3])
@every_method
def test_runs_compiles_once_and_keeps_its_structure(name, modalities):
  if name in TWO_ONLY:
    with pytest.raises(ValueError, match="two modalities"):
      toys.run_of(name, modalities).fresh()
    modalities = 2
  run = (
    noisy(name) if modalities == count(name) else toys.run_of(name, modalities)
  )
  before = signature(run.fresh())
  state, metrics = advance(run, run.fresh(), 1)
  compiled = run.step.func._cache_size()
  for epoch in (1, 2):
    state = run.between(state, toys.ToyData(modalities), epoch)
    state, _ = run.step(state, toys.batch(modalities, seed=epoch))
  assert run.step.func._cache_size() == compiled
  assert signature(state) == before
  assert int(state.step) == 3
  assert toys.finite((state.params, metrics))
  assert "loss" in metrics
  outputs, _ = run.problem.forward(
    state.params, state.stats, toys.batch(modalities).inputs, None, False
  )
  logits = run.method.predict(outputs, state.method)
  assert logits.shape == (8, toys.CLASSES)
  length = run.method.length(4, modalities)
  assert isinstance(length, int) and length >= 4


@every_method
def test_declares_what_is_no_loss_term(name):
  """Every declared diagnostic is logged; the losses are none of them."""
  run = plain(name)
  modalities = len(run.problem.modalities)
  state, batch = run.fresh(), toys.batch(modalities)
  logged = set(jax.eval_shape(run.step, state, batch)[1])
  if run.outer is not None:
    logged |= set(jax.eval_shape(run.outer, state, batch, batch)[1])
  found = {k for k in logged if run.method.is_diagnostic(k)}
  for declared in run.method.diagnostics:
    of = {k for k in found if k.startswith(f"{declared}_")}
    assert found & {declared, *of}, declared
  assert not found & {"loss", "weight_norm", "alpha", "cls"}
  # What is left is a loss, in nats, of something.
  terms = logged - found - {"loss", "weight_norm", "alpha"}
  known = (
    "cls", "matching", "boost", "boosters", "rank", "edl", "distil", "proto",
    "cosine", "contrast", "direction", "tcmax", "variants",
  )  # fmt: skip
  assert all(t.partition("_")[0] in known for t in terms), terms


@every_method
def test_learns(name):
  run = noisy(name)
  state, losses = run.fresh(), []
  for _ in range(60):
    state, metrics = run.step(state, toys.batch(count(name)))
    losses.append(float(metrics["loss"]))
  assert np.mean(losses[-5:]) < 0.8 * losses[0]


@every_method
def test_class_weights_reach_the_loss(name):
  """Those of equal classes change nothing."""
  run, batch = plain(name), toys.batch(count(name))
  even = np.ones(toys.CLASSES)
  heavy = np.arange(1.0, toys.CLASSES + 1)
  weighted = [losses.with_class_weights(batch, w) for w in (even, heavy)]
  found = [run.step(run.fresh(), b)[1]["loss"] for b in (batch, *weighted)]
  np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
  assert abs(float(found[2] - found[0])) > 1e-4


@every_method
def test_is_deterministic(name):
  run = noisy(name)
  one, _ = advance(run, run.fresh())
  two, _ = advance(run, run.fresh())
  assert toys.same(one, two)


@every_sharded
def test_padding_has_no_influence(name):
  """But on running statistics, which see whole batches."""
  run, modalities = plain(name), count(name)
  mask = jnp.array([1, 1, 1, 1, 1, 0, 0, 0], jnp.float32)

  def padded(garbage):
    batch = toys.batch(modalities)
    inputs = {m: x.at[5:].set(garbage) for m, x in batch.inputs.items()}
    return batch.replace(inputs=inputs, mask=mask)

  states = []
  for garbage in (0.0, 50.0):
    state, metrics = run.step(run.fresh(), padded(garbage))
    if run.outer is not None:
      state, _ = run.outer(state, padded(garbage), padded(garbage))
    states.append((state.replace(stats={}), metrics))
  toys.assert_close(*states, rtol=1e-6, atol=1e-7)


@every_method
@pytest.mark.parametrize("case", ["huge logits", "one class"])
def test_stays_finite(name, case):
  run = noisy(name)
  state, batch = run.fresh(), toys.batch(count(name))
  if case == "huge logits":
    state = state.replace(params=jax.tree.map(lambda p: 30 * p, state.params))
  else:
    batch = batch.replace(labels=jnp.zeros(8, jnp.int32))
  check_finite(run, state, batch)


@pytest.mark.slow
@every_method
def test_one_sample(name):
  check_finite(plain(name), plain(name).fresh(), toys.batch(count(name), 1))


def check_finite(run, state, batch):
  for _ in range(2):
    state, metrics = run.step(state, batch)
    assert toys.finite((state.params, metrics))
  if run.outer is not None:
    state, _ = run.outer(state, batch, batch)
    assert toys.finite((state.params, state.method))


@pytest.mark.parametrize(
  "name", [n if n in SHARDED else slow(n) for n in OVER_DEVICES]
)
def test_sharded_equals_unsharded(name):
  mesh = sharding.make_mesh(8)
  place = sharding.make_place(mesh)
  run, modalities = plain(name), count(name)
  here, elsewhere = run.fresh(), sharding.replicate(mesh, run.fresh())
  for seed in range(2):
    batch = toys.batch(modalities, seed=seed)
    here, one = run.step(here, batch)
    elsewhere, two = run.step(elsewhere, place(batch))
  if run.outer is not None:
    outer = toys.batch(modalities, seed=9)
    here, _ = run.outer(here, batch, outer)
    elsewhere, _ = run.outer(elsewhere, place(batch), place(outer))
  toys.assert_close(one, two, rtol=1e-4, atol=1e-5)
  toys.assert_close(here, elsewhere, rtol=1e-3, atol=1e-5)
  spec = NamedSharding(mesh, P())
  for leaf in jax.tree.leaves(elsewhere.params):
    assert leaf.sharding.is_equivalent_to(spec, leaf.ndim)


@pytest.mark.parametrize(
  "name", [n if n in SHARDED else slow(n) for n in OVER_DEVICES]
)
def test_state_survives_a_checkpoint(name, tmp_path):
  run = noisy(name)
  state, _ = advance(run, run.fresh())
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(state, {"fused/accuracy": 0.5})
  checkpoints.close()
  checkpoints = Checkpoints(tmp_path)
  restored = checkpoints.restore(3, run.fresh())
  checkpoints.close()
  assert toys.same(state, restored)
  assert signature(state) == signature(restored)


@every_method
def test_running_statistics_move_in_training_only(name):
  run = noisy(name)
  batch = toys.batch(count(name))
  state, _ = run.step(run.fresh(), batch)
  moved = {k: v for k, v in state.stats.items() if k == "batch_stats"}
  assert not toys.same(moved, {"batch_stats": run.fresh().stats["batch_stats"]})
  if run.outer is not None:
    before = jax.tree.map(np.asarray, state.stats)
    state, _ = run.outer(state, batch, toys.batch(count(name), seed=1))
    assert toys.same(before, state.stats)


@every_method
def test_has_its_equation_reference_and_card(name):
  module = registry._module("methods", "method", name)
  for part in (".. math::", "Reference:"):
    assert part in module.__doc__, f"{name}: no {part} in the file's docstring"
  assert module.CARD.category in types.CATEGORIES
  assert module.CARD.modalities == ("2" if name in TWO_ONLY else "any")


@pytest.mark.parametrize("name", registry.known("fusion"))
def test_fusion_has_its_equation_reference_and_card(name):
  module = registry._module("fusion", "fusion", name)
  for part in (".. math::", "Reference:"):
    assert part in module.__doc__, f"{name}: no {part} in the file's docstring"
  assert module.CARD.category == "fusion" and module.READOUT[:2] in (
    "R1", "R2", "R3", "R5",
  )  # fmt: skip
