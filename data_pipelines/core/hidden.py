r"""Modalities hidden at random, for experiments with missing ones.

``data.drop=image:0.5+text:0.3`` hides the image of half of the samples and the
text of three in ten, in every data set. Which ones is a function of
``data.drop_seed``, the split and the position in it alone, so all methods see
the same. A sample never loses all that it has: modalities are hidden
independently, given that one is left. With rates r_m and M modalities the
chances p_m of the independent draws solve

.. math:: r_m = p_m \frac{1 - \prod_{j \ne m} p_j}{1 - \prod_j p_j}

so that the rates hold nevertheless. They can if they sum to less than M - 1. Of
a sample that lacked modalities before, and would lose the rest, one stays.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.core.dataset import Dataset
from data_pipelines.core.source import (
  Sample,
  Source,
  Take,
  Taken,
  in_memory,
  labels,
  missing,
  sample_of,
)
from data_pipelines.core.spec import SPLITS, ModalitySpec
from data_pipelines.errors import InputError, unknown

FIELD = "data.drop"
_HOW = "give modality:rate, several joined by +, as image:0.5+text:0.3"
_ROUNDS, _CLOSE = 10_000, 1e-12
_CHUNK = 256  # samples


def rates(text: str) -> dict[str, float]:
  """{modality: share of the samples that lose it}; those of rate 0 left out.

  Args:
    text: the field ``data.drop``.

  Raises:
    ValueError: it is no list of rates in [0, 1).
  """
  found: dict[str, float] = {}
  for part in text.split("+") if text.strip() else ():
    name, colon, rate = (x.strip() for x in part.rpartition(":"))
    if not colon or not name:
      raise InputError(f"{FIELD} has {part.strip()!r} without a rate: {_HOW}")
    if name in found:
      raise InputError(f"{FIELD} names {name!r} twice")
    found[name] = _rate(name, rate)
  return {m: r for m, r in found.items() if r}


def to_text(table: Mapping[str, float]) -> str:
  """A dictionary of rates as the text that ``rates`` reads.

  Raises:
    ValueError: as ``rates``.
  """
  return "+".join(f"{m}:{_rate(m, r)!r}" for m, r in table.items())


def _rate(name: str, given: object) -> float:
  try:
    if isinstance(given, bool):
      raise TypeError
    rate = float(given)  # pyright: ignore[reportArgumentType]
  except (TypeError, ValueError):
    raise InputError(
      f"{FIELD}: the rate of {name!r} is no number, {given!r}: {_HOW}"
    ) from None
  if not 0 <= rate < 1:
    raise InputError(
      f"{FIELD}: the rate of {name!r} must lie in [0, 1), got {given}"
    )
  return rate


def splits_of(text: str) -> tuple[str, ...]:
  """The splits that the field ``data.drop_splits`` names; empty is all.

  Raises:
    ValueError: an unknown split.
  """
  names = [x.strip() for x in text.split("+")] if text.strip() else SPLITS
  for name in names:
    if name not in SPLITS:
      raise unknown("split of data.drop_splits", name, SPLITS)
  return tuple(names)


def hide(
  dataset: Dataset, drop: str, seed: int = 0, splits: str = ""
) -> Dataset:
  """The data set with modalities hidden; itself if all rates are 0.

  Args:
    dataset: with all its modalities.
    drop: the rates, see ``rates``.
    seed: of the choice of samples, at least 0.
    splits: those to hide in, joined by ``+``; empty is all.

  Raises:
    ValueError: an unknown modality or split, a rate out of range, or rates that
      leave some samples with nothing.
  """
  found, chosen = rates(drop), splits_of(splits)
  if seed < 0:
    raise InputError(f"data.drop_seed must be at least 0, got {seed}")
  specs = dataset.spec.modalities
  for m in found:
    if m not in specs:
      raise unknown(f"modality of {FIELD}", m, specs)
  if not found:
    return dataset
  chances = independent([found.get(m, 0.0) for m in specs])

  def optional(given: Mapping[str, ModalitySpec]) -> dict[str, ModalitySpec]:
    return {
      m: dataclasses.replace(s, optional=s.optional or m in found)
      for m, s in given.items()
    }

  return dataclasses.replace(
    dataset,
    spec=dataclasses.replace(dataset.spec, modalities=optional(specs)),
    decoded=optional(dataset.decoded),
    sources={
      split: _Hidden(
        source,
        specs,
        _plan(len(source), chances, specs, seed, split)
        if split in chosen
        else {m: np.zeros(len(source), bool) for m in found},
      )
      for split, source in dataset.sources.items()
    },
  )


def independent(wanted: Sequence[float]) -> np.ndarray:
  """Chances p [M] of independent draws with the rates r [M], see the module.

  Raises:
    ValueError: the rates sum to M - 1 or more.
  """
  r = np.asarray(wanted, np.float64)
  most = len(r) - 1
  if (r > 0).all() and r.sum() >= most - 1e-9:
    raise InputError(
      f"{FIELD}: each sample keeps one of its {len(r)} modalities, so the "
      f"rates must sum to less than {most}, got {r.sum():g}"
    )
  p = r.copy()
  for _ in range(_ROUNDS):
    before = p.copy()
    for m in range(len(p)):
      others = np.prod(np.delete(p, m))
      p[m] = r[m] / (1 - others + r[m] * others)
    if np.abs(p - before).max() < _CLOSE:
      break
  return p


def _plan(
  count: int,
  chances: np.ndarray,
  modalities: Iterable[str],
  seed: int,
  split: str,
) -> dict[str, np.ndarray]:
  """{modality: whether it is hidden, [count]}, never all of a sample.

  A sample's draws are repeated until one is left.
  """
  rng = np.random.default_rng([seed, SPLITS.index(split)])
  hidden = rng.random((count, len(chances))) < chances
  while (bad := hidden.all(axis=1)).any():
    hidden[bad] = rng.random((int(bad.sum()), len(chances))) < chances
  columns = zip(modalities, chances, hidden.T, strict=True)
  return {m: column for m, p, column in columns if p > 0}


class _Hidden:
  """A source with modalities of some samples hidden.

  Args:
    source: the samples.
    modalities: all that they have.
    hidden: {modality: whether it is hidden, [n]}.
  """

  def __init__(
    self,
    source: Source,
    modalities: Iterable[str],
    hidden: dict[str, np.ndarray],
  ):
    self._source, self._all = source, tuple(modalities)
    self._hidden, self.take = hidden, None
    whole = in_memory(source)
    if whole is not None:
      self._settle(whole)
      self.take = functools.partial(self._take, whole)

  def __len__(self) -> int:
    return len(self._source)

  def labels(self) -> np.ndarray:
    return labels(self._source)

  def lengths(self) -> dict[str, np.ndarray]:
    """Of ragged modalities, as far as the source knows, see ``lengths``."""
    found = getattr(self._source, "lengths", None)
    return dict(found() or {}) if found is not None else {}

  def __getitem__(self, index: int, /) -> Sample:
    sample = self._source[index]
    inputs, known = dict(sample["inputs"]), missing(sample)
    lost = self._lost(index, known)
    for m in lost:
      inputs[m] = np.zeros_like(inputs[m])
    gone = [m for m in inputs if m in known or m in lost]
    return sample_of(inputs, sample["label"], sample["id"], gone)

  def _lost(self, index: int, known: Collection[str]) -> list[str]:
    """What a sample loses that lacks ``known``; one modality stays."""
    own = [m for m, h in self._hidden.items() if h[index] and m not in known]
    if own and len(own) + len(known) == len(self._all):
      del own[index % len(own)]
    return own

  def _settle(self, whole: Take) -> None:
    """Enters into ``hidden`` what stays, so that batches need not ask."""
    self._hidden = {m: h.copy() for m, h in self._hidden.items()}
    for start in range(0, len(self), _CHUNK):
      rows = np.arange(start, min(start + _CHUNK, len(self)))
      present = whole(rows, self._all).present
      if not present:
        return
      for i, index in enumerate(rows):
        known = [m for m, there in present.items() if not there[i]]
        lost = self._lost(int(index), known)
        for m in self._hidden:
          self._hidden[m][index] = m in lost

  def _take(
    self, whole: Take, rows: np.ndarray, modalities: Iterable[str]
  ) -> Taken:
    inputs, labels, present = whole(rows, modalities)
    for m in inputs:
      if m in self._hidden:
        lost = self._hidden[m][rows]
        _empty(inputs[m], lost)
        there = present.get(m, np.ones(len(rows), np.float32))
        present[m] = np.where(lost, np.float32(0), there)
    return Taken(inputs, labels, present)


def _empty(x: Any, lost: np.ndarray) -> None:
  """Rows of an array to zero, samples of a ragged modality to no steps."""
  if isinstance(x, list):
    for row in np.flatnonzero(lost):
      x[row] = x[row][:0]
  else:
    x[lost] = 0
