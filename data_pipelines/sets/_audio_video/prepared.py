"""Data sets of clips with sound and pictures: preparing and loading.

A data set defines the names of its clips and their splits (``DataSet``); the
rest is shared. Frames are stored as JPEG, a seventh larger than requested, and
sound as 16-bit mono; spectrograms and crops are made on access.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from data_pipelines import core
from data_pipelines.core import raw, storage, summary
from data_pipelines.core.progress import progress
from data_pipelines.errors import InputError
from data_pipelines.sets._audio_video import files, media
from data_pipelines.sets._audio_video import load as av_load
from data_pipelines.sets._audio_video import split as split_rules
from data_pipelines.transforms import clips

_NO_CLASS = (
  "no folder above it is named like a class, and no lists are named with "
  "--config.data.annotations"
)
_HELD_OUT = ("train", "outer", "val")  # all of the official training part


@dataclasses.dataclass(frozen=True)
class DataSet:
  """The properties of one data set of clips.

  Attributes:
    name: of the data set.
    version: of the prepared data.
    key: name of a file or folder -> id of its clip.
    label: id and path of a clip -> class, or None if neither names one.
    split: id -> split, without lists; splits that it never returns are held out
      of train.
    shares: class -> {split: share of train to hold out}.
    lists: {split: file name} of the user's own lists.
    classes: all class names.
    expected: {class: clips} of the whole data set; empty if unknown.
    sizes: clips of the official {"train", "test"}; empty for other splits.
    layout: what the raw folder should hold, for messages.
  """

  name: str
  version: str
  key: files.Key
  label: Callable[[str, pathlib.Path], str | None]
  split: Callable[[str], str]
  shares: split_rules.Shares
  lists: Mapping[str, str]
  classes: tuple[str, ...]
  expected: Mapping[str, int]
  sizes: Mapping[str, int]
  layout: str


@dataclasses.dataclass(frozen=True)
class Prepared:
  """The prepared data of a data set under some settings.

  Attributes:
    about: the data set.
    data_dir: folder of all prepared data.
    settings: how clips are stored.
    raw: folder of the download; may be empty if the data are prepared.
    rule: name of the rule of splitting.
    annotations: folder of the user's own lists, or empty.
    workers: processes that decode; 0 is this one, -1 one a core.
  """

  about: DataSet
  data_dir: str | os.PathLike
  settings: media.ClipSettings
  raw: str
  rule: str
  annotations: str
  workers: int

  def __post_init__(self):
    s = self.settings
    _check("frames", s.frames, 1, clips.OF_VIDEO)
    _check("image_size", s.side, 8, 4096)
    _check("sample_rate", s.sample_rate, 1000, 192_000)
    _check("seconds", s.seconds, media.NPERSEG / s.sample_rate, 60)
    _check("workers", self.workers, -1, 1024)

  @property
  def folder(self) -> pathlib.Path:
    """Their folder, which depends on settings and lists."""
    lists = {
      name: hashlib.sha256(path.read_bytes()).hexdigest()
      for name in sorted(self.about.lists.values())
      if (path := pathlib.Path(self.annotations, name)).is_file()
      and self.annotations
    }
    known = [dataclasses.asdict(self.settings), self.rule, lists]
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
    clips, problems = self._clips()
    work = self._media(folder.parent / "work")
    ids, bad = work.decode(clips, f"decoding {self.about.name}")
    problems += bad
    splits: dict[str, list[str]] = {s: [] for s in core.SPLITS}
    for i in ids:
      splits[clips[i].split].append(i)
    work.require(splits, f"{self.raw} (split {self.rule!r})", problems)
    counts = {
      s: dict(collections.Counter(clips[i].label for i in members))
      for s, members in splits.items()
    }
    said = (*raw.summary(problems), *self._differences(counts))
    made = summary.PreparedSummary(self.about.name, str(folder), counts, said)
    self._write(made, splits, clips, work, problems)
    work.clear()
    return made

  def _media(self, folder: pathlib.Path) -> raw.Decoding[media.Clip]:
    make = functools.partial(media.make, settings=self.settings)
    workers = (os.cpu_count() or 1) if self.workers < 0 else self.workers
    return raw.Decoding(make, folder, repr(self.settings), workers)

  def _clips(self) -> tuple[dict[str, media.Clip], list[raw.Defect]]:
    """{id: clip} of clips with files, and the defects of the rest."""
    about = self.about
    found = files.find(pathlib.Path(self.raw).expanduser(), about.key)
    if not found.ids:
      raise core.DataError(
        f"{self.raw} holds no clips of {about.name}: it should hold "
        f"{about.layout}"
      )
    labels, problems = self._labels(found)
    if self.annotations:
      labels, splits, wrong = self._listed(labels)
      problems += wrong
    else:
      splits = {i: about.split(i) for i in labels}
    splits = split_rules.hold_out(labels, splits, about.shares)
    clips = {}
    for i, label in labels.items():
      lack = files.lack(found, i)
      if lack:
        problems.append(raw.Defect(i, raw.MISSING, lack))
        continue
      shown = found.pictures.get(i) or found.videos[i]
      heard = found.sounds.get(i) or found.videos[i]
      clips[i] = media.Clip(label, splits[i], str(heard), str(shown))
    done = {*clips, *_samples(problems)}
    why = "it is in no list" if self.annotations else _NO_CLASS
    problems += [
      raw.Defect(i, raw.SKIPPED, f"{found.path(i)}: {why}")
      for i in found.ids
      if i not in done
    ]
    return clips, problems + files.unused(found)

  def _labels(self, found: files.Found):
    """Classes by names and folders; a defect if two classes claim a clip.

    With lists that is no defect, as they decide.
    """
    label = self.about.label
    labels = {i: label(i, found.path(i)) for i in found.ids}
    problems = [
      raw.Defect(i, raw.SKIPPED, f"{path} and {used} are of two classes")
      for i, path, used in found.twice
      if label(i, path) != label(i, used)
    ]
    bad = _samples(problems)
    labels = {i: c for i, c in labels.items() if c is not None and i not in bad}
    return labels, [] if self.annotations else problems

  def _listed(self, known: Mapping[str, str]):
    """Classes and splits by the user's lists, and defects of their rows."""
    rows, problems = files.read_lists(
      pathlib.Path(self.annotations), self.about.lists, self.about.key
    )
    meaning = files.meanings(rows, known, self.about.classes)
    labels, splits = {}, {}
    for i, row in rows.items():
      label = meaning.get(row.label)
      if label is None or known.get(i, label) != label:
        why = f"but {known[i]!r} by its name" if label else "which is no class"
        text = f"{row.place}: {i} is {row.label!r}, {why}"
        problems.append(raw.Defect(i, raw.SKIPPED, text))
      else:
        labels[i], splits[i] = label, row.split
    return labels, splits, problems

  def _differences(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Differences from the paper's numbers."""
    said, have = [], collections.Counter()
    for split in counts.values():
      have.update(split)
    for label, want in self.about.expected.items():
      if have[label] != want:
        said.append(f"{label}: {have[label]} clips instead of {want}")
    for split, want in self.about.sizes.items():
      parts = _HELD_OUT if split == "train" else (split,)
      total = sum(sum(counts[p].values()) for p in parts)
      if total != want:
        names = ", ".join(parts)
        said.append(f"{names}: {total} clips instead of the paper's {want}")
    return said

  def _write(self, made, splits, clips, work, problems) -> None:
    import tensorflow_datasets as tfds

    side = self.settings.side
    picture = tfds.features.Image(shape=(side, side, 3), encoding_format="jpeg")
    names = [f"frame_{i}" for i in range(self.settings.frames)]
    features = {
      "id": tfds.features.Text(),
      "label": tfds.features.ClassLabel(names=list(made.classes)),
      "wave": tfds.features.Tensor(shape=(None,), dtype=np.int16),
      **dict.fromkeys(names, picture),
    }

    def examples(split: str, members: list[str]):
      for i in progress(members, f"storing {split}", len(members)):
        fields = work.read(i)
        frames = {n: fields[n].tobytes() for n in names}
        label = clips[i].label
        yield i, {"id": i, "label": label, "wave": fields["wave"], **frames}

    pairs = {s: examples(s, members) for s, members in splits.items()}
    extra = {raw.FILE: raw.table(problems)}
    storage.write(self.folder, features, pairs, made, extra)

  def load(self, image_size: int) -> core.Dataset:
    """Loads the data set and prepares it first if need be.

    Raises:
      ValueError, core.DataError: as ``prepare``; or the data are damaged.
    """
    if not self.folder.exists():
      self.prepare()
    storage.check(self.folder)
    return av_load.assemble(
      self.about.name, self.folder, self.settings, image_size
    )


def _check(name: str, value: float, low: float, high: float) -> None:
  whole = isinstance(value, int) and not isinstance(value, bool)
  if not (whole or name == "seconds") or not low <= value <= high:
    raise InputError(f"{name} must lie in [{low:g}, {high:g}], got {value!r}")


def _samples(problems: Iterable[raw.Defect]) -> set[str]:
  return {problem.sample for problem in problems}
