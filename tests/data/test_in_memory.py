"""Splits in memory are taken out as whole batches."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.load.loader import Loader
from helpers import toy_dataset


class _Plain:
  """A source that says nothing of being in memory."""

  def __init__(self, source):
    self._source = source

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    return self._source[index]


@pytest.mark.parametrize("part", [(0, 1), (1, 2)])
def test_memory_gives_whole_batches_as_sample_by_sample(part):
  index, count = part
  data = toy_dataset(("array", "image", "text"), 21).select(("text", "image"))
  sources = {k: _Plain(s) for k, s in data.sources.items()}
  plain = dataclasses.replace(data, sources=sources)
  assert data.cached("train") and not plain.cached("train")

  def loader(dataset):
    options = {"process_index": index, "process_count": count}
    return Loader(dataset, "train", 8, seed=3, augment=False, **options)

  a, b = loader(data), loader(plain)
  for step in (0, 1, 7):
    jax.tree.map(np.testing.assert_array_equal, a.batch(step), b.batch(step))
  order = np.arange(21)[::-1]
  pairs = [(a.padded(), b.padded()), (a.ordered(order, 1), b.ordered(order, 1))]
  for one, other in pairs:
    for x, y in zip(one, other, strict=True):
      jax.tree.map(np.testing.assert_array_equal, x, y)
