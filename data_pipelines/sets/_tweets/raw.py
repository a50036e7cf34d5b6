"""Downloads of tweets with pictures: files to find, lines to rows."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
_BOM = b"\xef\xbb\xbf"
_DEPTH = 4  # folders below the download's that are looked into
# What is read later and repeats a tweet is left out: test stays whole.
_ORDER = ("test", "val", "train")


@dataclasses.dataclass(frozen=True)
class Post:
  """One sample before its picture is read.

  Attributes:
    id: different in each row of the data set.
    group: rows of one tweet, which stay in one split.
    picture: name of the picture's file, without its ending.
    text: as annotated.
    label: position in the classes.
    target: what the label is about; empty for the whole tweet.
  """

  id: str
  group: str
  picture: str
  text: str
  label: int
  target: str = ""


# (line of a file or entry of a JSON list, its split) -> annotation, or None if
# a rule of the data set leaves it out. Raises ``raw.Skip`` or ``ValueError``
# for a bad one.
Parse = Callable[[Any, str], Post | None]


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where to look for the parts of a download, preferred places first.

  Attributes:
    files: names of annotation files, {split: name} for each known form.
    folders: names of preferred folders of annotations and pictures.
    foreign: names of folders that belong to another data set.
  """

  files: tuple[Mapping[str, str], ...]
  folders: tuple[str, ...]
  foreign: tuple[str, ...] = ()


class Download:
  """The files of a download.

  Args:
    root: the download's folder.
    layout: what to look for in it, and up to four folders below.

  Raises:
    core.DataError: the folder, annotations or pictures are not there.
  """

  def __init__(self, root: str | os.PathLike, layout: Layout):
    self.root = pathlib.Path(root).expanduser()
    if not self.root.is_dir():
      raise core.DataError(
        f"there is no folder {self.root}: name the download's folder with "
        "--config.data.raw"
      )
    self._layout = layout
    self._folders = sorted(self._walk(), key=self._rank)
    self.annotations = self._annotations()
    self.pictures = self._pictures()
    folders = collections.Counter(p.parent for p in self.pictures.values())
    self._expected = folders.most_common(1)[0][0]

  def picture(self, name: str) -> pathlib.Path:
    """The file of a picture, or where it should be."""
    return self.pictures.get(name, self._expected / f"{name}.jpg")

  def checksum(self) -> str:
    """Of the annotations, 12 hexadecimal digits."""
    key = hashlib.sha256()
    for path in self.annotations.values():
      key.update(path.read_bytes())
    return key.hexdigest()[:12]

  def _walk(self) -> Iterator[tuple[pathlib.Path, set[str]]]:
    depth = len(self.root.parts)
    for folder, below, files in os.walk(self.root, followlinks=True):
      path = pathlib.Path(folder)
      if len(path.parts) - depth >= _DEPTH:
        below.clear()
      below[:] = [b for b in below if b not in self._layout.foreign]
      yield path, set(files)

  def _rank(self, found: tuple[pathlib.Path, set[str]]) -> tuple:
    """Folders with a known name first, then the higher ones."""
    path, names = found[0], self._layout.folders
    known = names.index(path.name) if path.name in names else len(names)
    return known, len(path.parts), path

  def _annotations(self) -> dict[str, pathlib.Path]:
    for form in self._layout.files:
      for path, files in self._folders:
        if files.issuperset(form.values()):
          return {split: path / form[split] for split in _ORDER}
    forms = "; or ".join(", ".join(f.values()) for f in self._layout.files)
    raise core.DataError(
      f"no folder in {self.root} (nor up to {_DEPTH} below) has all annotation "
      f"files of one form: {forms}"
    )

  def _pictures(self) -> dict[str, pathlib.Path]:
    found: dict[str, pathlib.Path] = {}
    for path, files in self._folders:
      for name in sorted(files):
        stem, ending = os.path.splitext(name)
        if ending.lower() in ENDINGS:
          found.setdefault(stem, path / name)
    if not found:
      raise core.DataError(
        f"no pictures in {self.root} (nor up to {_DEPTH} folders below): files "
        f"named as in the annotations, with one of the endings "
        f"{', '.join(ENDINGS)}, in a folder such as "
        f"{', '.join(f for f in self._layout.folders if 'image' in f)}"
      )
    return found


