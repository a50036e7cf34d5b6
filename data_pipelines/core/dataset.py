"""What a data set is.

Samples pass through a chain of sources: stored records, ``Decoded`` on access,
``Cached`` if they fit into memory. A decoded sample may be larger than the one
in a batch (``Dataset.decoded``): ``augment`` in training and ``view`` in
evaluation cut it to size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from data_pipelines.core.sequences import Ragged
from data_pipelines.errors import InputError, unknown

SPLITS = ("train", "outer", "val", "test")
KINDS = ("image", "text", "audio", "video", "array", "waveform")
CACHE_BYTES = 2**30  # decoded splits up to this size are kept in memory

Sample = dict[str, Any]
Augment = Callable[[np.random.Generator, np.ndarray], np.ndarray]
View = Callable[[np.ndarray], np.ndarray]
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


@dataclasses.dataclass(frozen=True)
class ModalitySpec:
  """One modality of a sample, as the batch holds it.

  Attributes:
    kind: one of ``KINDS``.
    shape: of one sample: image [h w c], video [t h w c], text [t],
      waveform [t].
    dtype: image, video ``uint8``, text ``int32`` word numbers.
    vocab_size: text only: number of different word numbers, special ones too.
    optional: whether samples may lack the modality, see ``Batch.present``.
    buckets: of a *ragged* modality, whose samples [t ...] differ in t: lengths
      that batches are padded to, see ``sequences``. ``shape`` begins with the
      largest.
    steps: ragged only: mean t of a sample.
  """

  kind: str
  shape: tuple[int, ...]
  dtype: npt.DTypeLike
  vocab_size: int | None = None
  optional: bool = False
  buckets: tuple[int, ...] = ()
  steps: float = 0.0

  def __post_init__(self):
    if self.kind not in KINDS:
      raise unknown("kind of modality", self.kind, KINDS)
    object.__setattr__(self, "buckets", tuple(self.buckets))
    if self.buckets and (
      list(self.buckets) != sorted(self.buckets)
      or not self.shape
      or self.shape[0] != self.buckets[-1]
    ):
      raise InputError(
        f"buckets {self.buckets} must rise to the first number of the shape "
        f"{tuple(self.shape)}"
      )
    object.__setattr__(self, "dtype", np.dtype(self.dtype))
    object.__setattr__(self, "shape", tuple(self.shape))

  @property
  def nbytes(self) -> int:
    """Bytes of one sample, of a mean one if they differ in length."""
    steps = [self.steps or self.shape[0]] if self.buckets else self.shape[:1]
    size = np.prod([*steps, *self.shape[1:]], dtype=np.float64)
    return int(size) * np.dtype(self.dtype).itemsize

  @property
  def ragged(self) -> bool:
    """Whether samples differ in length."""
    return bool(self.buckets)

  def fits(self, shape: tuple[int, ...]) -> bool:
    """Whether a sample may have this shape."""
    if self.ragged:
      return len(shape) > 0 and shape[1:] == self.shape[1:]
    return shape == self.shape


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
