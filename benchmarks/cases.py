"""Models for the benchmarks, with synthetic inputs.

``openmoji`` is the model of ``configs/openmoji.py``. ``resnet`` has two
residual networks with BatchNorm, for pictures and spectrograms, as in CREMA-D
and Kinetics-Sounds; ``resnet-18`` has their real size. ``resnet-tiny`` compiles
fast: its sound is a vector, encoded by one hidden layer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from configs import openmoji
from dmg_jax.methods._matching import Matching, make_total
from dmg_jax.methods.lb import heldout_loss
from dmg_jax.model import classifier, registry
from dmg_jax.model.encoders.small import MLP
from dmg_jax.training import optim, steps
from dmg_jax.types import Apply, Batch, Method, Problem, TrainState

# About the vocabulary size of the names in OpenMoji's training split.
_WORDS = 1000
_CLASSES = 6  # Of the cases with residual networks.
# {name: (widths, blocks per stage, side of the first kernel, picture shape,
# spectrogram shape, batch size)}. As in ResNet-18, the first convolution takes
# 6 % of the FLOPs in all of them, which affects the cost of a gradient.
_RESNETS = {
  "resnet-tiny": ((48, 96), 1, 3, (32, 32, 3), (40,), 64),
  "resnet": ((32, 64, 128), 1, 3, (64, 64, 3), (64, 80, 1), 32),
  "resnet-18": (
    (64, 128, 256, 512), 2, 7, (224, 224, 3), (257, 299, 1), 64,
  ),
}  # fmt: skip
CASES = ("openmoji", *_RESNETS)


class _Block(nn.Module):
  """Two 3×3 convolutions with BatchNorm and a shortcut."""

  width: int
  stride: int
  train: bool

  @nn.compact
  def __call__(self, x):
    def norm(y):
      return nn.BatchNorm(use_running_average=not self.train)(y)

    stride, shortcut = (self.stride, self.stride), x
    y = nn.relu(norm(nn.Conv(self.width, (3, 3), stride, use_bias=False)(x)))
    y = norm(nn.Conv(self.width, (3, 3), use_bias=False)(y))
    if x.shape != y.shape:
      shortcut = norm(nn.Conv(self.width, (1, 1), stride, use_bias=False)(x))
    return nn.relu(y + shortcut)


class ResNet(nn.Module):
  """A residual network of basic blocks, with features averaged over space.

  Attributes:
    widths: channels of each stage; every stage after the first halves height
      and width.
    blocks: blocks per stage; four stages of two blocks are ResNet-18.
    first: side of the first kernel.
  """

  widths: Sequence[int]
  blocks: int
  first: int

  @nn.compact
  def __call__(self, x, train: bool):
    side = (self.first, self.first)
    x = nn.Conv(self.widths[0], side, (2, 2), use_bias=False)(x)
    x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
    x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
    for stage, width in enumerate(self.widths):
      for block in range(self.blocks):
        stride = 2 if stage and not block else 1
        x = _Block(width, stride, train)(x)
    return x.mean(axis=(1, 2))


@dataclasses.dataclass(frozen=True)
class Case:
  """A model with a recipe's fusion and method, ready to be compiled."""

  name: str
  problem: Problem
  method: Method
  params: Any
  stats: Any
  init_opt: Callable[[Any], Any]
  apply: Apply
  batch_size: int
  batch: Callable[[int], Batch]

  def state(self) -> TrainState:
    """A fresh state that shares no buffers with other states."""
    own, stats = jax.tree.map(jnp.copy, (self.params, self.stats))
    return steps.init_state(
      self.problem, self.method, own, stats, self.init_opt, seed=0
    )

  def train_step(self):
    """The jitted training step, ``(state, batch)``."""
    step = steps.make_train_step(self.problem, self.method, self.apply)
    return jax.jit(functools.partial(step, seed=0), donate_argnums=0)

  def outer_step(self):
    """The jitted outer step, ``(state, inner batch, outer batch)``."""
    step = steps.make_outer_step(self.problem, self.method)
    return jax.jit(functools.partial(step, seed=0), donate_argnums=0)

  def objectives(self, size: int) -> tuple[Callable, Callable]:
    """Inner and outer loss of ``lb`` as functions of (params, α)."""
    batch, key = self.batch(size), jax.random.key(0)
    total = make_total(Matching(scaled=True))

    def inner(params, alpha):
      outputs, _ = self.problem.forward(
        params, self.stats, batch.inputs, key, True
      )
      return total(outputs, batch, alpha)[0]

    def outer(params, alpha):
      del alpha
      return heldout_loss(self.problem, params, self.stats, batch, size)

    return inner, outer


def make(name: str, recipe: str = "constant") -> Case:
  """A case of ``CASES`` with a recipe of ``dmg_jax/config/recipes.py``.

  Raises:
    ValueError: the case or the recipe is unknown.
  """
  if name not in CASES:
    raise registry.unknown("case", name, CASES)
  config = openmoji.get_config(recipe)
  method = registry.make_method(**config.method.to_dict())
  encoders, shapes, classes, size = _model(name, config)
  kept = [m for m in encoders if m in (method.modalities or encoders)]
  model = classifier.Classifier(
    {m: encoders[m] for m in kept},
    registry.make_fusion(num_classes=classes, **config.fusion.to_dict()),
  )

  def batch(count: int) -> Batch:
    return _batch({m: shapes[m] for m in kept}, classes, count)

  inputs = batch(2).inputs
  params, stats = classifier.make_init(model, inputs)(0)
  readout = registry.readout(config.fusion.name)
  problem = classifier.bind(model, params, stats, inputs, 972, readout)
  rate = optim.learning_rate("constant", config.optimiser.learning_rate, 1)
  init_opt, apply = optim.make(problem.owner, rate, name=config.optimiser.name)
  return Case(
    name, problem, method, params, stats, init_opt, apply, size, batch
  )


def _model(name: str, config: Any):
  """Encoders, {modality: (shape, dtype)}, number of classes, batch size."""
  if name == "openmoji":
    options = {m: o.to_dict() for m, o in config.encoders.items()}
    options["text"]["vocab_size"] = _WORDS
    side, words = config.data.image_size, config.data.max_words
    shapes = {"image": ((side, side, 3), "uint8"), "text": ((words,), "int32")}
    encoders = {m: registry.make_encoder(**o) for m, o in options.items()}
    return encoders, shapes, 8, config.train.batch_size
  widths, blocks, first, picture, sound, size = _RESNETS[name]
  shapes = {"image": (picture, "float32"), "audio": (sound, "float32")}
  encoders: dict[str, nn.Module] = {
    m: ResNet(widths, blocks, first) if len(shape) == 3 else MLP(widths[-1])
    for m, (shape, _) in shapes.items()
  }
  return encoders, shapes, _CLASSES, size


def _batch(shapes, classes: int, size: int) -> Batch:
  """A batch of noise, random words and random labels."""
  rng = np.random.default_rng(0)
  inputs = {}
  for m, (shape, dtype) in shapes.items():
    high = {"uint8": 256, "int32": _WORDS}
    if dtype in high:
      x = rng.integers(0, high[dtype], (size, *shape))
    else:
      x = rng.normal(size=(size, *shape))
    inputs[m] = jnp.asarray(x.astype(dtype))
  return Batch(
    inputs,
    jnp.asarray(rng.integers(0, classes, size), jnp.int32),
    jnp.ones(size, jnp.float32),
    jnp.arange(size, dtype=jnp.int32),
  )
