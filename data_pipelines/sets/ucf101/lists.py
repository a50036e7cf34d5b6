"""UCF-101's lists: three splits, each of clips to train with and to test."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from data_pipelines.core import raw
from data_pipelines.errors import DataError
from data_pipelines.sets._audio_video import files, listed
from data_pipelines.sets._audio_video import split as split_rules
from data_pipelines.sets._audio_video.samples import Samples
from data_pipelines.sets.ucf101 import found as ucf_files
from data_pipelines.sets.ucf101.media import FlowClip

# {number of the split: published rows}.
SIZES = {
  1: {"train": 9537, "test": 3783},
  2: {"train": 9586, "test": 3734},
  3: {"train": 9624, "test": 3696},
}
CLASSES = 101
FLOWS = ("auto", "dis", "files")
INDEX = "classInd.txt"
_ROW = re.compile(
  r"(?:.*/)?([^/]+)/(v_[^/]+_g[0-9]+_c[0-9]+)(?i:\.avi)(?:\s+(\d+))?"
)
_HELD_OUT = ("val", "outer")
_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class FlowSet:
  """UCF-101 by one of its splits; see ``samples.DataSet``.

  Attributes:
    name: of the data set.
    version: of the prepared data.
    number: of the split, 1 to 3.
    annotations: folder of the lists; empty is that of the download.
    flow: one of ``FLOWS``.
  """

  name: str
  version: str
  number: int
  annotations: str
  flow: str

  @property
  def rule(self) -> str:
    """The split as file names have it, ``01``."""
    return f"{self.number:02d}"

  @property
  def layout(self) -> str:
    """What a download holds, in a line."""
    return (
      "UCF-101/<class>/v_<class>_g01_c01.avi and "
      f"trainlist{self.rule}.txt, testlist{self.rule}.txt"
    )

  @property
  def expected(self) -> Mapping[str, int]:
    """{class: clips}; not known."""
    return {}

  @property
  def sizes(self) -> Mapping[str, int]:
    """{split: published rows}."""
    return SIZES[self.number]

  def identity(self) -> list[Any]:
    """Split and flow: lists belong to the download, which may be gone."""
    return [self.rule, self.flow]

  def samples(self, folder: pathlib.Path) -> Samples:
    """The rows of the lists with files below ``folder``.

    Raises:
      core.DataError: a list is absent or cannot be read, or there are no clips.
    """
    where = pathlib.Path(self.annotations or folder).expanduser()
    there = read(where, self.rule)
    if not folder.is_dir():
      raise DataError(f"there is no folder {folder}: give that of the download")
    found = ucf_files.find(folder, there.key)
    if not {*found.videos, *found.pictures} & {*there.rows}:
      raise DataError(
        f"{folder} holds no clips of the lists of {self.name}: it should hold "
        f"{self.layout}"
      )
    stored = self.flow == "files" or (self.flow == "auto" and bool(found.flow))
    splits = by_groups(there.rows)
    clips, problems = {}, [*there.problems, *found.defects]
    for i, row in there.rows.items():
      lack = _lack(found, i, stored)
      if lack:
        text = f"{row.place}: {i} has {lack}"
        problems.append(raw.Defect(i, raw.MISSING, text))
      else:
        shown = str(found.videos.get(i) or found.pictures[i])
        parts = found.flow[i] if stored else None
        clips[i] = FlowClip(row.label, splits[i], shown, parts)
    return Samples(
      clips,
      problems,
      listed.differences(there.rows.values(), self.sizes, CLASSES),
      (*there.notes, _note(stored)),
      there.versions,
      lambda ids: _of_few({i: there.rows[i] for i in ids}),
    )


def _lack(found: ucf_files.Found, clip: str, stored: bool) -> str:
  """What a clip lacks; empty if nothing."""
  if clip not in found.videos and clip not in found.pictures:
    return "no video"
  if stored:
    if clip in found.flow:
      return ""
    return "no pictures of flow, which --config.data.flow=dis would compute"
  if clip in found.videos:
    return ""
  return "no video to compute optical flow from, only pictures"


def _note(stored: bool) -> str:
  if stored:
    return "optical flow is read from pictures"
  return "optical flow is computed from the videos (Dense Inverse Search)"


def read(folder: pathlib.Path, rule: str) -> listed.Listing:
  """The lists of a split in ``folder``, and the numbers of classes there.

  Raises:
    core.DataError: a list is absent or cannot be read.
  """
  numbers = _numbers(folder)
  rows, problems, versions = [], [], {}
  for split in ("train", "test"):
    name = f"{split}list{rule}.txt"
    text = listed.text_of(folder, name)
    versions[name] = listed.version(text)
    for count, line in enumerate(text.splitlines(), 1):
      if not line.strip():
        continue
      place = f"{name}, line {count}"
      row = _ROW.fullmatch(line.strip().replace("\\", "/"))
      if row is None:
        why = f"expected class/v_class_g01_c01.avi, got {line!r}"
      elif row[3] and numbers.get(row[3], row[1]) != row[1]:
        why = f"{row[3]} is {numbers[row[3]]!r} in {INDEX}, not {row[1]!r}"
      else:
        rows.append(listed.Row(row[2], row[1], split, place))
        continue
      sample = row[2] if row else place
      problems.append(raw.Defect(sample, raw.SKIPPED, f"{place}: {why}"))
  known = {row.clip.lower(): row.clip for row in rows}

  def key(stem: str) -> str | None:
    # Copies differ in the case of one class, v_Hand[Ss]tandPushups.
    return known.get(stem.lower())

  return listed.listing(rows, problems, key, versions)


def _numbers(folder: pathlib.Path) -> dict[str, str]:
  """{number: class} of the index, if it is there."""
  path = listed.find(folder, INDEX)
  if path is None:
    return {}
  rows = (line.split() for line in files.text_of(path).splitlines())
  return {row[0]: row[1] for row in rows if len(row) == 2}


def by_groups(rows: Mapping[str, listed.Row]) -> dict[str, str]:
  """{clip: split}: of each class, groups of clips are held out of train.

  Clips of a group are cut from one video, so that they stay together.
  """
  groups = {
    i: f"{row.split} {row.label} {i.rpartition('_c')[0]}"
    for i, row in rows.items()
  }
  labels = {groups[i]: row.label for i, row in rows.items()}
  splits = {groups[i]: row.split for i, row in rows.items()}
  held = split_rules.hold_out(
    labels, splits, lambda label: dict.fromkeys(_HELD_OUT, _SHARE)
  )
  return {i: held[group] for i, group in groups.items()}


def _of_few(rows: Mapping[str, listed.Row]) -> dict[str, str]:
  """As ``by_groups``, for so few clips that it leaves a split empty."""
  return split_rules.fill(by_groups(rows), _HELD_OUT)
