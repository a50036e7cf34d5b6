"""Data sets whose lists name clips, classes and splits, and come with them."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from data_pipelines.core import SPLITS, raw
from data_pipelines.errors import DataError
from data_pipelines.sets._audio_video import files, media
from data_pipelines.sets._audio_video import split as split_rules
from data_pipelines.sets._audio_video.samples import Samples

# A clip that is in two lists by mistake is for testing.
_ORDER = ("test", "val", "train")


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of a list.

  Attributes:
    clip: id of its clip.
    label: its class.
    split: of the list, or of the row.
    place: file and line, for messages.
  """

  clip: str
  label: str
  split: str
  place: str


@dataclasses.dataclass(frozen=True)
class Listing:
  """All lists.

  Attributes:
    rows: {id of a sample: row}.
    problems: defects of the other rows.
    notes: one sentence each.
    key: of files.
    versions: {list: hash of its text}.
  """

  rows: dict[str, Row]
  problems: list[raw.Defect]
  notes: tuple[str, ...]
  key: files.Key
  versions: dict[str, str]


def listing(
  rows: Iterable[Row],
  problems: Iterable[raw.Defect],
  key: files.Key,
  versions: Mapping[str, str],
) -> Listing:
  """The samples of rows: a clip with several classes is one of each.

  Such samples have the class behind the clip's id. A clip that is listed again
  with its class is a defect.
  """
  found = sorted(rows, key=lambda row: _ORDER.index(row.split))
  problems, used = list(problems), {}
  for row in found:
    first = used.setdefault((row.clip, row.label), row)
    if first is not row:
      text = f"{row.place}: {row.clip} is in {first.place}, too"
      problems.append(raw.Defect(row.clip, raw.SKIPPED, text))
  splits = collections.defaultdict(list)
  for row in used.values():
    splits[row.clip].append(row.split)
  samples = {
    (row.clip if len(splits[row.clip]) == 1 else f"{row.clip} {row.label}"): row
    for row in used.values()
  }
  several = [s for s in splits.values() if len(s) > 1]
  notes = ()
  if several:
    apart = sum(len({*s}) > 1 for s in several)
    notes = (
      f"{len(several)} clips are listed with more than one class, {apart} of "
      "them in more than one split: each row is a sample, as published",
    )
  return Listing(samples, problems, notes, key, dict(versions))


def text_of(folder: pathlib.Path, name: str) -> str:
  """The text of a list in a folder, or in a folder in that one.

  Raises:
    DataError: there is none, or it is no text in UTF-8.
  """
  path = find(folder, name)
  if path is None:
    raise DataError(
      f"there is no list {name} in {folder}: put it there, or name its folder "
      "with --config.data.annotations"
    )
  return files.text_of(path)


def find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  """The file of that name in a folder, or in a folder in that one.

  Raises:
    DataError: there is no such folder.
  """
  if not folder.is_dir():
    raise DataError(f"there is no folder {folder}: give that of the download")
  paths = [folder / name, *sorted(folder.glob(f"*/{name}"))]
  return next((p for p in paths if p.is_file()), None)


def version(text: str) -> str:
  """A short hash of a list."""
  return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class ListedSet:
  """The properties of one data set of clips; see ``samples.DataSet``.

  Attributes:
    name: of the data set.
    version: of the prepared data.
    rule: name of the split.
    annotations: folder of the lists; empty is that of the download.
    read: folder of the lists -> listing.
    shares: class -> {split: share of train to hold out}.
    classes: number of them in the published lists.
    sizes: rows of the published splits.
    layout: what the raw folder should hold, for messages.
  """

  name: str
  version: str
  rule: str
  annotations: str
  read: Callable[[pathlib.Path], Listing]
  shares: split_rules.Shares
  classes: int
  sizes: Mapping[str, int]
  layout: str

  @property
  def expected(self) -> Mapping[str, int]:
    return {}

  def identity(self) -> list[Any]:
    """The rule: lists belong to the download, which may be gone."""
    return [self.rule]

  def samples(self, folder: pathlib.Path) -> Samples:
    """The rows of the lists with files below ``folder``.

    Raises:
      core.DataError: a list is absent or cannot be read, or there are no clips.
    """
    there = self.read(pathlib.Path(self.annotations or folder).expanduser())
    found = files.find(folder, there.key)
    present = {*found.ids}
    have = {i for i, row in there.rows.items() if row.clip in present}
    if not have:
      raise DataError(
        f"{folder} holds no clips of the lists of {self.name}: it should hold "
        f"{self.layout}"
      )
    splits = self._splits(there.rows)
    clips, problems = {}, list(there.problems)
    for i, row in there.rows.items():
      lack = files.lack(found, row.clip) if i in have else _gone(row)
      if lack:
        problems.append(raw.Defect(i, raw.MISSING, lack))
      else:
        heard, shown = found.heard(row.clip), found.shown(row.clip)
        clips[i] = media.Clip(row.label, splits[i], heard, shown)
    problems += files.unused(found, "it is no clip of the lists")
    return Samples(
      clips,
      problems,
      differences(there.rows.values(), self.sizes, self.classes),
      there.notes,
      there.versions,
      lambda ids: self._splits_of_few({i: there.rows[i] for i in ids}),
    )

  def _splits(self, rows: Mapping[str, Row]) -> dict[str, str]:
    """{sample: split}; clips that are listed again are not held out.

    Of all rows, so that it does not depend on the clips that are there.
    """
    return split_rules.hold_out(
      {i: row.label for i, row in rows.items()},
      {i: row.split for i, row in rows.items()},
      self.shares,
      _again(rows),
    )

  def _splits_of_few(self, rows: Mapping[str, Row]) -> dict[str, str]:
    """As ``_splits``, for so few clips that it leaves a split empty."""
    held = [s for s in SPLITS if s not in self.sizes]
    return split_rules.fill(self._splits(rows), held, _again(rows))


def _gone(row: Row) -> str:
  return f"{row.place}: there is no file of {row.clip}"


def _again(rows: Mapping[str, Row]) -> set[str]:
  """Samples whose clip has another one."""
  times = collections.Counter(row.clip for row in rows.values())
  return {i for i, row in rows.items() if times[row.clip] > 1}


def differences(
  rows: Iterable[Row], sizes: Mapping[str, int], classes: int
) -> tuple[str, ...]:
  """Differences of lists from the published ones, a sentence each.

  Args:
    rows: of the lists.
    sizes: {split: published rows}.
    classes: published number.
  """
  rows = list(rows)
  found = collections.Counter(row.split for row in rows)
  said = [
    f"the lists have {found[split]} rows for {split} instead of {want}"
    for split, want in sizes.items()
    if found[split] != want
  ]
  named = len({row.label for row in rows})
  if named != classes:
    said.append(f"the lists name {named} classes instead of {classes}")
  return tuple(said)
