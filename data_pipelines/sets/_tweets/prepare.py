"""Downloads of tweets with pictures, prepared."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import raw, storage
from data_pipelines.errors import InputError
from data_pipelines.sets._tweets.raw import (
  Download,
  Layout,
  Parse,
  Post,
  read,
)
from data_pipelines.transforms import image, kinds

SIDE = 256  # of a stored picture
HELD_OUT = 0.1


@dataclasses.dataclass(frozen=True)
class Tweets:
  """A data set of tweets.

  Attributes:
    name: of the data set.
    version: of the prepared data: any change of them raises it.
    classes: names, in the order of their labels, which is alphabetical.
    expected: {split: samples of each class} of the paper.
    layout: of the download.
    parse: a line of the annotations to a row.
    rule: which lines ``parse`` leaves out of train, in words.
  """

  name: str
  version: str
  classes: tuple[str, ...]
  expected: Mapping[str, tuple[int, ...]]
  layout: Layout
  parse: Parse
  rule: str = ""

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


def prepare_tweets(
  tweets: Tweets,
  data_dir: str | os.PathLike,
  raw_folder: str,
  held_out: float,
  workers: int,
) -> core.PreparedSummary:
  """Reads annotations and pictures, splits, stores."""
  folder = tweets.folder(data_dir, held_out)
  if storage.problem_of(folder) is None:
    return core.PreparedSummary.read(folder)
  if not raw_folder:
    raise InputError(
      f"{tweets.name} is not prepared and its download is not named: add "
      "--config.data.raw=FOLDER"
    )
  if workers < 0:
    raise InputError(f"workers must be >= 0, got {workers!r}")
  download = Download(raw_folder, tweets.layout)
  found = read(download.annotations, tweets.parse)
  work = folder.parent / "work"
  settings = f"{SIDE} {image.QUALITY} {download.root.resolve()}"
  media = raw.Decoding(_picture, work, settings, workers)
  rows, problems = _with_pictures(tweets.name, found.rows, download, media)
  splits = with_outer(rows, held_out)
  problems = [*found.problems, *problems]
  media.require(splits, raw_folder, problems)
  counts = _counts(tweets.classes, splits)
  made = core.PreparedSummary(
    tweets.name,
    str(folder),
    counts,
    (*raw.summary(problems), *_differences(tweets, counts)),
    {"annotations": download.checksum()},
    (*found.notes, *_notes(tweets, found.left_out, held_out)),
  )
  examples = {s: _examples(tweets, rows, media) for s, rows in splits.items()}
  extra = {raw.FILE: raw.table(problems)}
  storage.write(folder, _features(tweets.classes), examples, made, extra)
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
  download: Download,
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
  """All splits; ``outer`` takes whole groups of each class from train.

  The class of a group is the most common one of its rows, the first if tied.
  """
  labels: dict[str, list[int]] = collections.defaultdict(list)
  for row in rows["train"]:
    labels[row.group].append(row.label)
  strata = collections.defaultdict(list)
  for group, own in labels.items():
    counts = collections.Counter(sorted(own))
    strata[counts.most_common(1)[0][0]].append(group)
  outer: set[str] = set()
  for groups in strata.values():
    groups.sort(key=lambda g: hashlib.sha256(g.encode()).digest())
    size = max(1, round(share * len(groups)))
    outer.update(groups[: min(size, len(groups) - 1)])
  return {
    "train": [r for r in rows["train"] if r.group not in outer],
    "outer": [r for r in rows["train"] if r.group in outer],
    "val": rows["val"],
    "test": rows["test"],
  }


def _counts(
  classes: Sequence[str], splits: dict[str, list[Post]]
) -> dict[str, dict[str, int]]:
  counts = {}
  for split, rows in splits.items():
    own = collections.Counter(row.label for row in rows)
    counts[split] = {c: own[i] for i, c in enumerate(classes)}
  return counts


def _differences(
  tweets: Tweets, counts: dict[str, dict[str, int]]
) -> list[str]:
  """A sentence for each official split that differs from the paper."""
  found = []
  for split, want in tweets.expected.items():
    parts = ("train", "outer") if split == "train" else (split,)
    have = [sum(counts[p][c] for p in parts) for c in tweets.classes]
    if have != list(want):
      each = ", ".join(
        f"{c} {h} of {w}"
        for c, h, w in zip(tweets.classes, have, want, strict=True)
        if h != w
      )
      found.append(
        f"{' and '.join(parts)}: {sum(have)} samples instead of {sum(want)}, "
        f"the paper's number ({each})"
      )
  return found


def _notes(
  tweets: Tweets, left_out: dict[str, int], held_out: float
) -> list[str]:
  notes = [
    f"outer is {held_out:.0%} of the training tweets of each class, by a hash "
    "of the id"
  ]
  if tweets.rule:
    notes.append(f"{left_out['train']} training lines left out: {tweets.rule}")
  return notes


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
  tweets: Tweets, rows: Iterable[Post], media: raw.Decoding
) -> Iterable[storage.Example]:
  for row in rows:
    fields = {
      "id": row.id,
      "group": row.group,
      "image": media.read(row.picture)["jpeg"].tobytes(),
      "text": row.text,
      "target": row.target,
      "label": tweets.classes[row.label],
    }
    yield row.id, fields
