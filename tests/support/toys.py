"""A small problem with any number of modalities, for tests of methods."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax.config.recipes import RECIPES
from dmg_jax.model import classifier, registry
from dmg_jax.training import optim, steps
from dmg_jax.types import Batch, Method, Outputs, Problem, TrainState

CLASSES, SIZES, SAMPLES = 3, (5, 4, 6), 16
NAMES = ("image", "text", "audio")


def batch(modalities: int, size: int = 8, seed: int = 0) -> Batch:
  """Random inputs that carry the label, no padding."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, CLASSES, size)
  inputs = {
    m: rng.normal(size=(size, d)).astype(np.float32) + labels[:, None] / 2
    for m, d in zip(NAMES[:modalities], SIZES, strict=False)
  }
  return Batch(
    {m: jnp.asarray(x, jnp.float32) for m, x in inputs.items()},
    jnp.asarray(labels, jnp.int32),
    jnp.ones(size, jnp.float32),
    jnp.arange(size, dtype=jnp.int32),
  )


@functools.cache
def problem(
  modalities: int,
  fusion: str = "concat",
  norm: str = "none",
  dropout: float = 0.0,
  seed: int = 0,
  fusion_options: tuple[tuple[str, Any], ...] = (),
  frozen: tuple[str, ...] = (),
):
  """MLP encoders and a fusion: ``(problem, params, stats)``."""
  encoder = {
    "name": "small.MLP",
    "features": 6,
    "widths": (8,),
    "norm": norm,
    "dropout": dropout,
  }
  names = NAMES[:modalities]
  options = {"name": fusion, **dict(fusion_options)}
  model = registry.make_classifier(
    {m: {**encoder, "frozen": m in frozen} for m in names}, options, CLASSES
  )
  inputs = batch(modalities).inputs
  drawn = classifier.make_init(model, inputs)(seed)
  params, stats = classifier.freeze(*drawn, model.frozen)
  readout = registry.readout(fusion)
  bound = classifier.bind(model, params, stats, inputs, SAMPLES, readout)
  return bound, params, stats


def bare_problem(forward, names) -> Problem:
  """A problem of which only the forward pass is used."""
  empty = Outputs(None, {}, {})
  return Problem(forward, forward, "shared", tuple(names), empty, 1, "R2")


def fusion_of(method: str) -> dict:
  """The fusion that the recipes use a method with, as keywords of ``Run``."""
  recipe = next(r for r in RECIPES.values() if r.method == method)
  options = tuple(recipe.fusion_options.items())
  return {"fusion": recipe.fusion, "fusion_options": options}


def make_method(name: str, **kwargs) -> Method:
  """The method with its defaults; what has none is filled in."""
  if name == "unimodal":
    kwargs.setdefault("modality", NAMES[0])
  if name == "lb":  # Each product is compiled: one is as good as five here.
    kwargs.setdefault("iterations", 1)
  return registry.make_method(name, **kwargs)


class Run:
  """A method bound to a toy problem, with compiled steps."""

  def __init__(
    self,
    method: Method,
    modalities: int = 2,
    fusion: str = "concat",
    optimiser: str = "adam",
    rate: float = 1e-2,
    momentum: float = 0.9,
    **options,
  ):
    made = problem(modalities, fusion, **options)
    self._bind(method, *made, optimiser, rate, momentum)

  @classmethod
  def on(
    cls, method: Method, problem: Problem, params, stats, optimiser="adam"
  ) -> Run:
    """A run on another problem."""
    run = cls.__new__(cls)
    run._bind(method, problem, params, stats, optimiser, 1e-2, 0.9)
    return run

  def _bind(self, method, problem, params, stats, optimiser, rate, momentum):
    self.problem, self.params, self.stats = problem, params, stats
    self.method = method
    self.init_opt, self.apply = optim.make(
      self.problem.owner,
      lambda step: jnp.float32(rate),
      name=optimiser,
      momentum=momentum,
      frozen=self.problem.frozen,
    )
    step = steps.make_train_step(self.problem, method, self.apply)
    self.step = functools.partial(step, seed=0)
    self.outer = None
    if method.outer_step is not None:
      outer = steps.make_outer_step(self.problem, method)
      self.outer = functools.partial(outer, seed=0)

  def fresh(self) -> TrainState:
    """A state that shares no buffer with any other, placed as in a run."""
    copy = jax.tree.map(lambda x: x.copy(), (self.params, self.stats))
    state = steps.init_state(
      self.problem, self.method, *copy, self.init_opt, seed=0
    )
    return jax.device_put(state, jax.devices()[0])

  def between(self, state, data, epoch: int) -> TrainState:
    """The hook between epochs, as the loop calls it."""
    return steps.between_epochs(self.problem, self.method, state, data, epoch)


@functools.cache
def run_of(name: str, modalities: int = 2, **options) -> Run:
  """A method with its defaults and its recipe's fusion, compiled once."""
  return Run(make_method(name), modalities, **{**fusion_of(name), **options})


class ToyData:
  """``types.Data`` on toy batches."""

  def __init__(
    self, modalities: int, epochs: int = 4, steps_per_epoch: int = 3
  ):
    self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
    self.modalities = modalities

  def batches(self, split: str):
    """Two batches a split."""
    start = {"train": 10, "outer": 20, "val": 30}[split]
    for seed in (start, start + 1):
      yield batch(self.modalities, seed=seed)


def same(x, y) -> bool:
  """Every leaf equal to the bit."""
  return jax.tree.all(
    jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), x, y)
  )


def assert_close(x, y, rtol=1e-5, atol=1e-6):
  """Every leaf close."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), x, y
  )


def finite(tree) -> bool:
  """Every leaf finite."""
  return all(np.isfinite(x).all() for x in jax.tree.leaves(tree))


def has_nan(tree) -> bool:
  """Whether some leaf holds NaN."""
  return any(np.isnan(x).any() for x in jax.tree.leaves(tree))


def with_params(run: Run, params) -> TrainState:
  """A fresh state with other weights."""
  return run.fresh().replace(params=params)
