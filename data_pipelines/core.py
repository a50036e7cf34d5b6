"""What a data set is, and finding one by name.

A *pipeline* is a module of this package, named like its data set, with

* ``prepare(data_dir, **options) -> Report``: raw data to records on disk, once;
  does nothing when they are there, never leaves half of them behind;
* ``load(data_dir, **options) -> Dataset``: calls ``prepare`` if need be.

Options are keyword-only parameters with a default. Samples pass through a
chain of sources: stored records, ``Decoded`` on access, ``Cached`` if few.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from data_pipelines.report import DataError, Report

__all__ = [
  "Cached", "DataError", "Dataset", "Decoded", "ModalitySpec", "Report",
  "Source", "Spec", "build", "cache_if_small", "check_sample", "pipelines",
  "prepare", "unknown",
]  # fmt: skip

SPLITS = ("train", "outer", "val", "test")
KINDS = ("image", "text", "audio", "video", "array")
CACHE_BYTES = 2**30  # decoded splits up to this size are kept in memory
_LIBRARY = {
  "core", "loader", "report", "storage", "image", "audio", "video", "text",
}  # fmt: skip

Sample = dict[str, Any]
Augment = Callable[[np.random.Generator, np.ndarray], np.ndarray]
Record = TypeVar("Record", covariant=True)


@dataclasses.dataclass(frozen=True)
class ModalitySpec:
  """One modality of a sample, as the batch holds it.

  Attributes:
    kind: one of ``KINDS``.
    shape: of one sample: image [h w c], video [t h w c], text [t].
    dtype: image, video ``uint8``, text ``int32`` word numbers.
    vocab_size: text only: number of different word numbers, special ones too.
  """

  kind: str
  shape: tuple[int, ...]
  dtype: npt.DTypeLike
  vocab_size: int | None = None

  def __post_init__(self):
    if self.kind not in KINDS:
      raise unknown("kind of modality", self.kind, KINDS)
    object.__setattr__(self, "dtype", np.dtype(self.dtype))
    object.__setattr__(self, "shape", tuple(self.shape))

  @property
  def nbytes(self) -> int:
    """Bytes of one sample."""
    return (
      int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize
    )


@dataclasses.dataclass(frozen=True)
class Spec:
  """A data set without its samples.

  Attributes:
    name: of the data set.
    modalities: {name: spec}.
    classes: names; a label is a position in them.
    sizes: {split: samples}.
  """

  name: str
  modalities: dict[str, ModalitySpec]
  classes: tuple[str, ...]
  sizes: dict[str, int]


class Source(Protocol):
  """Random access to the samples of a split.

  A sample is ``{"inputs": {modality: array}, "label": int, "id": str}``,
  decoded, not augmented, with the shapes of the spec.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Sample: ...


