"""The samples of a split: decoded on access, or all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from data_pipelines.core.sequences import Ragged
from data_pipelines.core.spec import ModalitySpec
from data_pipelines.errors import InputError

CACHE_BYTES = 2**30  # decoded splits up to this size are kept in memory

Sample = dict[str, Any]
Record = TypeVar("Record", covariant=True)


class Taken(NamedTuple):
  """Samples taken at once.

  Attributes:
    inputs: {modality: [b ...], a list of b arrays if it is ragged}.
    labels: [b] int32.
    present: {optional modality: [b] float32}, see ``Batch.present``.
  """

  inputs: dict[str, Any]
  labels: np.ndarray
  present: dict[str, np.ndarray]


# (positions [b], modalities) -> copies.
Take = Callable[[np.ndarray, Iterable[str]], Taken]


class Arrays(NamedTuple):
  """All samples of a split.

  Attributes:
    inputs: {modality: [n ...], ``Ragged`` if it is so}.
    labels: [n] int32.
    ids: of the samples.
    present: {optional modality: [n] float32}, see ``Batch.present``.
  """

  inputs: dict[str, Any]
  labels: np.ndarray
  ids: list[str]
  present: dict[str, np.ndarray]


class Source(Protocol):
  """Random access to the samples of a split.

  A sample is ``{"inputs": {modality: array}, "label": int, "id": str}``,
  decoded, not augmented, with the shapes of the spec. One that lacks optional
  modalities names them in ``"missing"``, and their arrays are zero.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Sample: ...


class Records(Protocol[Record]):
  """Random access to stored records."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Record: ...


def iterated(records: Records[Record]) -> Iterator[Record]:
  """All records in order, in the source's own way if it has one."""
  own = getattr(records, "__iter__", None)
  return own() if own else (records[i] for i in range(len(records)))


class Decoded(Generic[Record]):
  """Decodes a record each time it is read.

  Args:
    records: of a split.
    decode: of a record.
    label: what a record stores as its label to the label; for ``labels``.
    lengths: {modality: int [n]} of ragged ones, if they are known; for
      ``lengths``.
  """

  def __init__(
    self,
    records: Records[Record],
    decode: Callable[[Record], Sample],
    label: Callable[[Any], int] = int,
    lengths: Callable[[], Mapping[str, np.ndarray]] | None = None,
  ):
    self._records, self._decode, self._label = records, decode, label
    self.lengths = lengths

  def __len__(self) -> int:
    return len(self._records)

  def __iter__(self) -> Iterator[Sample]:
    return map(self._decode, iterated(self._records))

  def __getitem__(self, index: int, /) -> Sample:
    return self._decode(self._records[index])

  def labels(self) -> np.ndarray:
    """The label of every sample; nothing else is decoded if they are stored."""
    column = getattr(self._records, "column", None)
    if column is None:
      found = (self[i]["label"] for i in range(len(self)))
    else:
      found = map(self._label, column("label"))
    return np.fromiter(found, np.int32, len(self))


class Cached:
  """Reads a source once and then serves samples from memory."""

  def __init__(self, source: Source, modalities: Mapping[str, ModalitySpec]):
    n = len(source)
    self._inputs: dict[str, Any] = {
      m: [None] * n if s.ragged else np.empty((n, *s.shape), s.dtype)
      for m, s in modalities.items()
    }
    self._labels, self._ids = np.zeros(n, np.int32), [""] * n
    self._present = {
      m: np.ones(n, np.float32) for m, s in modalities.items() if s.optional
    }
    for i, sample in enumerate(iterated(source)):
      check_sample(sample, modalities)
      for m, array in self._inputs.items():
        array[i] = sample["inputs"][m]
      for m in missing(sample):
        self._inputs[m][i] = nothing(modalities[m])
        self._present[m][i] = 0
      self._labels[i], self._ids[i] = int(sample["label"]), str(sample["id"])
    for m, array in self._inputs.items():
      if modalities[m].ragged:
        self._inputs[m] = Ragged.of(array, modalities[m])
      else:
        array.flags.writeable = False

  @classmethod
  def of(cls, arrays: Arrays) -> Cached:
    """The source with these arrays, which it keeps and freezes."""
    made = cls((), {})
    made._inputs, made._labels, made._ids, made._present = arrays
    for array in made._inputs.values():
      if not isinstance(array, Ragged):
        array.flags.writeable = False
    return made

  @property
  def arrays(self) -> Arrays:
    """All samples."""
    return Arrays(self._inputs, self._labels, self._ids, self._present)

  def __len__(self) -> int:
    return len(self._ids)

  def __getitem__(self, index: int, /) -> Sample:
    inputs = {m: array[index] for m, array in self._inputs.items()}
    label, sample_id = int(self._labels[index]), self._ids[index]
    gone = tuple(m for m, there in self._present.items() if not there[index])
    return sample_of(inputs, label, sample_id, gone)

  def labels(self) -> np.ndarray:
    """The label of every sample."""
    return self._labels

  def lengths(self) -> dict[str, np.ndarray]:
    """The length of every sample of ragged modalities, see ``lengths``."""
    items = self._inputs.items()
    return {m: x.lengths for m, x in items if isinstance(x, Ragged)}

  def take(self, rows: np.ndarray, modalities: Iterable[str]) -> Taken:
    """Several samples at once, see ``Take``."""
    inputs = {}
    for m in modalities:
      own = self._inputs[m]
      inputs[m] = own.take(rows) if isinstance(own, Ragged) else own[rows]
    present = {m: p[rows] for m, p in self._present.items() if m in inputs}
    return Taken(inputs, self._labels[rows], present)


