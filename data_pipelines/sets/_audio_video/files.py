"""The files of a download of clips: sounds, videos, pictures, lists."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

from data_pipelines.core import raw
from data_pipelines.errors import DataError
from data_pipelines.transforms.clips import PICTURES, VIDEOS

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")

# Stem of a file or name of a folder -> id of a clip, None if it is no clip.
Key = Callable[[str], str | None]


@dataclasses.dataclass
class Found:
  """The media of clips, {id: path} each.

  Attributes:
    sounds: sound files.
    videos: video files.
    pictures: folders of pictures.
    twice: (clip, path, path of the same kind that is used instead).
    nameless: media whose names are no clip's, and folders named like media.
  """

  sounds: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  videos: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  pictures: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  twice: list[tuple[str, pathlib.Path, pathlib.Path]] = dataclasses.field(
    default_factory=list
  )
  nameless: list[pathlib.Path] = dataclasses.field(default_factory=list)

  @property
  def ids(self) -> list[str]:
    """Of all clips that have anything, sorted."""
    return sorted({*self.sounds, *self.videos, *self.pictures})

  def path(self, clip: str) -> pathlib.Path:
    """A path of a clip."""
    kinds = (self.videos, self.pictures, self.sounds)
    return next(k[clip] for k in kinds if clip in k)

  def shown(self, clip: str) -> str:
    """Where the pictures of a clip are."""
    return str(self.pictures.get(clip) or self.videos[clip])

  def heard(self, clip: str) -> str:
    """Where the sound of a clip is."""
    return str(self.sounds.get(clip) or self.videos[clip])


def find(folder: pathlib.Path, key: Key) -> Found:
  """All media below ``folder``; the first path of a kind counts.

  Raises:
    DataError: the folder does not exist.
  """
  if not folder.is_dir():
    raise DataError(f"there is no folder {folder}: give that of the download")
  found = Found()
  for path, names in folders(folder):
    if any(n.lower().endswith(PICTURES) for n in names):
      _add(found, found.pictures, key(path.name), path)
    elif path.suffix.lower() in (*SOUNDS, *VIDEOS):
      found.nameless.append(path)
    for name in names:
      stem, ending = os.path.splitext(name)
      if ending.lower() in SOUNDS:
        _add(found, found.sounds, key(stem), path / name)
      elif ending.lower() in VIDEOS:
        _add(found, found.videos, key(stem), path / name)
  return found


def folders(top: pathlib.Path) -> Iterator[tuple[pathlib.Path, list[str]]]:
  """Each folder once, in order of paths, with its files; links are followed."""
  seen = set()
  for folder, inner, files in os.walk(top, followlinks=True):
    real = os.path.realpath(folder)
    if real in seen:
      inner.clear()
      continue
    seen.add(real)
    inner.sort()
    yield pathlib.Path(folder), sorted(n for n in files if n[0] != ".")


def _add(
  found: Found,
  kind: dict[str, pathlib.Path],
  clip: str | None,
  path: pathlib.Path,
) -> None:
  if clip is None:
    found.nameless.append(path)
  elif clip in kind:
    found.twice.append((clip, path, kind[clip]))
  else:
    kind[clip] = path


def lack(found: Found, clip: str) -> str | None:
  """What a clip lacks, as a sentence; None if nothing."""
  if clip in found.videos:
    return None
  if clip not in found.pictures:
    return f"{clip} has no video and no folder of pictures"
  return None if clip in found.sounds else f"{clip} has no sound file"


def unused(
  found: Found, why: str = "it is not named like a clip"
) -> list[raw.Defect]:
  """Defects: files of no clip, and files whose clip uses another one."""
  return [
    raw.Defect(path.name, raw.SKIPPED, f"{path}: {why}")
    for path in found.nameless
  ] + [
    raw.Defect(i, raw.TWICE, f"{path} is not used, but {used}")
    for i, path, used in found.twice
  ]


@dataclasses.dataclass(frozen=True)
class Listed:
  """One row of a list.

  Attributes:
    split: the list's.
    label: as written there.
    place: file and line, for messages.
  """

  split: str
  label: str
  place: str


def read_lists(
  folder: pathlib.Path, files: Mapping[str, str], key: Key
) -> tuple[dict[str, Listed], list[raw.Defect]]:
  """The rows ``clip,...,label`` of the lists in a folder, without a header.

  Args:
    folder: of the lists.
    files: {split: file name}; train and test are required.
    key: of the first cell.

  Raises:
    DataError: a list is missing or is no text in UTF-8.
  """
  rows, problems = {}, []
  for split, name in files.items():
    path = folder / name
    if split not in ("train", "test") and not path.exists():
      continue
    for number, line in enumerate(text_of(path).splitlines(), 1):
      cells = [cell.strip() for cell in line.split(",")]
      place = f"{name}, line {number}"
      clip = key(cells[0])
      if not line.strip():
        continue
      if clip is None or len(cells) < 2 or not cells[-1]:
        text = f"{place}: expected clip,label, got {line!r}"
        problems.append(raw.Defect(cells[0], raw.SKIPPED, text))
      elif clip in rows:
        text = f"{place}: {clip} is in {rows[clip].place}, too"
        problems.append(raw.Defect(clip, raw.SKIPPED, text))
      else:
        rows[clip] = Listed(split, cells[-1], place)
  return rows, problems


def text_of(path: pathlib.Path) -> str:
  """The text of a list.

  Raises:
    DataError: it cannot be read, or is no text in UTF-8.
  """
  try:
    return path.read_text(encoding="utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"the list {path} cannot be read: {error}") from error


def meanings(
  rows: Mapping[str, Listed],
  known: Mapping[str, str],
  classes: Sequence[str],
) -> dict[str, str]:
  """{label of the lists: class}, for labels whose class is clear.

  A class name means itself. A whole number below the number of classes means
  the class that most of its clips have, if no other label took it; without
  known clips it means itself.

  Args:
    rows: of the lists.
    known: {clip: class} from names and folders.
    classes: all there are.
  """
  votes = collections.defaultdict(collections.Counter)
  for clip, row in sorted(rows.items()):
    votes[row.label].update({known[clip]} if clip in known else ())
  found = {word: word for word in votes if word in classes}
  numbers = {str(i) for i in range(len(classes))} & votes.keys()
  best = {n: votes[n].most_common(1) for n in sorted(numbers, key=int)}
  taken = set(found)
  for n in sorted(best, key=lambda n: -best[n][0][1] if best[n] else 0):
    meaning = best[n][0][0] if best[n] else n
    if meaning not in taken:
      found[n] = meaning
      taken.add(meaning)
  return found
