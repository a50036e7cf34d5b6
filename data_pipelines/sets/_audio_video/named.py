"""Data sets whose clips are described by names, folders, or lists of yours."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from data_pipelines.core import raw
from data_pipelines.errors import DataError
from data_pipelines.sets._audio_video import files, media
from data_pipelines.sets._audio_video import split as split_rules
from data_pipelines.sets._audio_video.samples import Samples

_NO_CLASS = (
  "no folder above it is named like a class, and no lists are named with "
  "--config.data.annotations"
)


@dataclasses.dataclass(frozen=True)
class NamedSet:
  """The properties of one data set of clips; see ``samples.DataSet``.

  Attributes:
    name: of the data set.
    version: of the prepared data.
    rule: name of the rule of splitting.
    annotations: folder of the user's own lists, or empty.
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
  rule: str
  annotations: str
  key: files.Key
  label: Callable[[str, pathlib.Path], str | None]
  split: Callable[[str], str]
  shares: split_rules.Shares
  lists: Mapping[str, str]
  classes: tuple[str, ...]
  expected: Mapping[str, int]
  sizes: Mapping[str, int]
  layout: str

  def identity(self) -> list[Any]:
    """The rule, and {list: hash}."""
    lists = {
      name: hashlib.sha256(path.read_bytes()).hexdigest()
      for name in sorted(self.lists.values())
      if (path := pathlib.Path(self.annotations, name)).is_file()
      and self.annotations
    }
    return [self.rule, lists]

  def samples(self, folder: pathlib.Path) -> Samples:
    """The clips with files below ``folder``, and the defects of the rest.

    Raises:
      core.DataError: there are no clips, or a list cannot be read.
    """
    found = files.find(folder, self.key)
    if not found.ids:
      raise DataError(
        f"{folder} holds no clips of {self.name}: it should hold {self.layout}"
      )
    labels, problems = self._labels(found)
    if self.annotations:
      labels, splits, wrong = self._listed(labels)
      problems += wrong
    else:
      splits = {i: self.split(i) for i in labels}
    splits = split_rules.hold_out(labels, splits, self.shares)
    clips = {}
    for i, label in labels.items():
      lack = files.lack(found, i)
      if lack:
        problems.append(raw.Defect(i, raw.MISSING, lack))
        continue
      clips[i] = media.Clip(label, splits[i], found.heard(i), found.shown(i))
    done = {*clips, *_samples(problems)}
    why = "it is in no list" if self.annotations else _NO_CLASS
    problems += [
      raw.Defect(i, raw.SKIPPED, f"{found.path(i)}: {why}")
      for i in found.ids
      if i not in done
    ]
    return Samples(clips, problems + files.unused(found))

  def _labels(self, found: files.Found):
    """Classes by names and folders; a defect if two classes claim a clip.

    With lists that is no defect, as they decide.
    """
    label = self.label
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
      pathlib.Path(self.annotations), self.lists, self.key
    )
    meaning = files.meanings(rows, known, self.classes)
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


def _samples(problems: Iterable[raw.Defect]) -> set[str]:
  return {problem.sample for problem in problems}
