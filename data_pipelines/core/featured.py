"""Features in place of inputs: a data set whose encoders need not run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from data_pipelines.core.dataset import Dataset
from data_pipelines.core.source import (
  Sample,
  Source,
  Take,
  Taken,
  in_memory,
  labels,
  lengths,
  missing,
  sample_of,
)
from data_pipelines.core.spec import ModalitySpec

Features = Mapping[str, Mapping[str, np.ndarray]]


def replaced(
  dataset: Dataset, features: Features, present: Features
) -> Dataset:
  """The data set with features for some modalities, which become arrays.

  Order, labels, masks and augmentation of the others stay. It has the splits of
  ``features``.

  Args:
    dataset: the samples; it does not augment these modalities.
    features: {split: {modality: [n d]}}, the same modalities in every split.
    present: {split: {modality: [n], 1 or 0}} of those that are optional.
  """
  some = next(iter(features.values()))
  specs = {
    m: ModalitySpec("array", some[m].shape[1:], some[m].dtype, None, s.optional)
    if m in some
    else s
    for m, s in dataset.spec.modalities.items()
  }
  sizes = {split: dataset.spec.sizes[split] for split in features}
  return dataclasses.replace(
    dataset,
    spec=dataclasses.replace(dataset.spec, modalities=specs, sizes=sizes),
    sources={
      split: _Featured(dataset.sources[split], own, present[split], specs)
      for split, own in features.items()
    },
    decoded={m: s for m, s in dataset.decoded.items() if m not in some},
    view={m: f for m, f in dataset.view.items() if m not in some},
    preprocessing={},
  )


class _Featured:
  """A source with features in place of inputs of some modalities.

  If they are all, or the others are in memory, so are its samples. What it
  serves then has no id.
  """

  def __init__(
    self,
    source: Source,
    features: Mapping[str, np.ndarray],
    present: Mapping[str, np.ndarray],
    modalities: Mapping[str, ModalitySpec],
  ):
    self._source, self._features, self._present = source, features, present
    self._others = [m for m in modalities if m not in features]
    self._ragged = {
      m: modalities[m] for m in self._others if modalities[m].ragged
    }
    self._labels = labels(source)
    self._inner = in_memory(source)
    self.take: Take | None = None
    if self._inner is not None or not self._others:
      self.take = self._take

  def __len__(self) -> int:
    return len(self._labels)

  def __getitem__(self, index: int, /) -> Sample:
    gone = [m for m, there in self._present.items() if not there[index]]
    inputs = {m: array[index] for m, array in self._features.items()}
    if not self._others:
      return sample_of(inputs, int(self._labels[index]), "", gone)
    sample = self._source[index]
    gone += [m for m in missing(sample) if m in self._others]
    inputs |= {m: sample["inputs"][m] for m in self._others}
    return sample_of(inputs, sample["label"], sample["id"], gone)

  def labels(self) -> np.ndarray:
    return self._labels

  def lengths(self) -> dict[str, np.ndarray]:
    return lengths(self._source, self._ragged)

  def _take(self, rows: np.ndarray, modalities: Iterable[str]) -> Taken:
    inputs = {m: array[rows] for m, array in self._features.items()}
    present = {m: there[rows] for m, there in self._present.items()}
    if self._inner is not None and self._others:
      taken = self._inner(rows, self._others)
      inputs, present = taken.inputs | inputs, taken.present | present
    chosen = {m: inputs[m] for m in modalities}
    return Taken(chosen, self._labels[rows], present)