@dataclasses.dataclass
class Annotations:
  """The content of the annotation files.

  Attributes:
    rows: {split: rows, in the file's order}, splits train, val and test.
    problems: defects of lines that are left out.
    left_out: {split: lines that a rule of the data set leaves out}.
    notes: a sentence each.
  """

  rows: dict[str, list[Post]]
  problems: list[raw.Defect]
  left_out: dict[str, int]
  notes: list[str]


def read(files: Mapping[str, pathlib.Path], parse: Parse) -> Annotations:
  """Rows of all files; repeated ids and tweets count once.

  Raises:
    core.DataError: a file is no JSON list.
  """
  made = Annotations({}, [], {}, [])
  collect(made, {s: _items(files[s], made) for s in files}, parse)
  return made


def collect(
  made: Annotations,
  items: Mapping[str, Iterable[tuple[str, Any]]],
  parse: Parse,
) -> None:
  """Adds the rows of items to ``made``; repeated ids and groups count once.

  Args:
    made: gets rows and problems.
    items: {split: (place, item)}, splits train, test and perhaps val.
    parse: of an item.
  """
  ids: dict[str, str] = {}
  groups: dict[str, str] = {}
  order = [split for split in _ORDER if split in items]
  made.rows = {split: [] for split in reversed(order)}
  made.left_out = dict.fromkeys(order, 0)
  for split in order:
    for where, item in items[split]:
      try:
        row = parse(item, split)
        if row is None:
          made.left_out[split] += 1
          continue
        if row.id in ids:
          text = f"id {row.id!r} is that of {ids[row.id]}, too"
          raise raw.Skip(text, row.id)
        if groups.setdefault(row.group, split) != split:
          text = f"its tweet is in {groups[row.group]}, too"
          raise raw.Skip(text, row.id)
      except raw.Skip as error:
        key = error.sample or where
        problem = raw.Defect(key, raw.SKIPPED, f"{where}: {error}")
        made.problems.append(problem)
      except (ValueError, TypeError, KeyError, SyntaxError) as error:
        text = " ".join(str(error).split())
        problem = raw.Defect(where, raw.UNDECODABLE, f"{where}: {text}")
        made.problems.append(problem)
      else:
        ids[row.id] = where
        made.rows[split].append(row)


def _items(path: pathlib.Path, made: Annotations) -> Iterator[tuple[str, Any]]:
  """Non-empty lines, or entries of a list, each with its place."""
  data = path.read_bytes()
  if data.startswith(_BOM):
    data = data.removeprefix(_BOM)
    made.notes.append(f"{path.name} begins with a byte order mark, now ignored")
  if b"\r\n" in data:
    made.notes.append(f"{path.name} has Windows line ends, now ignored")
  if path.suffix == ".json":
    yield from _entries(path, data)
    return
  # Not splitlines: a tweet may hold what Unicode takes for a line's end.
  for number, line in enumerate(data.split(b"\n"), 1):
    where = f"{path.name}, line {number}"
    try:
      text = line.removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError as error:
      problem = raw.Defect(where, raw.UNDECODABLE, f"{where}: {error}")
      made.problems.append(problem)
      continue
    if text.strip():
      yield where, text


def _entries(path: pathlib.Path, data: bytes) -> Iterator[tuple[str, Any]]:
  try:
    entries = json.loads(data)
    if not isinstance(entries, list):
      raise InputError("it is no list")
  except ValueError as error:
    raise core.DataError(f"{path} is no JSON list: {error}") from error
  for number, entry in enumerate(entries, 1):
    yield f"{path.name}, entry {number}", entry
