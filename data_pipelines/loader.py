"""Batches of a split.

``Loader.batch(step)`` is a pure function of the seed and the step, so that a
resumed run sees the very batches that it would have seen, and nothing about
the data is in a checkpoint. Order and random generators are grain's: element i
of its endless data set depends on the seed and on i alone; each pass over the
split has its own order.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Collection, Iterator, Sequence
from typing import cast

import grain
import numpy as np

from data_pipelines._ahead import Stream, ahead
from data_pipelines.core import Dataset, Sample, check_sample, unknown
from dmg_jax.types import Batch


class Loader:
  """Batches of one split.

  Args:
    dataset: the samples.
    split: one of its splits.
    batch_size: samples of a batch over all processes together.
    seed: of order and augmentation, 0 to 2**32 - 1.
    shuffle: a new order in each epoch, else always that of the split.
    augment: apply the data set's training augmentation in ``batch``.
    process_index: this process.
    process_count: processes; each gets ``batch_size / process_count`` samples
      of every batch, and together they get what one process alone would.
    workers: processes that make batches ahead of their use; 0 is threads of
      this one, which is better where little is decoded.

  Raises:
    ValueError: an unknown split, an empty one, or numbers that do not fit.
  """

  def __init__(
    self,
    dataset: Dataset,
    split: str,
    batch_size: int,
    *,
    seed: int,
    shuffle: bool = True,
    augment: bool = True,
    process_index: int = 0,
    process_count: int = 1,
    workers: int = 0,
  ):
    if split not in dataset.sources:
      raise unknown("split", split, dataset.sources)
    _check(batch_size, process_index, process_count)
    self._source = dataset.sources[split]
    self._modalities = dataset.spec.modalities
    self._stored = dataset.stored
    self._split, self.batch_size = split, batch_size
    self._local = batch_size // process_count
    self._first = process_index * self._local
    if len(self._source) == 0:
      raise ValueError(f"split {split!r} of {dataset.spec.name!r} is empty")
    self._augment = dataset.augment if augment else {}
    self._view = dataset.view
    self._together = dataset.together
    self.seed, self._workers = seed, workers
    self._order = self._endless(seed, shuffle)
    self._samples = self._order.map(self._sample)
    if self._augment:
      self._samples = self._samples.random_map(self._augmented)
    else:
      self._samples = self._samples.map(self._viewed)

  @property
  def samples(self) -> int:
    """Samples of the split."""
    return len(self._source)

  @property
  def augmented(self) -> bool:
    """Whether batches are augmented."""
    return bool(self._augment)

  @property
  def steps_per_epoch(self) -> int:
    """Whole batches in a pass over the split; what is left over is dropped."""
    return len(self._source) // self.batch_size

  def batch(self, step: int) -> Batch:
    """This process's part of batch ``step``; epoch is step // steps_per_epoch.

    Raises:
      ValueError: the split holds less than one batch, or step is negative.
    """
    samples = [cast(Sample, self._samples[p]) for p in self._places(step)]
    return self._stack(samples, self._local)

  def rows(self, step: int) -> np.ndarray:
    """Positions in the split of the samples of ``batch(step)``, [b] int32."""
    return np.array([self._order[p] for p in self._places(step)], np.int32)

  def _places(self, step: int) -> range:
    """Where this process's part of a batch lies in the endless order."""
    self._check_size()
    if step < 0:
      raise ValueError(f"step must be >= 0, got {step}")
    start = step * self.batch_size + self._first
    return range(start, start + self._local)

  def stream(self, start_step: int = 0) -> Stream:
    """``batch(start_step)``, ``batch(start_step + 1)``, ... without end.

    Threads, or ``workers``, make batches ready ahead of their use.
    """
    self._check_size()
    steps = range(start_step, sys.maxsize)
    return ahead(steps, self.batch, self._workers)

  def ordered(self, order: np.ndarray, epoch: int, first: int = 0) -> Stream:
    """The batches of an epoch in a given order, from batch ``first`` on.

    Args:
      order: positions in the split, at least as many as an epoch takes.
      epoch: its number; augmentation depends on it, the seed and the place.
      first: the first batch wanted.

    Raises:
      ValueError: the order is too short or names a sample that is not there.
    """
    order = self.checked(order)

    def make(number: int) -> Batch:
      start = number * self.batch_size + self._first
      places = range(start, start + self._local)
      return self._stack(
        [self._placed(int(order[p]), epoch, p) for p in places], self._local
      )

    return ahead(range(first, self.steps_per_epoch), make)

  def checked(self, order: np.ndarray) -> np.ndarray:
    """The part of an order that an epoch takes; errors as in ``ordered``."""
    self._check_size()
    need = self.steps_per_epoch * self.batch_size
    order = np.asarray(order)[:need]
    known = (order >= 0) & (order < len(self._source))
    if len(order) < need or not known.all():
      raise ValueError(
        f"an epoch of split {self._split!r} takes {need} positions below "
        f"{len(self._source)}, got {len(order)}"
      )
    return order

  def _placed(self, index: int, epoch: int, place: int) -> Sample:
    sample = self._sample(index)
    if not self._augment:
      return self._viewed(sample)
    rng = np.random.default_rng([self.seed, epoch, place])
    return self._augmented(sample, rng)

  def padded(self) -> Iterator[Batch]:
    """One pass in the split's order, nothing augmented, for evaluation.

    Every batch has the full size; padding has mask 0, label 0, index 0 and
    inputs 0. All processes get equally many batches.
    """
    batches = -(-len(self._source) // self.batch_size)
    return ahead(range(batches), self._in_order)

  def _in_order(self, batch: int) -> Batch:
    total = len(self._source)
    first = batch * self.batch_size + self._first
    rows = range(min(first, total), min(first + self._local, total))
    samples = [self._viewed(self._sample(i)) for i in rows]
    return self._stack(samples, self._local)

  def _endless(self, seed: int, shuffle: bool) -> grain.MapDataset[int]:
    """Positions in the split, pass after pass."""
    order = grain.MapDataset.range(len(self._source)).seed(seed)
    if shuffle:
      order = order.shuffle()
    order = order[: self.steps_per_epoch * self.batch_size]
    return order.repeat() if len(order) else order

  def _sample(self, index: int) -> Sample:
    sample = self._source[index]
    check_sample(sample, self._stored)
    return {**sample, "index": index}

  def _augmented(self, sample: Sample, rng: np.random.Generator) -> Sample:
    inputs = dict(sample["inputs"])
    alike = copy.deepcopy(rng) if self._together else rng
    for m, function in self._augment.items():
      own = copy.deepcopy(alike) if m in self._together else rng
      inputs[m] = function(own, inputs[m])
    return self._viewed({**sample, "inputs": inputs}, self._augment)

  def _viewed(self, sample: Sample, but: Collection[str] = ()) -> Sample:
    inputs = dict(sample["inputs"])
    for m, function in self._view.items():
      if m not in but:
        inputs[m] = function(inputs[m])
    return {**sample, "inputs": inputs}

  def _stack(self, samples: Sequence[Sample], size: int) -> Batch:
    """Samples and as much padding as there is room."""
    n, inputs = len(samples), {}
    for m, spec in self._modalities.items():
      shape = samples[0]["inputs"][m].shape if n else spec.shape
      inputs[m] = np.zeros((size, *shape), spec.dtype)
    labels, index = np.zeros(size, np.int32), np.zeros(size, np.int32)
    for row, sample in enumerate(samples):
      for m, array in inputs.items():
        array[row] = sample["inputs"][m]
      labels[row], index[row] = sample["label"], sample["index"]
    mask = (np.arange(size) < n).astype(np.float32)
    return Batch(inputs=inputs, labels=labels, mask=mask, index=index)

  def _check_size(self) -> None:
    if self.steps_per_epoch == 0:
      raise ValueError(
        f"batch_size {self.batch_size} is larger than split {self._split!r}, "
        f"which has {len(self._source)} samples: set a batch_size of at most "
        f"{len(self._source)}"
      )


def _check(batch_size: int, process_index: int, process_count: int) -> None:
  if batch_size < 1:
    raise ValueError(f"batch_size must be >= 1, got {batch_size}")
  if not 0 <= process_index < process_count:
    raise ValueError(
      f"process_index must lie in [0, {process_count}), got {process_index}"
    )
  if batch_size % process_count:
    raise ValueError(
      f"batch_size {batch_size} must be a multiple of the {process_count} "
      "processes: each takes an equal part"
    )
