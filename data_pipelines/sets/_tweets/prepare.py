"""Downloads of pictures with texts, prepared."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from data_pipelines import core
from data_pipelines.core import raw, storage
from data_pipelines.errors import InputError
from data_pipelines.sets._tweets.raw import (
  Annotations,
  Download,
  Layout,
  Parse,
  Post,
  read,
)
from data_pipelines.transforms import image, kinds

SIDE = 256  # of a stored picture
HELD_OUT = 0.1


class Opened(Protocol):
  """The files of a download."""

  def picture(self, name: str) -> pathlib.Path:
    """The file of a picture, or where it should be."""
    ...

  def checksum(self) -> str:
    """Of the annotations, 12 hexadecimal digits."""
    ...


@dataclasses.dataclass(frozen=True)
class PicturesWithTexts:
  """A data set of pictures with texts; a subclass knows its download.

  Attributes:
    name: of the data set.
    version: of the prepared data: any change of them raises it.
    classes: names, in the order of their labels, which is alphabetical.
  """

  name: str
  version: str
  classes: tuple[str, ...]

  def open(self, folder: str) -> tuple[Annotations, Opened]:
    """The rows of a download, and its files."""
    raise NotImplementedError

  def divide(
    self, rows: dict[str, list[Post]], held_out: float
  ) -> dict[str, list[Post]]:
    """All four splits of the rows as annotated."""
    raise NotImplementedError

  def differences(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for each official split with other counts."""
    raise NotImplementedError

  def notes(self, found: Annotations, held_out: float) -> list[str]:
    """A sentence for each decision that the user should know about."""
    raise NotImplementedError

  def folder(
    self, data_dir: str | os.PathLike, held_out: float
  ) -> pathlib.Path:
    """The folder of the prepared data.

    Raises:
      ValueError: ``held_out`` is out of its range.
    """
    if not 0 < held_out <= 0.4:
      raise InputError(f"held_out must lie in (0, 0.4], got {held_out!r}")
    own = "" if held_out == HELD_OUT else f"_outer_{held_out:g}"
    name = (self.name + own).replace(".", "_")
    return storage.folder_of(data_dir, name, self.version)

  def prepare(
    self,
    data_dir: str | os.PathLike,
    *,
    raw: str = "",
    held_out: float = HELD_OUT,
    workers: int = 4,
  ) -> core.PreparedSummary:
    """Reads the download and stores what can be read.

    Intact data are left alone, damaged data replaced; to read pictures that
    have come since, delete the folder of prepared data first. What is left out
    is in the report, and in full in ``problems.csv`` beside the data.

    Args:
      data_dir: folder of all prepared data.
      raw: the download's folder; not needed once the data are prepared.
      held_out: share of the training part that is ``outer``.
      workers: processes that read pictures; 0 reads them in this one.

    Raises:
      ValueError: an option out of its range, or no download is named.
      core.DataError: the download lacks annotations or pictures; or the data
        cannot be written.
    """
    return _prepare(self, data_dir, raw, held_out, workers)


