"""NVGesture's list files: what is in a clip, who made it, which split."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence

from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.errors import InputError

CLASSES = tuple(str(i) for i in range(1, 26))
EXPECTED = {"train": 1050, "test": 482}
FRAMES = 80
# Names of a list, the best first; those without v2 have 23 labels uncorrected.
NAMES = (
  "nvgesture_{}_correct_cvpr2016_v2.lst",
  "nvgesture_{}_correct_v2.lst",
  "nvgesture_{}_correct_cvpr2016.lst",
  "nvgesture_{}_correct.lst",
)
_SENSORS = ("depth", "color")
_PATH = re.compile(r"class_(\d+)/subject(\d+)_r\d+$")
_ID = re.compile(r"\bpath:\S*?(class_\d+[/\\]subject\d+_r\d+)(?!\S)")


@dataclasses.dataclass(frozen=True)
class Clip:
  """One line of a list.

  Attributes:
    id: e.g. ``class_01/subject13_r0``.
    folder: of its videos, relative to the download.
    label: 1 to 25.
    subject: number of the person.
    sensors: {``color`` or ``depth``: (file without ending, first frame, frames
      wanted)}, at most 80 frames.
    listed: ``train`` or ``test``, whose list it is.
    row: its place in the list, from 0.
  """

  id: str
  folder: str
  label: int
  subject: int
  sensors: dict[str, tuple[str, int, int]]
  listed: str
  row: int


@dataclasses.dataclass(frozen=True)
class Lists:
  """Both lists: clips, defects of lines, notes, file checksums."""

  clips: tuple[Clip, ...]
  problems: tuple[raw.Defect, ...]
  notes: tuple[str, ...]
  versions: dict[str, str]


def read(folder: pathlib.Path) -> Lists:
  """The lists in ``folder``.

  Raises:
    core.DataError: a list is absent or no text.
  """
  clips: dict[str, Clip] = {}
  problems, notes, versions = [], [], {}
  # A clip that is in both is for testing.
  for listed in ("test", "train"):
    path = _find(folder, listed)
    text = _text(path)
    versions[path.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    if "v2" not in path.stem:
      notes.append(f"{path.name} has the labels before their correction (v2)")
    rows = [row for row in text.splitlines() if row.strip()]
    for number, row in enumerate(rows):
      try:
        clip = _parse(row, listed, number)
        if clip.id in clips:
          where = clips[clip.id]
          raise InputError(
            f"{clip.id} is in the {where.listed} list already, in line "
            f"{where.row + 1}"
          )
      except ValueError as error:
        line, named = f"{path.name}, line {number + 1}", _ID.search(row)
        key = named[1].replace("\\", "/") if named else line
        problems.append(raw.Defect(key, raw.SKIPPED, f"{line}: {error}"))
      else:
        clips[clip.id] = clip
  moved = sum(c.label != _class(c) for c in clips.values())
  if moved:
    notes.append(
      f"{moved} labels are not the class of the clip's folder: those of the "
      "lists count (the corrected lists have 23 such clips)"
    )
  return Lists(tuple(clips.values()), tuple(problems), tuple(notes), versions)


def split(
  clips: Iterable[Clip], share: float
) -> tuple[dict[str, list[Clip]], list[str]]:
  """{split: clips} by person, and a note on who is held out.

  Subjects of the train list are ordered by the SHA-256 of ``subject<number>``,
  those with more than ``share`` of the clips last: the first ones are ``val``,
  as many as make at least ``share`` of the list, the next ones likewise
  ``outer``, the others ``train``.

  Raises:
    core.DataError: there are too few subjects for three splits.
  """
  splits: dict[str, list[Clip]] = {s: [] for s in core.SPLITS}
  persons = collections.defaultdict(list)
  for clip in clips:
    if clip.listed == "test":
      splits["test"].append(clip)
    else:
      persons[clip.subject].append(clip)
  want = share * sum(map(len, persons.values()))
  order = sorted(persons, key=lambda p: (len(persons[p]) > want, _digest(p)))
  held: dict[str, list[int]] = {"val": [], "outer": []}
  for name, numbers in held.items():
    while order and len(splits[name]) < want:
      numbers.append(order.pop(0))
      splits[name] += persons[numbers[-1]]
  for number in order:
    splits["train"] += persons[number]
  if not all(splits.values()):
    empty = next(s for s, members in splits.items() if not members)
    raise core.DataError(
      f"split {empty!r} is empty: there are {len(persons)} subjects of the "
      "train list, of whom train, val and outer need one each, and "
      f"{len(splits['test'])} clips of the test list"
    )
  notes = [
    f"{name} is subjects {', '.join(map(str, sorted(numbers)))} of the train "
    f"list, {len(splits[name])} clips"
    for name, numbers in held.items()
  ]
  return splits, notes


def _digest(subject: int) -> bytes:
  return hashlib.sha256(f"subject{subject}".encode()).digest()


def _find(folder: pathlib.Path, listed: str) -> pathlib.Path:
  names = [name.format(listed) for name in NAMES]
  for name in names:
    if (folder / name).is_file():
      return folder / name
  raise core.DataError(
    f"there is no {listed} list of NVGesture in {folder} (one of "
    f"{', '.join(names)}): put it there, or name its folder with "
    "--config.data.lists"
  )


def _text(path: pathlib.Path) -> str:
  try:
    return path.read_text(encoding="utf-8-sig")
  except UnicodeDecodeError as error:
    raise core.DataError(f"{path} is no text in UTF-8: {error}") from error


def _class(clip: Clip) -> int:
  found = _PATH.search(clip.id)
  return int(found[1]) if found else clip.label


def _parse(row: str, listed: str, number: int) -> Clip:
  fields = {}
  for word in row.split():
    key, _, value = word.partition(":")
    fields[key] = value.split(":")
  for key in ("path", *_SENSORS, "label"):
    if key not in fields:
      raise InputError(f"there is no field '{key}:'")
  folder = fields["path"][0].replace("\\", "/").removeprefix("./").rstrip("/")
  found = _PATH.search(folder)
  if not found:
    raise InputError(f"path {folder!r} does not end in class_XX/subjectY_rZ")
  label = fields["label"][0]
  if label not in CLASSES:
    raise InputError(f"label {label!r} is no whole number from 1 to 25")
  sensors = {s: _range(s, fields[s]) for s in _SENSORS}
  return Clip(
    found[0], folder, int(label), int(found[2]), sensors, listed, number
  )


def _range(sensor: str, values: Sequence[str]) -> tuple[str, int, int]:
  if len(values) != 3 or not all(v.isdecimal() for v in values[1:]):
    raise InputError(
      f"field {sensor!r} is {':'.join(values)!r}, not file:start:end"
    )
  file, start, end = values[0], int(values[1]), int(values[2])
  if end <= start:
    raise InputError(f"{sensor} ends with frame {end} but starts with {start}")
  return file, start, min(end - start, FRAMES)
