"""What every method owes to samples that lack modalities.

A missing input has no influence, to the bit, whatever stands in its place:
on weights, statistics, method state, metrics, hooks and predictions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax.config.recipes import RECIPES
from dmg_jax.errors import UnsuitableError
from dmg_jax.model import registry
from dmg_jax.training.inputs import modality_dropout

METHODS = registry.known("methods")
# Those that differ most in what they do with modalities; the others are slow.
FAST = {"pmr"}
every_method = pytest.mark.parametrize(
  "name",
  [
    n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in METHODS
  ],
)
# One of each kind, for what the forward pass of the loop does.
MASKED = ("pmr", "lb", "mla", "igm", "cpsc", "mcr", "ogm_ge")
GARBAGE = (np.nan, np.inf, -3e38)


def count(name):
  return 2 if name == "greedy" else 3


def run_of(name):
  """With batch statistics and dropout."""
  return toys.run_of(name, count(name), norm="batch", dropout=0.3)


def holes(modalities, size=8, seed=0, rate=0.5):
  """{modality: [b]}, every sample has something, every modality someone."""
  rng = np.random.default_rng(seed)
  there = rng.random((modalities, size)) > rate
  there[rng.integers(0, modalities, size), np.arange(size)] = True
  there[np.arange(modalities), rng.permutation(size)[:modalities]] = True
  names = toys.NAMES[:modalities]
  return {
    m: jnp.asarray(row, jnp.float32)
    for m, row in zip(names, there, strict=True)
  }


def lacking(batch, garbage, seed=0, present=None):
  """The batch with modalities missing and garbage in their place."""
  present = present or holes(len(batch.inputs), batch.labels.size, seed)
  inputs = {
    m: jnp.where(present[m][:, None] > 0, x, garbage)
    for m, x in batch.inputs.items()
  }
  return batch.replace(inputs=inputs, present=present)


class LackingData(toys.ToyData):
  """``ToyData`` with missing modalities."""

  def __init__(self, modalities, garbage):
    super().__init__(modalities)
    self.garbage = garbage

  def batches(self, split):
    for i, batch in enumerate(super().batches(split)):
      yield lacking(batch, self.garbage, seed=i)


def trained(run, garbage, epochs=2, steps=2):
  """State, metrics and predictions after some epochs."""
  modalities, state, seen = len(run.problem.modalities), run.fresh(), []
  for epoch in range(epochs):
    state = run.between(state, LackingData(modalities, garbage), epoch)
    for i in range(steps):
      batch = lacking(toys.batch(modalities, seed=i), garbage, seed=i)
      state, metrics = run.step(state, batch)
      seen.append(metrics)
    if run.outer is not None:
      outer = lacking(toys.batch(modalities, seed=99), garbage, seed=9)
      state, metrics = run.outer(state, batch, outer)
      seen.append(metrics)
  outputs, _ = run.problem.forward(
    state.params, state.stats, batch.inputs, None, False, batch.present
  )
  return state, seen, run.method.predict(outputs, state.method), outputs


@every_method
def test_what_stands_in_a_missing_input_changes_no_bit(name):
  run = run_of(name)
  clean = trained(run, 0.0)
  assert toys.finite((clean[0].params, clean[1], clean[2]))
  for garbage in GARBAGE:
    assert toys.same(clean, trained(run, garbage)), garbage


@pytest.mark.parametrize(
  "name",
  [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MASKED],
)
def test_all_there_is_as_without_a_mask(name):
  run, modalities = run_of(name), count(name)
  batch = toys.batch(modalities)
  ones = dict.fromkeys(batch.inputs, jnp.ones(8, jnp.float32))
  with_mask, metrics = run.step(run.fresh(), batch.replace(present=ones))
  without, plain = run.step(run.fresh(), batch)
  toys.assert_close(metrics, plain, rtol=1e-4, atol=1e-5)
  toys.assert_close(with_mask.stats, without.stats, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  "name",
  [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MASKED],
)
def test_a_modality_that_nobody_has_leaves_all_finite(name):
  run, modalities = run_of(name), count(name)
  batch = toys.batch(modalities)
  present = {toys.NAMES[0]: jnp.zeros(8, jnp.float32)}
  batch = batch.replace(
    present=present,
    inputs={**batch.inputs, toys.NAMES[0]: jnp.full((8, 5), jnp.nan)},
  )
  state = run.fresh()
  for _ in range(3):
    state, metrics = run.step(state, batch)
  assert toys.finite((state.params, metrics))
  # A method may begin with an infinite loss, to be undercut; never with NaN.
  assert not toys.has_nan(state.method)


class Lacking(toys.ToyData):
  """No sample has the first modality."""

  def batches(self, split):
    gone = {toys.NAMES[0]: jnp.zeros(8, jnp.float32)}
    return (b.replace(present=gone) for b in super().batches(split))


@pytest.mark.parametrize("name", ["mses", "mslr", "gblend"])
def test_what_is_measured_between_epochs_is_asked_for_before(name):
  run = run_of(name)
  with pytest.raises(UnsuitableError, match=f"no sample.*{toys.NAMES[0]!r}"):
    run.between(run.fresh(), Lacking(3), 0)


FUSIONS = sorted(
  {(r.fusion, tuple(r.fusion_options.items())) for r in RECIPES.values()},
  key=str,
)
OFTEN = ("concat", "own_heads", "sum")


@pytest.mark.parametrize(
  "fusion",
  [
    f if f[0] in OFTEN else pytest.param(f, marks=pytest.mark.slow)
    for f in FUSIONS
  ],
)
def test_a_fusion_ignores_what_is_missing(fusion):
  """Also the features that ``fuse`` is given for it are zero, not garbage."""
  name, options = fusion
  problem, params, stats = toys.problem(3, name, fusion_options=options)
  batch = toys.batch(3)
  found = []
  for garbage in (0.0, *GARBAGE):
    made = lacking(batch, garbage)
    found.append(
      problem.forward(params, stats, made.inputs, None, False, made.present)[0]
    )
  for other in found[1:]:
    assert toys.same(found[0], other)
  for m, row in made.present.items():
    assert not np.asarray(found[0].features[m])[np.asarray(row) == 0].any()


def test_modality_dropout_is_rate_zero_to_the_bit_and_leaves_something():
  batch = toys.batch(3, size=400)
  key = jax.random.key(0)
  assert modality_dropout.dropped(batch, 0.0, key) is batch
  present = modality_dropout.dropped(batch, 0.5, key).present
  kept = np.stack([present[m] for m in batch.inputs])
  assert kept.max(axis=0).all()
  # A modality stays with (1 - ρ) + ρ³.
  np.testing.assert_allclose(kept.mean(axis=1), 0.5 + 0.125, atol=0.07)
  given = {"image": jnp.zeros(400, jnp.float32)}
  more = modality_dropout.dropped(batch.replace(present=given), 0.5, key)
  assert not np.asarray(more.present["image"]).any()
  assert np.stack([more.present[m] for m in batch.inputs]).max(axis=0).all()
