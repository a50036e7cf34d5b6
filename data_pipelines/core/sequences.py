"""Samples of different length, [t d]: their buckets, their order in batches.

A batch holds a ragged modality as ``{"values": [b T d], "mask": [b T]}``: mask
1 for a step, 0 for padding, whose values are 0. T is the smallest *bucket* that
holds the longest sample of the batch. A data set has few buckets, so that few
programs are compiled; the buckets of several ragged modalities go by levels,
and a batch takes the same level of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

MOST = 10  # buckets chosen from training lengths
EACH = 64  # training samples a bucket, at least: each costs a compilation
WASTE = 0.05  # share of padding below which more buckets are not worth it
MULTIPLE = 8  # of which each bucket is one
WINDOW = 64  # batches whose samples are sorted by length
VALUES, MASK = "values", "mask"
_CANDIDATES = 64


class Bucketed(Protocol):
  """What is needed of a ``ModalitySpec``."""

  @property
  def shape(self) -> tuple[int, ...]: ...

  @property
  def dtype(self) -> Any: ...

  @property
  def buckets(self) -> tuple[int, ...]: ...


class Ragged:
  """Arrays [t ...] of different t in one array; read-only.

  Attributes:
    flat: all steps, [total ...].
    lengths: int [n], steps of each sample.
  """

  def __init__(self, flat: np.ndarray, lengths: np.ndarray):
    self.flat, self.lengths = flat, np.asarray(lengths, np.int64)
    self._ends = np.cumsum(self.lengths)
    if int(self.lengths.sum()) != len(flat):
      raise ValueError(f"{len(flat)} steps for {self.lengths.sum()} of samples")
    flat.flags.writeable = False

  @classmethod
  def of(cls, arrays: Sequence[np.ndarray], spec: Bucketed) -> Ragged:
    """The samples in ``arrays``."""
    none = np.zeros((0, *spec.shape[1:]), spec.dtype)
    lengths = np.array([len(x) for x in arrays], np.int64)
    return cls(np.concatenate([none, *arrays]), lengths)

  def __len__(self) -> int:
    return len(self.lengths)

  def __getitem__(self, index: int, /) -> np.ndarray:
    end = self._ends[index]
    return self.flat[end - self.lengths[index] : end]

  def take(self, rows: Iterable[int]) -> list[np.ndarray]:
    """Several samples."""
    return [self[int(i)] for i in rows]


def extents(
  longest: Mapping[str, int], specs: Mapping[str, Bucketed]
) -> dict[str, int]:
  """{modality: T} for a batch whose longest samples have so many steps.

  Beyond the largest bucket T doubles until it is long enough.
  """
  levels = {m: _level(specs[m].buckets, n) for m, n in longest.items()}
  if len({len(specs[m].buckets) for m in longest}) == 1:
    levels = dict.fromkeys(levels, max(levels.values()))
  return {m: _bucket(specs[m].buckets, n) for m, n in levels.items()}


def _level(buckets: Sequence[int], length: int) -> int:
  level = int(np.searchsorted(buckets, length))
  while _bucket(buckets, level) < length:
    level += 1
  return level


def _bucket(buckets: Sequence[int], level: int) -> int:
  beyond = max(level - len(buckets) + 1, 0)
  return buckets[min(level, len(buckets) - 1)] * 2**beyond


def stack(
  arrays: Sequence[np.ndarray], spec: Bucketed, extent: int, count: int = 0
) -> dict[str, np.ndarray]:
  """Samples [t ...] as ``{"values": [b T ...], "mask": float32 [b T]}``.

  Args:
    arrays: of the samples, none longer than ``extent``.
    spec: of the modality.
    extent: T.
    count: b, if there are more rows than arrays: those are all padding.
  """
  size = max(count, len(arrays))
  values = np.zeros((size, extent, *spec.shape[1:]), spec.dtype)
  mask = np.zeros((size, extent), np.float32)
  for row, array in enumerate(arrays):
    values[row, : len(array)] = array
    mask[row, : len(array)] = 1
  return {VALUES: values, MASK: mask}


def stacked(
  samples: Mapping[str, Sequence[np.ndarray]], specs: Mapping[str, Bucketed]
) -> dict[str, Any]:
  """{modality: samples} as {modality: what a batch holds}, [b ...]."""
  ragged = {m: s for m, s in specs.items() if s.buckets and m in samples}
  found = {m: max((len(x) for x in samples[m]), default=1) for m in ragged}
  extent = extents(found, ragged)
  return {
    m: stack(x, specs[m], extent[m]) if m in ragged else np.stack(x)
    for m, x in samples.items()
  }


def is_padded(x: Any) -> bool:
  """Whether these inputs of a modality are a ragged one's."""
  return isinstance(x, Mapping) and set(x) == {VALUES, MASK}


