"""What modalities contribute, against definitions written out in NumPy."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax.evaluation import contributions
from dmg_jax.evaluation.contributions import Outcomes
from dmg_jax.methods import joint

NAMES = ("a", "b", "c")


def by_formula(value, modalities):
  """φ with the factorials of Shapley's formula."""
  count, found = len(modalities), {}
  for m in modalities:
    rest = [x for x in modalities if x != m]
    found[m] = 0.0
    for size in range(count):
      weight = math.factorial(size) * math.factorial(count - size - 1)
      for s in itertools.combinations(rest, size):
        gain = value[frozenset(s) | {m}] - value[frozenset(s)]
        found[m] += weight / math.factorial(count) * gain
  return found


def values(modalities, seed=0):
  rng = np.random.default_rng(seed)
  sizes = range(len(modalities) + 1)
  return {
    frozenset(s): rng.random()
    for size in sizes
    for s in itertools.combinations(modalities, size)
  }


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shapley_values(count):
  names = [f"m{i}" for i in range(count)]
  value = values(names)
  found = contributions.shapley(value, names)
  expected = by_formula(value, names)
  assert found == pytest.approx(expected, rel=1e-12)
  whole = value[frozenset(names)] - value[frozenset()]
  assert sum(found.values()) == pytest.approx(whole)


def test_many_modalities_are_sampled():
  """They sum to the whole, need few subsets, and are near the exact ones."""
  names = [f"m{i}" for i in range(8)]
  chosen = contributions.subsets(names)
  assert len(chosen) < 2**8 and chosen[-1] == frozenset(names)
  rng = np.random.default_rng(0)
  own = dict(zip(names, rng.random(8), strict=True))
  value = {s: sum(own[m] for m in s) ** 0.8 for s in [*chosen, frozenset()]}
  found = contributions.shapley(value, names)
  assert sum(found.values()) == pytest.approx(value[frozenset(names)])
  every = {
    frozenset(s): sum(own[m] for m in s) ** 0.8
    for size in range(9)
    for s in itertools.combinations(names, size)
  }
  assert found == pytest.approx(by_formula(every, names), abs=0.02)


def test_measures_by_hand():
  """Four samples: both alone right, only a, only b, and none but together."""
  right = {
    frozenset("a"): [1, 1, 0, 0],
    frozenset("b"): [1, 0, 1, 0],
    frozenset("ab"): [1, 1, 0, 1],
  }
  table = [right[s] for s in contributions.subsets("ab")]
  seen = Outcomes(np.array(table, bool), np.array([1, 0, 0, 0], bool))
  assert contributions.measures(seen, "ab") == {
    "shapley": pytest.approx({"a": 0.25, "b": 0.25}),
    "gain": {"a": 0.25, "b": 0.25},
    "alone": {"a": 0.5, "b": 0.5},
    "only": {"a": 0.25, "b": 0.25},
    "complementarity": 0.5,
    "nothing": 0.25,
    "together": 0.75,
  }


@pytest.mark.parametrize("fusion", ["concat", "sum", "channel"])
def test_subsets_are_samples_that_lack_the_others(fusion):
  """Each row is the prediction on a batch that says what it lacks."""
  run = toys.Run(joint.make(), 3, fusion)
  state, names = run.fresh(), run.problem.modalities
  there = jnp.array([1, 1, 0, 1, 1, 0, 1, 1], jnp.float32)
  mask = jnp.array([1, 1, 1, 1, 1, 1, 1, 0], jnp.float32)
  batch = toys.batch(3).replace(present={"text": there}, mask=mask)
  step = contributions.make_step(run.problem, run.method)
  seen = contributions.look(step, state, [batch, batch], names, guess=1)
  assert seen.right.shape == (7, 14) and seen.guessed.shape == (14,)
  assert np.array_equal(seen.right[:, :7], seen.right[:, 7:])
  labels = np.asarray(batch.labels)
  for row, chosen in zip(seen.right, contributions.subsets(names), strict=True):
    ones = jnp.ones(8)
    own = {m: ones * (m in chosen) for m in names}
    own["text"] = own["text"] * there
    out, _ = run.problem.forward(
      state.params, state.stats, batch.inputs, None, False, own
    )
    right = np.asarray(out.logits.argmax(axis=-1)) == labels
    some = np.stack([np.asarray(x) for x in own.values()]).max(axis=0) > 0
    expected = np.where(some, right, labels == 1)[:7]
    np.testing.assert_array_equal(row[:7], expected)


def test_several_replicas_are_measured_at_once():
  run = toys.Run(joint.make(), 2)
  state, names = run.fresh(), run.problem.modalities
  other, _ = run.step(run.fresh(), toys.batch(2))
  both = [
    jax.tree.map(lambda *x: jnp.stack(x), a, b)
    for a, b in zip(
      (state.params, state.stats), (other.params, other.stats), strict=True
    )
  ]
  stacked = state.replace(params=both[0], stats=both[1])
  step = contributions.make_step(run.problem, run.method, several=True)
  one = contributions.make_step(run.problem, run.method)
  batches = [toys.batch(2)]
  found = contributions.look(step, stacked, batches, names, 0).right
  for got, s in zip(found, (state, other), strict=True):
    wanted = contributions.look(one, s, batches, names, 0).right
    np.testing.assert_array_equal(got, wanted)
