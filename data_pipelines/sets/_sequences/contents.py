"""What pickles of feature sequences hold, sample by sample.

A pickle is ``{"train": part, "valid": part, "test": part}``, and a part is

=================  ============================================================
text, audio,       [n t d] numbers, or n arrays [t d]
vision
regression_labels  [n], or ``labels`` [n 1 1]: sentiment from -3 to 3
id                 n texts, or n rows (film, begin, end)
raw_text           n texts; optional
audio_lengths,     n numbers of steps, and ``text_bert`` [n 3 t], whose second
vision_lengths     row is 1 where there are words; optional
=================  ============================================================

as MMSA (first names) and MulT write them.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.core import raw
from data_pipelines.errors import DataError, InputError
from data_pipelines.sets._sequences import pickled

MODALITIES = ("text", "audio", "vision")
FORMS = ("aligned", "unaligned")
_PARTS = {
  "test": ("test",),
  "val": ("valid", "val", "dev", "validation"),
  "train": ("train",),
}  # What repeats an id of an earlier part is left out: test stays whole.
_UNIQUE = 0.9  # share of ids below which they are not those of samples
_LABELS = ("regression_labels", "labels", "label")


@dataclasses.dataclass(frozen=True)
class Opinion:
  """One sample.

  Attributes:
    id: different in each sample.
    score: sentiment, from -3 to 3.
    features: {modality: [t d] numbers, all finite}.
    said: the words; empty if the pickle has none.
  """

  id: str
  score: float
  features: Mapping[str, np.ndarray]
  said: str


@dataclasses.dataclass
class Contents:
  """The samples of a pickle.

  Attributes:
    samples: {split: samples}, splits train, val and test.
    problems: samples that are left out.
    notes: a sentence each.
  """

  samples: dict[str, list[Opinion]]
  problems: list[raw.Defect]
  notes: list[str]


def read(path: pathlib.Path, form: str) -> Contents:
  """The samples of a pickle.

  Args:
    path: of the pickle.
    form: ``aligned``: all steps as they are; ``unaligned``: without padding.

  Raises:
    DataError: it is no pickle, names something that is not admitted, or lacks a
      part or a field.
  """
  content = pickled.read(path)
  if not isinstance(content, dict):
    raise DataError(f"{path} holds no dict, but {type(content).__name__}")
  made = Contents({}, [], [])
  counts: collections.Counter[tuple[str, str]] = collections.Counter()
  seen: dict[str, str] = {}
  for split, names in _PARTS.items():
    name = next((n for n in names if n in content), "")
    if not name:
      there = ", ".join(map(str, content))
      raise DataError(f"{path} has no part {names[0]!r}; it has {there}")
    try:
      part = _Part(content[name], name, form, counts)
    except (ValueError, TypeError) as error:
      raise DataError(f"{path}, part {name!r}: {error}") from error
    made.samples[split] = list(_kept(part, seen, made.problems))
  made.samples = {s: made.samples[s] for s in reversed(made.samples)}
  made.notes += [f"{m}: {n} {what}" for (m, what), n in sorted(counts.items())]
  return made


def _kept(
  part: _Part, seen: dict[str, str], problems: list[raw.Defect]
) -> Iterator[Opinion]:
  """The samples of a part that can be used; ``seen`` is {id: place}."""
  for i in range(len(part)):
    key, where = part.id(i), f"{part.name}, sample {i}"
    try:
      if key in seen:
        raise raw.Skip(f"its id {key!r} is that of {seen[key]}, too")
      sample = part.sample(i)
    except raw.Skip as error:
      problems.append(raw.Defect(key, raw.SKIPPED, f"{where}: {error}"))
    else:
      seen[key] = where
      yield sample


class _Part:
  """A part of a pickle.

  Raises:
    ValueError: fields are absent, of another form, or differ in length.
  """

  def __init__(
    self, part: Any, name: str, form: str, counts: collections.Counter
  ):
    if not isinstance(part, dict):
      raise InputError(f"a {type(part).__name__} in place of a dict")
    self.name, self._counts, self._form = name, counts, form
    self._features = {m: _sequences(part, m) for m in MODALITIES}
    self._scores = _scores(part)
    self._ids = _list(part, "id")
    self._said = _list(part, "raw_text")
    self._steps = _steps(part) if form == "unaligned" else {}
    lengths = {m: len(x) for m, x in self._features.items()}
    lengths |= {"labels": len(self._scores)}
    lengths |= {"id": len(self._ids)} if self._ids else {}
    lengths |= {"raw_text": len(self._said)} if self._said else {}
    lengths |= {f"lengths of {m}": len(x) for m, x in self._steps.items()}
    if len(set(lengths.values())) > 1:
      shown = ", ".join(f"{n} of {field}" for field, n in lengths.items())
      raise InputError(f"fields differ in their number of samples: {shown}")
    self._keys = self._named()

  def __len__(self) -> int:
    return len(self._scores)

  def id(self, i: int) -> str:
    """Of a sample."""
    return self._keys[i]

  def _named(self) -> list[str]:
    """Ids of all samples, with their numbers if films are all that is named."""
    if not self._ids:
      return [f"{self.name}-{i}" for i in range(len(self))]
    keys = list(map(_joined, self._ids))
    if len(set(keys)) >= _UNIQUE * len(keys):
      return keys
    what = f"samples of {self.name} share ids, now numbered"
    self._count("id", what, len(keys))
    return [f"{key}_{i}" for i, key in enumerate(keys)]

  def sample(self, i: int) -> Opinion:
    """A sample.

    Raises:
      raw.Skip: its label or a modality is missing.
    """
    score = float(self._scores[i])
    if not np.isfinite(score):
      raise raw.Skip(f"its label is {score}")
    features = {m: self._finite(m, self._cut(m, i)) for m in MODALITIES}
    said = _text(self._said[i]).strip() if self._said else ""
    return Opinion(self.id(i), score, features, said)

  def _cut(self, modality: str, i: int) -> np.ndarray:
    """The steps of a sample; unaligned without padding."""
    x = self._features[modality][i]
    if self._form == "unaligned" and modality in self._steps:
      steps = int(self._steps[modality][i])
      if steps > len(x):
        self._count(modality, "samples have a length beyond their array's")
      x = x[: max(steps, 0)]
    elif self._form == "unaligned":
      there = np.flatnonzero((x != 0).any(axis=1))
      if len(there):
        x = x[there[0] : there[-1] + 1]
      else:
        self._count(modality, "samples hold only zeros, and keep one step")
        x = x[:1]
    if not x.size:
      raise raw.Skip(f"{modality} has no steps")
    return x

  def _finite(self, modality: str, x: np.ndarray) -> np.ndarray:
    """The same with zeros for what is not finite."""
    good = np.isfinite(x)
    if good.all():
      return x
    if not good.any():
      raise raw.Skip(f"{modality} has no finite number")
    self._count(modality, "samples hold NaN or infinite numbers, now 0")
    self._count(modality, "numbers were NaN or infinite", int((~good).sum()))
    return np.where(good, x, 0)

  def _count(self, modality: str, what: str, number: int = 1) -> None:
    self._counts[modality, what] += number


def _sequences(
  part: Mapping[Any, Any], name: str
) -> Sequence[np.ndarray] | np.ndarray:
  """The arrays [t d] of a modality."""
  if name not in part:
    there = ", ".join(map(str, part))
    raise InputError(f"there is no field {name!r}; there are {there}")
  found = part[name]
  if isinstance(found, np.ndarray) and found.dtype.kind in "biuf":
    if found.ndim != 3:
      raise InputError(
        f"{name} has shape {found.shape}, expected [samples, steps, features]"
      )
    return found
  if not isinstance(found, list | tuple | np.ndarray):
    raise InputError(f"{name} is a {type(found).__name__}, not an array")
  arrays = []
  for i, item in enumerate(found):
    x = np.asarray(item) if isinstance(item, list | np.ndarray) else None
    if x is None or x.dtype.kind not in "biuf" or x.ndim != 2:
      kind = type(item).__name__ if x is None else f"{x.dtype} {x.shape}"
      raise InputError(
        f"{name} is a list whose entry {i} is {kind}, not numbers [steps, "
        "features]"
      )
    arrays.append(x)
  if len({x.shape[1] for x in arrays}) > 1:
    raise InputError(f"{name} is a list of arrays with different features")
  return arrays


def _scores(part: Mapping[Any, Any]) -> np.ndarray:
  """The labels, float [n]; NaN where there is none."""
  field = next((name for name in _LABELS if name in part), "")
  if not field:
    raise InputError(f"there is no field of labels: {', '.join(_LABELS)}")
  found = np.array(part[field], dtype=np.float64)
  if not found.ndim or found.size != len(found):
    raise InputError(
      f"{field} has shape {found.shape}, expected one number a sample"
    )
  return found.reshape(-1)


def _list(part: Mapping[Any, Any], name: str) -> Sequence[Any]:
  found = part.get(name)
  if found is None:
    return ()
  if not isinstance(found, list | tuple | np.ndarray):
    raise InputError(f"{name} is a {type(found).__name__}, not a list")
  return found if isinstance(found, list | tuple) else list(found)


def _steps(part: Mapping[Any, Any]) -> dict[str, np.ndarray]:
  """{modality: steps of each sample}, where the pickle says them."""
  found = {}
  for m in MODALITIES:
    if part.get(f"{m}_lengths") is not None:
      found[m] = np.array(part[f"{m}_lengths"], np.float64).reshape(-1)
  words = part.get("text_bert")
  if "text" not in found and words is not None:
    words = np.asarray(words)
    if words.ndim == 3 and words.shape[1] == 3:
      found["text"] = words[:, 1].sum(axis=1)
  for m, steps in found.items():
    if not np.isfinite(steps).all():
      raise InputError(f"some lengths of {m} are NaN or infinite")
  return found


def _joined(key: Any) -> str:
  """An id as one text, of a text or of several parts."""
  if isinstance(key, np.ndarray):
    key = key.tolist()
  return "_".join(map(_text, key if isinstance(key, list | tuple) else [key]))


def _text(value: Any) -> str:
  return (
    value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
  )