def to_extent(x: Mapping[str, Any], extent: int, axis: int = 1) -> dict:
  """The inputs of a ragged modality with padding up to ``extent`` steps."""
  more = extent - x[MASK].shape[axis]

  def longer(array: np.ndarray) -> np.ndarray:
    pads = [(0, 0)] * array.ndim
    pads[axis] = (0, more)
    return np.pad(array, pads) if more else array

  return {name: longer(array) for name, array in x.items()}


def alike(batches: Sequence[Any]) -> list[Any]:
  """Batches with the same T of each ragged modality: that of the longest."""
  first = batches[0].inputs
  ragged = [m for m, x in first.items() if is_padded(x)]
  if not ragged:
    return list(batches)
  extent = {m: max(b.inputs[m][MASK].shape[1] for b in batches) for m in ragged}
  return [
    b.replace(
      inputs={
        m: to_extent(x, extent[m]) if m in ragged else x
        for m, x in b.inputs.items()
      }
    )
    for b in batches
  ]


def rank(lengths: Mapping[str, np.ndarray]) -> np.ndarray:
  """By what samples are sorted, [n]: the sum of lengths over mean lengths."""
  return sum(
    (n / max(float(np.mean(n)), 1.0) for n in lengths.values()),
    np.zeros(len(next(iter(lengths.values())))),
  )


def grouped(
  order: np.ndarray, ranks: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
  """An epoch's order in which each batch has samples of similar length.

  Samples stay within their window of ``WINDOW`` batches of the given order,
  where they are sorted by length; then the batches are shuffled. What is no
  full batch stays at the end.

  Args:
    order: positions in the split, shuffled.
    ranks: of all samples of the split, see ``rank``.
    size: samples of a batch.
    rng: shuffles the batches.
  """
  whole = len(order) // size * size
  kept = order[:whole]
  window = np.arange(whole) // (size * WINDOW)
  kept = kept[np.lexsort((ranks[kept], window))].reshape(-1, size)
  kept = kept[rng.permutation(len(kept))]
  return np.concatenate([kept.reshape(-1), order[whole:]])


def choose(
  train: Mapping[str, np.ndarray], longest: Mapping[str, int] | None = None
) -> dict[str, tuple[int, ...]]:
  """Buckets from the lengths of the training samples.

  The training samples, sorted by ``rank``, are cut into at most ``MOST`` groups
  such that padding each one to the longest of its group costs least; no more
  groups than it takes to bring the padding below ``WASTE``, and no more than
  one for ``EACH`` samples, but two always. Buckets are multiples of
  ``MULTIPLE``. If other splits have longer samples there is one more bucket,
  for them.

  Args:
    train: {modality: int [n]}.
    longest: {modality: of all splits}.
  """
  order = np.argsort(rank(train), kind="stable")
  means = {m: max(float(np.mean(n)), 1.0) for m, n in train.items()}
  needed = {
    m: np.maximum.accumulate(_rounded(n[order])) for m, n in train.items()
  }
  costs = sum((n / means[m] for m, n in needed.items()), np.zeros(len(order)))
  least = float(rank(train).sum())
  most = min(MOST, max(len(order) // EACH, 2))
  ends = _cuts(costs, least * (1 + WASTE), most)
  made = {m: [int(n[end - 1]) for end in ends] for m, n in needed.items()}
  levels = list(dict.fromkeys(zip(*made.values(), strict=True)))
  more = longest or {}
  last = {m: max(levels[-1][i], more.get(m, 0)) for i, m in enumerate(made)}
  beyond = tuple(int(_rounded(np.array(n))) for n in last.values())
  levels += [beyond] * (beyond != levels[-1])
  columns = zip(*levels, strict=True)
  return dict(zip(made, map(tuple, columns), strict=True))


def _rounded(lengths: np.ndarray) -> np.ndarray:
  return -(-np.maximum(lengths, 1) // MULTIPLE) * MULTIPLE


def _cuts(costs: np.ndarray, enough: float, most: int) -> list[int]:
  """Ends of the groups of sorted samples, the last one their number.

  ``costs`` are those of a sample that is the last of its group, not falling; a
  group costs its size times that. By dynamic programming over quantiles.
  """
  n = len(costs)
  places = np.linspace(0, n, min(n, _CANDIDATES) + 1).round().astype(int)
  ends = np.unique(places)[1:]
  starts = np.concatenate([[0], ends])
  # [i, j]: of a group from the i-th start up to the j-th end.
  sizes = ends[None] - starts[:, None]
  price = np.where(sizes > 0, sizes * costs[ends - 1][None], np.inf)
  best, chosen = price[0], [[int(end)] for end in ends]
  for _ in range(most - 1):
    if best[-1] <= enough:
      break
    total = best[:, None] + price[1:]
    before = total.argmin(axis=0)
    better = total.min(axis=0) < best
    chosen = [
      chosen[before[j]] + [int(ends[j])] if better[j] else chosen[j]
      for j in range(len(ends))
    ]
    best = np.minimum(total.min(axis=0), best)
  return chosen[-1]