class Records(Protocol[Record]):
  """Random access to what is stored of the samples."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


class Decoded(Generic[Record]):
  """Applies ``decode`` to a record each time that it is read."""

  def __init__(
    self, records: Records[Record], decode: Callable[[Record], Sample]
  ):
    self._records, self._decode = records, decode

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int, /) -> Sample:
    return self._decode(self._records[index])


class Cached:
  """Reads a source once, then serves views of arrays in memory."""

  def __init__(self, source: Source, modalities: Mapping[str, ModalitySpec]):
    n = len(source)
    self._inputs = {
      m: np.empty((n, *s.shape), s.dtype) for m, s in modalities.items()
    }
    self._labels, self._ids = [0] * n, [""] * n
    for i in range(n):
      sample = source[i]
      check_sample(sample, modalities)
      for m, array in self._inputs.items():
        array[i] = sample["inputs"][m]
      self._labels[i], self._ids[i] = int(sample["label"]), str(sample["id"])
    for array in self._inputs.values():
      array.flags.writeable = False

  def __len__(self) -> int:
    return len(self._ids)

  def __getitem__(self, index: int, /) -> Sample:
    inputs = {m: array[index] for m, array in self._inputs.items()}
    label, sample_id = self._labels[index], self._ids[index]
    return {"inputs": inputs, "label": label, "id": sample_id}


class _Selected:
  """The samples of a source with some of their modalities."""

  def __init__(self, source: Source, modalities: Sequence[str]):
    self._source, self._modalities = source, tuple(modalities)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int, /) -> Sample:
    sample = self._source[index]
    inputs = {m: sample["inputs"][m] for m in self._modalities}
    return {**sample, "inputs": inputs}


def cache_if_small(
  source: Source,
  modalities: Mapping[str, ModalitySpec],
  limit: int = CACHE_BYTES,
) -> Source:
  """``Cached`` if the decoded split takes at most ``limit`` bytes."""
  size = len(source) * sum(s.nbytes for s in modalities.values())
  return Cached(source, modalities) if size <= limit else source


def check_sample(
  sample: Sample, modalities: Mapping[str, ModalitySpec]
) -> None:
  """Raises ``ValueError`` for a sample that its spec does not describe."""
  for m, spec in modalities.items():
    array = sample["inputs"].get(m)
    if array is None:
      raise ValueError(f"sample {sample['id']!r} has no modality {m!r}")
    if array.shape != spec.shape or array.dtype != spec.dtype:
      raise ValueError(
        f"sample {sample['id']!r}, modality {m!r}: {array.dtype} of shape "
        f"{array.shape}; its spec says {spec.dtype} of shape {spec.shape}"
      )


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Spec, samples and training augmentation.

  Attributes:
    spec: what the samples look like.
    sources: {split: its samples}.
    augment: {modality: pure function of (random generator, array)}; applied to
      training batches only. Keeps shape and dtype.
  """

  spec: Spec
  sources: dict[str, Source]
  augment: dict[str, Augment] = dataclasses.field(default_factory=dict)

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
      raise ValueError(f"keep at least one modality of {names}")
    return Dataset(
      dataclasses.replace(self.spec, modalities=kept),
      {k: _Selected(s, tuple(kept)) for k, s in self.sources.items()},
      {m: f for m, f in self.augment.items() if m in kept},
    )


def unknown(what: str, value: object, known: Iterable[str]) -> ValueError:
  """An error that lists the choices and the closest one."""
  known = list(known)
  close = difflib.get_close_matches(str(value), known, n=1)
  hint = f" (did you mean {close[0]!r}?)" if close else ""
  return ValueError(
    f"unknown {what} {value!r}{hint}; known: {', '.join(known)}"
  )


def pipelines() -> list[str]:
  """Names of the data sets there are."""
  package = importlib.import_module(__package__ or "data_pipelines")
  names = [module.name for module in pkgutil.iter_modules(package.__path__)]
  return sorted(n for n in names if n[0] != "_" and n not in _LIBRARY)


def build(
  name: str,
  data_dir: str | os.PathLike,
  options: Mapping[str, Any],
  modalities: Sequence[str] | None = None,
) -> Dataset:
  """Loads a data set by name, preparing it if need be.

  Args:
    name: a module of this package, e.g. ``"openmoji"``.
    data_dir: folder of all prepared data.
    options: keyword arguments of the module's ``load`` (or ``prepare``).
    modalities: those to keep; ``None`` is all.

  Raises:
    ValueError: an unknown name, option or modality, with the choices.
    DataError: prepared data that are damaged.
  """
  module = _pipeline(name, options)
  dataset = module.load(data_dir, **_accepted(module.load, options))
  return dataset if modalities is None else dataset.select(modalities)


def prepare(
  name: str, data_dir: str | os.PathLike, options: Mapping[str, Any]
) -> Report:
  """Makes the prepared data of a data set; arguments as in ``build``.

  Data that are there and whole stay as they are; damaged ones are made anew.
  """
  module = _pipeline(name, options)
  return module.prepare(data_dir, **_accepted(module.prepare, options))


def _pipeline(name: str, options: Mapping[str, Any]):
  known = pipelines()
  if name not in known:
    raise unknown("data set", name, known)
  module = importlib.import_module(f"{__package__}.{name}")
  choices = [*_options(module.load), *_options(module.prepare)]
  for option in options:
    if option not in choices:
      raise unknown(f"option of data set {name!r}:", option, choices)
  return module


def _options(function: Callable) -> list[str]:
  parameters = inspect.signature(function).parameters.values()
  return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _accepted(function: Callable, options: Mapping[str, Any]):
  return {k: options[k] for k in _options(function) if k in options}