@dataclasses.dataclass(frozen=True)
class Tweets(PicturesWithTexts):
  """A data set of tweets.

  Attributes:
    expected: {split: samples of each class} of the paper.
    layout: of the download.
    parse: a line of the annotations to a row.
    rule: which lines ``parse`` leaves out of train, in words.
  """

  expected: Mapping[str, tuple[int, ...]]
  layout: Layout
  parse: Parse
  rule: str = ""

  def open(self, folder: str) -> tuple[Annotations, Opened]:
    """The tweets of a download, and its files."""
    download = Download(folder, self.layout)
    return read(download.annotations, self.parse), download

  def divide(
    self, rows: dict[str, list[Post]], held_out: float
  ) -> dict[str, list[Post]]:
    """The official splits; ``outer`` is held out from train."""
    return with_outer(rows, held_out)

  def differences(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for each official split that differs from the paper."""
    found = []
    for split, want in self.expected.items():
      parts = ("train", "outer") if split == "train" else (split,)
      have = [sum(counts[p][c] for p in parts) for c in self.classes]
      if have != list(want):
        each = ", ".join(
          f"{c} {h} of {w}"
          for c, h, w in zip(self.classes, have, want, strict=True)
          if h != w
        )
        found.append(
          f"{' and '.join(parts)}: {sum(have)} samples instead of {sum(want)}, "
          f"the paper's number ({each})"
        )
    return found

  def notes(self, found: Annotations, held_out: float) -> list[str]:
    """How ``outer`` was made, and what a rule left out."""
    notes = [
      f"outer is {held_out:.0%} of the training tweets of each class, by a "
      "hash of the id"
    ]
    if self.rule:
      out = found.left_out["train"]
      notes.append(f"{out} training lines left out: {self.rule}")
    return notes


def _prepare(
  about: PicturesWithTexts,
  data_dir: str | os.PathLike,
  raw_folder: str,
  held_out: float,
  workers: int,
) -> core.PreparedSummary:
  """Reads annotations and pictures, splits, stores."""
  folder = about.folder(data_dir, held_out)
  if storage.problem_of(folder) is None:
    return core.PreparedSummary.read(folder)
  if not raw_folder:
    raise InputError(
      f"{about.name} is not prepared and its download is not named: add "
      "--config.data.raw=FOLDER"
    )
  if workers < 0:
    raise InputError(f"workers must be >= 0, got {workers!r}")
  return storage.once(
    folder, lambda: _made(about, folder, raw_folder, held_out, workers)
  )


def _made(
  about: PicturesWithTexts,
  folder: pathlib.Path,
  raw_folder: str,
  held_out: float,
  workers: int,
) -> core.PreparedSummary:
  found, download = about.open(raw_folder)
  work = folder.parent / "work"
  settings = f"{SIDE} {image.QUALITY} {pathlib.Path(raw_folder).resolve()}"
  media = raw.Decoding(_picture, work, settings, workers)
  rows, problems = _with_pictures(about.name, found.rows, download, media)
  splits = about.divide(rows, held_out)
  problems = [*found.problems, *problems]
  media.require(splits, raw_folder, problems)
  counts = _counts(about.classes, splits)
  made = core.PreparedSummary(
    about.name,
    str(folder),
    counts,
    (*raw.summary(problems), *about.differences(counts)),
    {"annotations": download.checksum()},
    (*found.notes, *about.notes(found, held_out)),
  )
  examples = {s: _examples(about, rows, media) for s, rows in splits.items()}
  extra = {raw.FILE: raw.table(problems)}
  storage.write(folder, _features(about.classes), examples, made, extra)
  media.clear()
  return made


def picture_settings(size: int) -> dict[str, Any]:
  """The preprocessing of pictures of a side in a batch."""
  return {"size": size, "fit": "squash", "stored": SIDE}


def _picture(path: pathlib.Path) -> dict[str, np.ndarray]:
  """A picture's file as the bytes of a smaller one."""
  pictures = kinds.SquashedImage(picture_settings(SIDE))
  with raw.named(path):
    data = pictures.pack(pictures.read(path))
  return {"jpeg": np.frombuffer(data, np.uint8)}


def _with_pictures(
  name: str,
  rows: dict[str, list[Post]],
  download: Opened,
  media: raw.Decoding[pathlib.Path],
) -> tuple[dict[str, list[Post]], list[raw.Defect]]:
  """Rows whose picture can be read, and a defect for each other row."""
  every = [row for members in rows.values() for row in members]
  paths = {r.picture: download.picture(r.picture) for r in every}
  decoded, problems = media.decode(paths, f"reading pictures of {name}")
  have, why = set(decoded), {p.sample: p for p in problems}
  left = {s: [r for r in m if r.picture in have] for s, m in rows.items()}
  return left, [
    dataclasses.replace(why[row.picture], sample=row.id)
    for row in every
    if row.picture not in have
  ]


def with_outer(
  rows: dict[str, list[Post]], share: float
) -> dict[str, list[Post]]:
  """All splits; ``outer`` is held out from train."""
  train, outer = hold_out(rows["train"], share)
  return {
    "train": train,
    "outer": outer,
    "val": rows["val"],
    "test": rows["test"],
  }


def hold_out(
  rows: Sequence[Post], share: float
) -> tuple[list[Post], list[Post]]:
  """The rows that stay, and a share of the groups of each class.

  The class of a group is the most common one of its rows, the first if tied.
  """
  labels: dict[str, list[int]] = collections.defaultdict(list)
  for row in rows:
    labels[row.group].append(row.label)
  strata = collections.defaultdict(list)
  for group, own in labels.items():
    counts = collections.Counter(sorted(own))
    strata[counts.most_common(1)[0][0]].append(group)
  taken: set[str] = set()
  for groups in strata.values():
    groups.sort(key=lambda g: hashlib.sha256(g.encode()).digest())
    size = max(1, round(share * len(groups)))
    taken.update(groups[: min(size, len(groups) - 1)])
  return (
    [r for r in rows if r.group not in taken],
    [r for r in rows if r.group in taken],
  )


def _counts(
  classes: Sequence[str], splits: dict[str, list[Post]]
) -> dict[str, dict[str, int]]:
  counts = {}
  for split, rows in splits.items():
    own = collections.Counter(row.label for row in rows)
    counts[split] = {c: own[i] for i, c in enumerate(classes)}
  return counts


def _features(classes: Sequence[str]) -> dict[str, Any]:
  import tensorflow_datasets as tfds

  return {
    "id": tfds.features.Text(),
    "group": tfds.features.Text(),
    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="jpeg"),
    "text": tfds.features.Text(),
    "target": tfds.features.Text(),
    "label": tfds.features.ClassLabel(names=list(classes)),
  }


def _examples(
  about: PicturesWithTexts, rows: Iterable[Post], media: raw.Decoding
) -> Iterable[storage.Example]:
  for row in rows:
    fields = {
      "id": row.id,
      "group": row.group,
      "image": media.read(row.picture)["jpeg"].tobytes(),
      "text": row.text,
      "target": row.target,
      "label": about.classes[row.label],
    }
    yield row.id, fields
