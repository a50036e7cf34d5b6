"""What a data set is.

Samples pass through a chain of sources: stored records, ``Decoded`` on access,
``Cached`` if they fit into memory. A decoded sample may be larger than the one
in a batch (``Dataset.decoded``): ``augment`` in training and ``view`` in
evaluation cut it to size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_pipelines.core.source import (
  Sample,
  Source,
  in_memory,
  labels,
  missing,
  sample_of,
)
from data_pipelines.core.spec import ModalitySpec, Spec
from data_pipelines.errors import InputError, unknown

Augment = Callable[[np.random.Generator, np.ndarray], np.ndarray]
View = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Spec, samples, and what happens to a sample on its way to a batch.

  Attributes:
    spec: shapes and dtypes of evaluation batches.
    sources: {split: its samples}.
    augment: {modality: pure function of (random generator, decoded array)};
      applied to training batches only. The result has the spec's shape, or
      another one that all samples share (fewer frames).
    decoded: {modality: spec of decoded samples}, where ``spec`` differs.
    view: {modality: decoded array -> array as in ``spec``}, applied wherever
      ``augment`` is not.
    together: modalities whose augmentations draw the same random numbers, so
      that all views of a scene are cropped alike.
    preprocessing: {modality: settings of its preprocessing}, see
      ``preprocess``; may be empty.
    fingerprint: of the prepared data, as in ``PreparedSummary``; runs on data
      with different ones are kept apart.
  """

  spec: Spec
  sources: dict[str, Source]
  augment: dict[str, Augment] = dataclasses.field(default_factory=dict)
  decoded: dict[str, ModalitySpec] = dataclasses.field(default_factory=dict)
  view: dict[str, View] = dataclasses.field(default_factory=dict)
  together: tuple[str, ...] = ()
  preprocessing: dict[str, dict[str, Any]] = dataclasses.field(
    default_factory=dict
  )
  fingerprint: str = ""

  def cached(self, split: str) -> bool:
    """Whether a split's decoded samples are in memory."""
    return in_memory(self.sources[split]) is not None

  @property
  def stored(self) -> dict[str, ModalitySpec]:
    """{modality: spec of decoded samples}."""
    return {**self.spec.modalities, **self.decoded}

  def select(self, modalities: Sequence[str]) -> Dataset:
    """The same data with some of the modalities, in the spec's order.

    Raises:
      ValueError: a modality that the data do not have, or none at all.
    """
    for m in modalities:
      if m not in self.spec.modalities:
        raise unknown("modality", m, self.spec.modalities)
    kept = {m: s for m, s in self.spec.modalities.items() if m in modalities}
    if not kept:
      names = ", ".join(self.spec.modalities)
      raise InputError(f"keep at least one modality of {names}")
    return dataclasses.replace(
      self,
      spec=dataclasses.replace(self.spec, modalities=kept),
      sources={k: _Selected(s, tuple(kept)) for k, s in self.sources.items()},
      augment={m: f for m, f in self.augment.items() if m in kept},
      decoded={m: s for m, s in self.decoded.items() if m in kept},
      view={m: f for m, f in self.view.items() if m in kept},
      together=tuple(m for m in self.together if m in kept),
      preprocessing={m: s for m, s in self.preprocessing.items() if m in kept},
    )


class _Selected:
  """The samples of a source with some of their modalities."""

  def __init__(self, source: Source, modalities: Sequence[str]):
    self._source, self._modalities = source, tuple(modalities)
    self.take = in_memory(source)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int, /) -> Sample:
    sample = self._source[index]
    inputs = {m: sample["inputs"][m] for m in self._modalities}
    gone = tuple(m for m in missing(sample) if m in inputs)
    return sample_of(inputs, sample["label"], sample["id"], gone)

  def labels(self) -> np.ndarray:
    return labels(self._source)

  def lengths(self) -> dict[str, np.ndarray]:
    found = getattr(self._source, "lengths", None)
    known = (found() or {}) if found is not None else {}
    return {m: n for m, n in known.items() if m in self._modalities}
