"""Batches of a split.

``Loader.batch(step)`` is a pure function of the seed and the step, so a resumed
run sees the same batches and checkpoints hold nothing about the data. The order
of an epoch depends on the seed and the epoch; the augmentation of a sample also
on its place in the epoch.

Samples in memory that are not augmented are sliced into batches at once. All
others are prepared ahead of their use, one by one.

Where samples differ in length, a batch has some of similar length, and pads
them as ``core.sequences`` describes.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable, Collection, Sequence

import numpy as np

from data_pipelines.core import (
  Dataset,
  Sample,
  check_sample,
  in_memory,
  lengths,
  missing,
  sequences,
)
from data_pipelines.core.batch import Batch
from data_pipelines.errors import InputError, unknown
from data_pipelines.load.ahead import Stream, ahead


class Loader:
  """Batches of one split.

  Args:
    dataset: the samples.
    split: one of its splits.
    batch_size: samples of a batch over all processes together.
    seed: of order and augmentation, 0 to 2**32 - 1.
    shuffle: a new order in each epoch; otherwise the split's order.
    chances: [n], with ``shuffle``: probability of each sample. As many as the
      split has are drawn for an epoch, with replacement. ``None`` takes each
      once.
    augment: apply the data set's training augmentation in ``batch``.
    process_index: this process.
    process_count: processes; each gets ``batch_size / process_count`` samples
      of every batch, and together they get what a single process would.
    workers: processes that make batches ahead of their use. With 0 threads do
      so, which is better if decoding is cheap; data in memory need neither.

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
    chances: np.ndarray | None = None,
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
      raise InputError(f"split {split!r} of {dataset.spec.name!r} is empty")
    self._augment = dataset.augment if augment else {}
    self._view = dataset.view
    self._together = dataset.together
    self.seed, self._shuffle, self._workers = seed, shuffle, workers
    self._chances = chances
    self._whole = None
    if not self._augment and not self._view:
      self._whole = in_memory(self._source)
    self._latest: tuple[int, np.ndarray] | None = None
    self._ragged = {m: s for m, s in self._modalities.items() if s.ragged}
    self._lengths = lengths(self._source, self._ragged)

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
    """Full batches in a pass over the split; the remainder is dropped."""
    return len(self._source) // self.batch_size

  def batch(self, step: int) -> Batch:
    """This process's part of batch ``step``; epoch is step // steps_per_epoch.

    Raises:
      ValueError: the split holds less than one batch, or step is negative.
    """
    epoch, number = self._place(step)
    return self._of_epoch(self._order(epoch), epoch, number)

  def rows(self, step: int) -> np.ndarray:
    """Positions in the split of the samples of ``batch(step)``, [b] int32."""
    epoch, number = self._place(step)
    return self._order(epoch)[self._part(number)].astype(np.int32)

  def stream(self, start_step: int = 0) -> Stream:
    """``batch(start_step)``, ``batch(start_step + 1)``, ... without end.

    Threads or ``workers`` prepare batches ahead unless the data are in memory.
    """
    self._check_size()
    steps = range(start_step, sys.maxsize)
    return self._stream(steps, self.batch, self._workers)

  def ordered(self, order: np.ndarray, epoch: int, first: int = 0) -> Stream:
    """The batches of an epoch in a given order, from batch ``first`` on.

    Args:
      order: positions in the split, at least as many as an epoch takes.
      epoch: its number; augmentation depends on it, the seed and the place.
      first: the first batch wanted.

    Raises:
      ValueError: the order is too short or has positions out of range.
    """
    order = self.checked(order)
    make = functools.partial(self._of_epoch, order, epoch)
    return self._stream(range(first, self.steps_per_epoch), make)

  def checked(self, order: np.ndarray) -> np.ndarray:
    """The part of an order that an epoch uses; errors as in ``ordered``."""
    self._check_size()
    need = self.steps_per_epoch * self.batch_size
    order = np.asarray(order)[:need]
    known = (order >= 0) & (order < len(self._source))
    if len(order) < need or not known.all():
      raise InputError(
        f"an epoch of split {self._split!r} takes {need} positions below "
        f"{len(self._source)}, got {len(order)}"
      )
    return order

  def padded(self) -> Stream:
    """One pass in the split's order without augmentation, for evaluation.

    Every batch has the full size; padding has mask, label, index and inputs 0.
    All processes get the same number of batches.
    """
    batches = -(-len(self._source) // self.batch_size)
    return self._stream(range(batches), self._in_order)

  def _in_order(self, batch: int) -> Batch:
    total = len(self._source)
    start = batch * self.batch_size
    extents = self._extents(
      np.arange(start, min(start + self.batch_size, total))
    )
    first = start + self._first
    rows = range(min(first, total), min(first + self._local, total))
    if self._whole is not None:
      return self._taken(np.array(rows, np.int64), extents)
    samples = [self._viewed(self._sample(i)) for i in rows]
    return self._stack(samples, extents)

  def _place(self, step: int) -> tuple[int, int]:
    """Epoch and number in it of a step."""
    self._check_size()
    if step < 0:
      raise InputError(f"step must be >= 0, got {step}")
    return divmod(step, self.steps_per_epoch)

  def _part(self, number: int) -> slice:
    """Positions of this process's part of a batch in the epoch's order."""
    start = number * self.batch_size + self._first
    return slice(start, start + self._local)

  def _order(self, epoch: int) -> np.ndarray:
    """Positions in the split in the order of an epoch."""
    if not self._shuffle:
      return np.arange(len(self._source))
    known = self._latest
    if known is None or known[0] != epoch:
      rng = np.random.default_rng([self.seed, epoch])
      known = self._latest = epoch, self._drawn(rng)
    return known[1]

  def _drawn(self, rng: np.random.Generator) -> np.ndarray:
    n = len(self._source)
    if self._chances is None:
      order = rng.permutation(n)
    else:
      order = rng.choice(n, n, p=self._chances)
    if not self._ragged:
      return order
    ranks = sequences.rank(self._lengths)
    return sequences.grouped(order, ranks, self.batch_size, rng)

  def _extents(self, rows: np.ndarray) -> dict[str, int]:
    """Steps that a batch of these rows, of all processes, is padded to."""
    if not self._ragged:
      return {}
    found = {m: int(n[rows].max()) for m, n in self._lengths.items()}
    return sequences.extents(found, self._ragged)

  def _of_epoch(self, order: np.ndarray, epoch: int, number: int) -> Batch:
    """This process's part of a batch of an epoch."""
    part = self._part(number)
    rows = order[part]
    start = number * self.batch_size
    extents = self._extents(order[start : start + self.batch_size])
    if self._whole is not None:
      return self._taken(rows, extents)
    samples = [self._sample(int(i)) for i in rows]
    if not self._augment:
      return self._stack([self._viewed(s) for s in samples], extents)
    places = range(part.start, part.stop)
    return self._stack(
      [
        self._augmented(s, np.random.default_rng([self.seed, epoch, place]))
        for s, place in zip(samples, places, strict=True)
      ],
      extents,
    )

  def _stream(
    self, numbers: range, make: Callable[[int], Batch], workers: int = 0
  ) -> Stream:
    if self._whole is not None and not workers:
      return (make(number) for number in numbers)
    return ahead(numbers, make, workers)

  def _taken(self, rows: np.ndarray, extents: dict[str, int]) -> Batch:
    """Rows of samples in memory, padded to the full size."""
    assert self._whole is not None
    taken = self._whole(rows, self._modalities)
    more = self._local - len(rows)

    def padded(x: np.ndarray) -> np.ndarray:
      return np.pad(x, [(0, more)] + [(0, 0)] * (x.ndim - 1)) if more else x

    return Batch(
      inputs={
        m: sequences.stack(x, self._ragged[m], extents[m], self._local)
        if m in extents
        else padded(x)
        for m, x in taken.inputs.items()
      },
      labels=padded(taken.labels),
      mask=padded(np.ones(len(rows), np.float32)),
      index=padded(rows.astype(np.int32)),
      present={m: padded(p) for m, p in taken.present.items()} or None,
    )

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

  def _stack(self, samples: Sequence[Sample], extents: dict[str, int]) -> Batch:
    """Samples, padded to the full size."""
    n, size, inputs = len(samples), self._local, {}
    for m, spec in self._modalities.items():
      if m in extents:
        continue
      shape = samples[0]["inputs"][m].shape if n else spec.shape
      inputs[m] = np.zeros((size, *shape), spec.dtype)
    labels, index = np.zeros(size, np.int32), np.zeros(size, np.int32)
    mask = (np.arange(size) < n).astype(np.float32)
    optional = [m for m, s in self._modalities.items() if s.optional]
    present = {m: mask.copy() for m in optional}
    for row, sample in enumerate(samples):
      gone = missing(sample)
      for m, array in inputs.items():
        if m in gone:  # Its row stays zero, whatever an augmentation made.
          present[m][row] = 0
        else:
          array[row] = sample["inputs"][m]
      labels[row], index[row] = sample["label"], sample["index"]
    for m, extent in extents.items():
      spec = self._ragged[m]
      none = np.zeros((0, *spec.shape[1:]), spec.dtype)
      arrays = [none if m in missing(s) else s["inputs"][m] for s in samples]
      for row, sample in enumerate(samples):
        if m in missing(sample):
          present[m][row] = 0
      inputs[m] = sequences.stack(arrays, spec, extent, size)
    return Batch(inputs, labels, mask, index, present=present or None)

  def _check_size(self) -> None:
    if self.steps_per_epoch == 0:
      raise InputError(
        f"batch_size {self.batch_size} is larger than split {self._split!r}, "
        f"which has {len(self._source)} samples: set a batch_size of at most "
        f"{len(self._source)}"
      )


def _check(batch_size: int, process_index: int, process_count: int) -> None:
  if batch_size < 1:
    raise InputError(f"batch_size must be >= 1, got {batch_size}")
  if not 0 <= process_index < process_count:
    raise InputError(
      f"process_index must lie in [0, {process_count}), got {process_index}"
    )
  if batch_size % process_count:
    raise InputError(
      f"batch_size {batch_size} must be a multiple of the {process_count} "
      "processes: each takes an equal part"
    )