def sample_of(
  inputs: dict[str, np.ndarray],
  label: int,
  sample_id: str,
  missing: Sequence[str] = (),
) -> Sample:
  """A sample as ``Source`` describes it."""
  made: Sample = {"inputs": inputs, "label": label, "id": sample_id}
  return {**made, "missing": tuple(missing)} if missing else made


def nothing(spec: ModalitySpec) -> np.ndarray:
  """What stands in a sample where it lacks the modality.

  Zeros; of a ragged modality no steps.
  """
  shape = (0, *spec.shape[1:]) if spec.ragged else spec.shape
  return np.zeros(shape, spec.dtype)


def missing(sample: Sample) -> tuple[str, ...]:
  """The modalities that a sample lacks."""
  return sample.get("missing", ())


def cache_if_small(
  source: Source,
  modalities: Mapping[str, ModalitySpec],
  limit: int = CACHE_BYTES,
) -> Source:
  """``Cached`` if the decoded split takes at most ``limit`` bytes."""
  size = len(source) * sum(s.nbytes for s in modalities.values())
  return Cached(source, modalities) if size <= limit else source


def in_memory(source: Source) -> Take | None:
  """How to take many samples at once; ``None`` if they are not in memory."""
  return getattr(source, "take", None)


def labels(source: Source) -> np.ndarray:
  """The label of every sample of a split, int [n], in its order."""
  known = getattr(source, "labels", None)
  if known is not None:
    return known()
  found = (int(source[i]["label"]) for i in range(len(source)))
  return np.fromiter(found, np.int32, len(source))


def lengths(
  source: Source, modalities: Mapping[str, ModalitySpec]
) -> dict[str, np.ndarray]:
  """{ragged modality: steps of every sample of a split, int [n]}."""
  ragged = [m for m, spec in modalities.items() if spec.ragged]
  known = getattr(source, "lengths", None)
  found = (known() or {}) if ragged and known is not None else {}
  unknown_yet = [m for m in ragged if m not in found]
  if unknown_yet:
    rows = [
      [m not in missing(x) and len(x["inputs"][m]) for m in unknown_yet]
      for x in (source[i] for i in range(len(source)))
    ]
    found = {**found, **dict(zip(unknown_yet, np.array(rows).T, strict=True))}
  return {m: np.asarray(found[m], np.int64) for m in ragged}


def check_sample(
  sample: Sample, modalities: Mapping[str, ModalitySpec]
) -> None:
  """Raises ``ValueError`` if a sample does not match its spec."""
  for m, spec in modalities.items():
    array = sample["inputs"].get(m)
    if array is None:
      raise InputError(f"sample {sample['id']!r} has no modality {m!r}")
    if not spec.fits(array.shape) or array.dtype != spec.dtype:
      raise InputError(
        f"sample {sample['id']!r}, modality {m!r}: {array.dtype} of shape "
        f"{array.shape}; its spec says {spec.dtype} of shape {spec.shape}"
      )
  for m in missing(sample):
    if m in modalities and not modalities[m].optional:
      raise InputError(
        f"sample {sample['id']!r} lacks modality {m!r}, which its spec does "
        "not allow: give the spec optional=True"
      )
