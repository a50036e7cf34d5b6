"""A frozen encoder stays as it is, to the bit, under each kind of recipe."""

import functools

import jax
import numpy as np
import pytest

import toys
from all_recipes import KINDS
from dmg_jax.config.recipes import RECIPES
from dmg_jax.model import classifier, registry
from dmg_jax.types import FROZEN

REFUSED = {"relearning"}  # It resets encoders.
TWO_ONLY = {"greedy"}
FAST = ("mla",)
ALL = (*KINDS, "relearning", "lfm_code")
EVERY = [
  r if r in FAST else pytest.param(r, marks=pytest.mark.slow) for r in ALL
]


def made(name, frozen):
  recipe = RECIPES[name]
  options = dict(recipe.options)
  if recipe.method == "unimodal":
    options.setdefault("modality", toys.NAMES[0])
  return toys.Run(
    toys.make_method(recipe.method, **options),
    2 if recipe.method in TWO_ONLY else 3,
    recipe.fusion,
    fusion_options=tuple(recipe.fusion_options.items()),
    norm="batch",
    dropout=0.3,
    frozen=frozen,
  )


def held(state, modality):
  own = classifier.encoder_variables(state.params, state.stats, modality)
  return jax.tree.map(np.asarray, own)


def trained(run, epochs=4):
  """The state after some epochs: every phase, hook and outer step."""
  state, modalities = run.fresh(), len(run.problem.modalities)
  data = toys.ToyData(modalities, epochs=2, steps_per_epoch=2)
  for epoch in range(epochs):
    state = run.between(state, data, epoch)
    for i in range(2):
      batch = toys.batch(modalities, seed=2 * epoch + i)
      state, metrics = run.step(state, batch)
    if run.outer is not None:
      state, _ = run.outer(state, batch, toys.batch(modalities, seed=99))
  return state, metrics


@pytest.mark.parametrize("name", EVERY)
def test_a_frozen_encoder_stays_as_it_is(name):
  recipe = RECIPES[name]
  frozen = toys.NAMES[1]
  if recipe.method in REFUSED:
    with pytest.raises(ValueError, match=f"{recipe.method}.*'{frozen}'.*froz"):
      made(name, (frozen,)).fresh()
    return
  run = made(name, (frozen,))
  before, free = held(run.fresh(), frozen), held(run.fresh(), toys.NAMES[0])
  assert {"params", "batch_stats"} == before.keys()
  state, metrics = trained(run)
  assert toys.same(held(state, frozen), before)
  assert not toys.same(held(state, toys.NAMES[0]), free)
  assert toys.finite((state.params, metrics))
  # Neither weights of its own nor moments.
  assert frozen not in jax.tree.leaves(run.problem.owner)
  assert f"encoders_{frozen}" not in state.params
  assert frozen not in state.opt_state.inner_states


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_all_encoders_may_be_frozen(name):
  recipe = RECIPES[name]
  if recipe.method in REFUSED or (
    recipe.method == "lfm_code" and not recipe.options.get("fitted")
  ):
    with pytest.raises(ValueError, match=f"{recipe.method}.*frozen"):
      made(name, toys.NAMES).fresh()
    return
  run = made(name, toys.NAMES)
  names = run.problem.modalities
  before = [held(run.fresh(), m) for m in names]
  state, metrics = trained(run)
  assert toys.same([held(state, m) for m in names], before)
  assert toys.finite((state.params, metrics))
  assert not toys.same(state.params, run.fresh().params)


def test_a_frozen_encoder_runs_in_evaluation_mode():
  run = toys.run_of("joint", 2, norm="batch", dropout=0.3, frozen=("text",))
  state, x = run.fresh(), toys.batch(2).inputs

  def features(seed, train):
    key = jax.random.key(seed)
    return run.problem.forward(state.params, state.stats, x, key, train)[0]

  one, two = features(0, True).features, features(1, True).features
  assert toys.same(one["text"], two["text"])
  assert not toys.same(one["image"], two["image"])
  toys.assert_close(one["text"], features(0, False).features["text"])


def test_the_backward_pass_of_a_frozen_encoder_is_not_computed():
  """A step costs what is left: forward, and the small encoder."""

  def flops(frozen):
    run = wide(frozen)
    state = run.fresh()
    lowered = run.step.func.lower(state, wide_batch(), 0)
    return lowered.cost_analysis()["flops"]

  big = 2 * 64 * sum(a * b for a, b in ((5, 512), (512, 512), (512, 6)))
  saved = flops(()) - flops(("image",))
  # Gradients of three weights and of two inputs, and Adam.
  backward = 2 * big - 2 * 64 * 5 * 512
  assert backward < saved < 1.2 * backward


def wide_batch():
  return toys.batch(2, size=64)


@functools.cache
def wide(frozen):
  """One encoder that is far larger than the rest."""
  model = registry.make_classifier(
    {
      "image": encoder((512, 512), "image" in frozen),
      "text": encoder((4,), False),
    },
    {"name": "concat"},
    toys.CLASSES,
  )
  x = wide_batch().inputs
  first = classifier.freeze(*classifier.make_init(model, x)(0), model.frozen)
  bound = classifier.bind(model, *first, x, toys.SAMPLES, "R1")
  return toys.Run.on(toys.make_method("joint"), bound, *first)


def encoder(widths, frozen):
  options = {"name": "small.MLP", "features": 6, "widths": widths}
  return {**options, "frozen": frozen}


def test_weights_of_all_encoders_are_found_and_replaced():
  run = toys.run_of("joint", 2, norm="batch", frozen=("text",))
  state = run.fresh()
  for m in ("image", "text"):
    own = held(state, m)
    doubled = jax.tree.map(lambda x: 2 * x, own)
    params, stats = classifier.with_encoder_variables(
      state.params, state.stats, m, doubled
    )
    assert toys.same(
      held(state.replace(params=params, stats=stats), m), doubled
    )
    assert jax.tree.structure((params, stats)) == jax.tree.structure(
      (state.params, state.stats)
    )
  assert list(state.stats[FROZEN]) == ["encoders_text"]
