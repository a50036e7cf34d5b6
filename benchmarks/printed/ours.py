"""TMC and ETMC of this project on given views, by the authors' settings."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.printed.sets import HELD, RATES, Part, divide, scaled
from dmg_jax.model import classifier, registry
from dmg_jax.training import optim, steps
from dmg_jax.types import Batch

BATCH, EPOCHS, ANNEAL, DECAY = 200, 500, 50, 1e-5


class Given(nn.Module):
  """A view as it is: its head reads it directly."""

  @nn.compact
  def __call__(self, x, train: bool):
    del train
    return x


def accuracy(
  method: str,
  train: Part,
  test: Part,
  *,
  rate: float,
  seed: int,
  epochs: int = EPOCHS,
  every: int = 0,
) -> tuple[float, float]:
  """Accuracy on test, in %: after the last epoch, and of the best of all.

  The second chooses by test, and only shows how much that would be worth.

  Args:
    method: ``tmc`` or ``etmc``.
    train, test: scaled.
    rate: of Adam, whose gradient has the weight decay in it.
    seed: of weights and of the order of samples.
    epochs: over train.
    every: epochs between two looks at test; 0 looks once, at the end.
  """
  sizes = tuple((m, x.shape[1]) for m, x in train.views.items())
  run = _Run(method, sizes, int(train.labels.max()) + 1, len(train), rate)
  data = (
    {m: jnp.asarray(x) for m, x in train.views.items()},
    jnp.asarray(train.labels, jnp.int32),
  )
  inputs = {m: jnp.asarray(x) for m, x in test.views.items()}
  state = run.start(seed)
  shuffle, scores = np.random.default_rng([seed, 2]), []
  for epoch in range(1, epochs + 1):  # The script counts from 1.
    state = run.between(state, epoch)
    state = run.epoch(state, data, run.order(shuffle), np.uint32(seed))
    if epoch == epochs or (every and epoch % every == 0):
      found = np.asarray(run.predict(state, inputs))
      scores.append(100 * float((found == test.labels).mean()))
  return scores[-1], max(scores)


def chosen_rate(
  method: str, train: Part, scale: str, epochs: int = EPOCHS
) -> tuple[float, dict[float, float]]:
  """The rate that is best on a fifth of each class of train, held out.

  Returns:
    The rate and {rate: accuracy in %}.
  """
  held = divide(train.labels, HELD)
  parts = scaled(train.rows(~held), train.rows(held), scale)
  found = {
    rate: accuracy(method, *parts, rate=rate, seed=0, epochs=epochs)[0]
    for rate in RATES
  }
  return max(found, key=found.__getitem__), found


@functools.lru_cache(maxsize=16)
class _Run:
  """The compiled pieces of runs of the same shapes."""

  epochs = EPOCHS

  def __init__(
    self,
    method: str,
    sizes: tuple[tuple[str, int], ...],
    classes: int,
    samples: int,
    rate: float,
  ):
    self.size = samples
    self.steps_per_epoch = -(-samples // BATCH)
    fusion = registry.make_fusion(
      "etmc", num_classes=classes, pseudo_view=method == "etmc"
    )
    model = classifier.Classifier({m: Given() for m, _ in sizes}, fusion)
    some = {m: jnp.zeros((2, d)) for m, d in sizes}
    self._init = classifier.make_init(model, some)
    problem = classifier.bind(
      model, *self._init(0), some, self.size, registry.readout("etmc")
    )
    self._rule = registry.make_method("etmc", anneal=ANNEAL)
    self._opt, apply = optim.make(
      problem.owner, lambda step: rate, weight_decay=DECAY
    )
    self._problem = problem
    step = steps.make_train_step(problem, self._rule, apply, donate=False)
    self.epoch = jax.jit(functools.partial(_epoch, step))
    self.predict = jax.jit(self._predicted)

  def start(self, seed: int):
    params, stats = self._init(seed)
    return steps.init_state(
      self._problem, self._rule, params, stats, self._opt, seed
    )

  def between(self, state, epoch: int):
    return steps.between_epochs(self._problem, self._rule, state, self, epoch)

  def batches(self, split: str) -> Iterator[Batch]:
    """Of no split: the rule looks at no sample between epochs."""
    raise NotImplementedError(split)

  def order(self, shuffle: np.random.Generator) -> np.ndarray:
    """Rows of batches [steps, b]; -1 fills the last."""
    rows = np.full(self.steps_per_epoch * BATCH, -1, np.int32)
    rows[: self.size] = shuffle.permutation(self.size)
    return rows.reshape(-1, BATCH)

  def _predicted(self, state, inputs):
    outputs, _ = self._problem.forward(
      state.params, state.stats, inputs, None, False
    )
    return outputs.logits.argmax(axis=-1)


def _epoch(step, state, data, order, seed):
  """All steps of an epoch in one program."""
  inputs, labels = data

  def body(state, rows):
    real = (rows >= 0).astype(jnp.float32)
    at = jnp.maximum(rows, 0)
    batch = Batch({m: x[at] for m, x in inputs.items()}, labels[at], real, at)
    return step(state, batch, seed)[0], None

  return jax.lax.scan(body, state, order)[0]
