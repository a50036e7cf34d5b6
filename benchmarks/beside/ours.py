"""Training steps of this project, as its own training builds them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.beside import models
from dmg_jax.model import classifier, registry
from dmg_jax.training import optim, steps
from dmg_jax.types import Batch

_ENCODERS = {
  "conv": ("small.ConvNet", {"widths": (16, 32, 64)}),
  "words": ("small.WordBag", {"vocab_size": models.WORDS}),
  "mlp": ("small.MLP", {}),
  "wave": ("small.ConvNet1D", {}),
  "resnet": ("resnet.ResNet", {"depth": 18}),
}


def make(name: str) -> Callable[[int], float]:
  """A function that takes so many steps and returns the last loss."""
  known = models.MODELS[name]
  inputs, labels = known.batch()
  encoders = {}
  for m, kind in known.encoders.items():
    encoder, options = _ENCODERS[kind]
    encoders[m] = registry.make_encoder(encoder, **options)
  fusion = registry.make_fusion("concat", num_classes=models.CLASSES)
  model = classifier.Classifier(encoders, fusion)
  given = {m: jnp.asarray(x) for m, x in inputs.items()}
  params, stats = classifier.make_init(model, given)(0)
  readout = registry.readout("concat")
  problem = classifier.bind(model, params, stats, given, 1000, readout)
  method = registry.make_method("joint")
  decay = 1e-4 if known.optimiser == "sgd" else 0.0
  rate = optim.learning_rate("constant", 1e-3, 1)
  init, apply = optim.make(
    problem.owner, rate, name=known.optimiser, weight_decay=decay
  )
  state = steps.init_state(problem, method, params, stats, init, seed=0)
  step = steps.make_train_step(problem, method, apply)
  batch = Batch(
    given,
    jnp.asarray(labels),
    jnp.ones(known.size, jnp.float32),
    jnp.arange(known.size, dtype=jnp.int32),
  )
  return functools.partial(_taken, step, [state], batch, np.uint32(0))


def _taken(step, held, batch, seed, count: int) -> float:
  for _ in range(count):
    held[0], metrics = step(held[0], batch, seed)
  jax.block_until_ready(held[0])
  return float(metrics["cls"])
