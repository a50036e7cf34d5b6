"""Preparing a data set of clips, whatever is made of each clip.

A data set says which samples there are (``samples.DataSet``); a subclass of
``Preparing`` says what of them is stored.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import raw, storage, summary
from data_pipelines.core.progress import progress
from data_pipelines.errors import InputError
from data_pipelines.sets._audio_video import media
from data_pipelines.sets._audio_video import split as split_rules
from data_pipelines.sets._audio_video.samples import DataSet, Samples

KEPT = "are damaged or silent, and kept"


@dataclasses.dataclass(frozen=True)
class Preparing:
  """The prepared data of a data set under some settings.

  Attributes:
    about: the data set.
    data_dir: folder of all prepared data.
    settings: how clips are stored; a dataclass.
    raw: folder of the download; may be empty if the data are prepared.
    workers: processes that decode; 0 is this one, -1 one a core.
  """

  about: DataSet
  data_dir: str | os.PathLike
  settings: Any
  raw: str
  workers: int

  def __post_init__(self):
    """Checks the settings; without it here, none of a subclass would run."""
    raise NotImplementedError

  def make(self) -> Callable[[Any], raw.Fields]:
    """The function of a clip that decodes it, for ``raw.Decoding``."""
    raise NotImplementedError

  def features(self) -> dict[str, Any]:
    """{field: feature} of a stored clip, besides ``id`` and ``label``."""
    raise NotImplementedError

  def record(self, fields: raw.Fields) -> dict[str, Any]:
    """{field: value} of what was decoded."""
    raise NotImplementedError

  @property
  def folder(self) -> pathlib.Path:
    """Their folder, which depends on settings and data set."""
    known = [dataclasses.asdict(self.settings), *self.about.identity()]
    code = split_rules.digest(json.dumps(known, sort_keys=True)).hex()[:8]
    name = f"{self.about.name}-{code}"
    return storage.folder_of(self.data_dir, name, self.about.version)

  def prepare(self) -> summary.PreparedSummary:
    """Decodes and stores all clips; intact data are left alone.

    Raises:
      ValueError: no raw folder is named.
      core.DataError: it holds no clips, or none that can be used in some
        split; a list cannot be read; the data cannot be written.
    """
    folder = self.folder
    if storage.problem_of(folder) is None:
      return summary.PreparedSummary.read(folder)
    if not self.raw:
      raise InputError(
        f"{self.about.name} has to be downloaded by you: name the folder with "
        f"--config.data.raw=FOLDER; it should hold {self.about.layout}"
      )
    return storage.once(folder, self._prepare)

  def _prepare(self) -> summary.PreparedSummary:
    folder = self.folder
    there = self.about.samples(pathlib.Path(self.raw).expanduser())
    clips, problems = there.clips, there.problems
    work = self._decoding(folder.parent / "work")
    ids, bad = work.decode(clips, f"decoding {self.about.name}")
    problems += [*bad, *_remarks(work, ids)]
    splits, notes = _splits(there, ids)
    work.require(splits, f"{self.raw} (split {self.about.rule!r})", problems)
    counts = {
      s: dict(collections.Counter(clips[i].label for i in members))
      for s, members in splits.items()
    }
    made = summary.PreparedSummary(
      self.about.name,
      str(folder),
      counts,
      (*raw.summary(problems), *there.differences, *self._differences(counts)),
      there.versions,
      (*there.notes, *notes),
    )
    self._write(made, splits, clips, work, problems)
    work.clear()
    return made

  def _decoding(self, folder: pathlib.Path) -> raw.Decoding[Any]:
    workers = (os.cpu_count() or 1) if self.workers < 0 else self.workers
    return raw.Decoding(self.make(), folder, repr(self.settings), workers)

  def _differences(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Differences from the paper's numbers."""
    said, have = [], collections.Counter()
    for split in counts.values():
      have.update(split)
    for label, want in self.about.expected.items():
      if have[label] != want:
        said.append(f"{label}: {have[label]} clips instead of {want}")
    sizes = self.about.sizes
    held = [s for s in core.SPLITS if s not in sizes]
    for split, want in sizes.items():
      parts = ["train", *held] if split == "train" else [split]
      total = sum(sum(counts[p].values()) for p in parts)
      if total != want:
        names = ", ".join(parts)
        said.append(f"{names}: {total} clips instead of the paper's {want}")
    lost = sorted(have.keys() - counts["train"].keys())
    if lost:
      text = f"{len(lost)} classes have no clip in train, the first: {lost[0]}"
      said.append(text)
    return said

  def _write(self, made, splits, clips, work, problems) -> None:
    import tensorflow_datasets as tfds

    features = {
      "id": tfds.features.Text(),
      "label": tfds.features.ClassLabel(names=list(made.classes)),
      **self.features(),
    }

    def examples(split: str, members: list[str]):
      for i in progress(members, f"storing {split}", len(members)):
        label = clips[i].label
        yield i, {"id": i, "label": label, **self.record(work.read(i))}

    pairs = {s: examples(s, members) for s, members in splits.items()}
    extra = {raw.FILE: raw.table(problems)}
    storage.write(self.folder, features, pairs, made, extra)

  def ready(self) -> pathlib.Path:
    """The folder of intact data; they are prepared first if need be.

    Raises:
      ValueError, core.DataError: as ``prepare``; or the data are damaged.
    """
    if not self.folder.exists():
      self.prepare()
    storage.check(self.folder)
    return self.folder


def check(name: str, value: float, low: float, high: float) -> None:
  """Checks an option; all but ``seconds`` are whole numbers.

  Raises:
    ValueError: it is out of its range.
  """
  whole = isinstance(value, int) and not isinstance(value, bool)
  if not (whole or name == "seconds") or not low <= value <= high:
    raise InputError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")


def _splits(
  there: Samples, ids: Sequence[str]
) -> tuple[dict[str, list[str]], list[str]]:
  """{split: ids of decoded clips}, and notes."""
  split_of, notes = {i: there.clips[i].split for i in ids}, []
  if there.few is not None and not {*split_of.values()} >= {*core.SPLITS}:
    split_of = there.few(ids)
    notes = ["too many clips are absent to hold out the usual ones"]
  splits: dict[str, list[str]] = {s: [] for s in core.SPLITS}
  for i in ids:
    splits[split_of[i]].append(i)
  return splits, notes


def _remarks(work: raw.Decoding, ids: Sequence[str]) -> list[raw.Defect]:
  """Defects of decoded clips that are not as they should be."""
  found = []
  for i in ids:
    with np.load(work.path(i), allow_pickle=False) as fields:
      if media.REMARKS in fields.files:
        text = fields[media.REMARKS].tobytes().decode()
        found.append(raw.Defect(i, KEPT, text))
  return found
