"""The same rows by this project, on the same arrays."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.arrays import Arrays
from dmg_jax.model import classifier, registry
from dmg_jax.training import optim, steps
from dmg_jax.types import Batch


class Run:
  """A run of a row: epochs of training and predictions."""

  def __init__(
    self,
    row: tuple[str, Mapping[str, Any], str, Mapping[str, Any]],
    arrays: Arrays,
    *,
    seed: int,
    epochs: int,
    size: int,
  ):
    fusion, fused, method, options = row
    self._arrays, self._size, self._seed = arrays, size, np.uint32(seed)
    self._rng = np.random.default_rng(seed)
    count = len(arrays.labels["train"])
    self.steps_per_epoch, self.epochs = count // size, epochs
    encoders = {m: _encoder(kind, arrays) for m, kind in arrays.kinds.items()}
    head = registry.make_fusion(fusion, num_classes=arrays.classes, **fused)
    model = classifier.Classifier(encoders, head)
    some = {m: jnp.asarray(x[:2]) for m, x in arrays.inputs["train"].items()}
    params, stats = classifier.make_init(model, some)(seed)
    self._problem = classifier.bind(
      model, params, stats, some, count, registry.readout(fusion)
    )
    self._method = registry.make_method(method, **options)
    rate = optim.learning_rate("cosine", 1e-3, self.steps_per_epoch * epochs)
    init, apply = optim.make(self._problem.owner, rate)
    self.state = steps.init_state(
      self._problem, self._method, params, stats, init, seed
    )
    self._step = steps.make_train_step(
      self._problem, self._method, apply, donate=False
    )
    self._predict = jax.jit(self._predicted)

  def epoch(self, number: int) -> float:
    """Trains an epoch; its seconds."""
    start = time.perf_counter()
    self.state = steps.between_epochs(
      self._problem, self._method, self.state, self, number
    )
    order = self._rng.permutation(len(self._arrays.labels["train"]))
    for k in range(self.steps_per_epoch):
      rows = order[k * self._size : (k + 1) * self._size]
      batch = self._batch("train", rows)
      self.state, _ = self._step(self.state, batch, self._seed)
    jax.block_until_ready(self.state.params)
    return time.perf_counter() - start

  def batches(self, split: str) -> Iterator[Batch]:
    """A split in its order, for what methods do between epochs."""
    for rows in np.array_split(
      np.arange(len(self._arrays.labels[split])),
      max(1, len(self._arrays.labels[split]) // self._size),
    ):
      yield self._batch(split, rows)

  def accuracy(self, split: str) -> float:
    """Of the state now, in %."""
    found = self._predict(self.state, self._arrays.inputs[split])
    return 100 * float((np.asarray(found) == self._arrays.labels[split]).mean())

  def _batch(self, split: str, rows: np.ndarray) -> Batch:
    return Batch(
      {m: jnp.asarray(x[rows]) for m, x in self._arrays.inputs[split].items()},
      jnp.asarray(self._arrays.labels[split][rows], jnp.int32),
      jnp.ones(len(rows), jnp.float32),
      jnp.asarray(rows, jnp.int32),
    )

  def _predicted(self, state, inputs):
    outputs, _ = self._problem.forward(
      state.params, state.stats, inputs, None, False
    )
    return self._method.predict(outputs, state.method).argmax(axis=-1)


def _encoder(kind: str, arrays: Arrays):
  if kind == "words":
    return registry.make_encoder("small.WordBag", vocab_size=arrays.words)
  return registry.make_encoder("small.ConvNet", widths=(16, 32, 64))
