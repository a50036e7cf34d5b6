"""The same content in two splits: whole samples, files and texts.

Files are equal if their bytes are. Each is read once at most, and only if
another one has its size; long ones first at their beginning and end.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import os
import pathlib
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from data_pipelines import core
from data_pipelines.core.progress import progress
from data_pipelines.manifest.cells import Cell, Value
from data_pipelines.manifest.rows import Row
from data_pipelines.manifest.table import Column

_PART = 2**13  # bytes of the beginning and of the end
_BLOCK = 2**20
_CALLED = {
  "image": "picture",
  "audio": "sound",
  "waveform": "sound",
  "video": "video",
  "array": "array",
  "text": "text",
}

Contents = tuple[Hashable, ...]  # of a sample, equal if the content is


def notes(
  splits: Mapping[str, Sequence[Row]],
  columns: Sequence[Column],
  folder: pathlib.Path,
) -> list[str]:
  """A note for each two splits that share content.

  Args:
    splits: {split: its rows}.
    columns: of the modalities.
    folder: paths in cells are relative to it.
  """
  names = {
    cell
    for members in splits.values()
    for row in members
    for c in columns
    if c.kind != "text" and isinstance(cell := row.cells[c.name], str)
  }
  files = _same_files(names - {""}, folder)

  def contents(rows: Iterable[Row]) -> list[Contents]:
    return [
      tuple(_content(row.cells[c.name], c.kind, files) for c in columns)
      for row in rows
    ]

  found = []
  for parts in _comparable(splits):
    known = {split: contents(members) for split, members in parts.items()}
    for one, other in itertools.combinations(known, 2):
      shared = _shared(known[one], known[other], columns)
      if shared:
        found.append(f"{other!r} shares content with {one!r}: {shared}")
  return found


def _comparable(
  splits: Mapping[str, Sequence[Row]],
) -> list[dict[str, list[Row]]]:
  """The splits as the table gives them, and what was taken from train."""
  given: dict[str, list[Row]] = {s: [] for s in core.SPLITS}
  for members in splits.values():
    for row in members:
      given[row.split].append(row)
  taken = {
    split: list(members)
    for split, members in splits.items()
    if members and all(row.split == "train" for row in members)
  }
  return [{s: rows for s, rows in given.items() if rows}, taken]


def _shared(
  one: Sequence[Contents], other: Sequence[Contents], columns: Sequence[Column]
) -> str:
  """What two splits share, in words; empty if nothing."""
  whole = set(one)
  equal = sum(sample in whole for sample in other)
  said = []
  if equal:
    within = " in all modalities" if len(columns) > 1 else ""
    are = "is" if equal == 1 else "are"
    said.append(f"{equal} of {len(other)} samples {are} the same{within}")
  for i, column in enumerate(columns if len(columns) > 1 else ()):
    once = column.kind == "text"
    both = _values(one, i, once) & _values(other, i, once)
    count = len(both - {None})
    if count:
      name = _CALLED[column.kind] + "s" * (count > 1)
      said.append(f"column {column.header!r} has {count} {name} in both")
  return "; ".join(said)


def _values(
  samples: Iterable[Contents], index: int, once: bool
) -> set[Hashable]:
  """What a column holds; perhaps only what a single sample has.

  A text that stands in many rows is no sign of a copy.
  """
  counts = collections.Counter(sample[index] for sample in samples)
  return {value for value, n in counts.items() if n == 1 or not once}


def _content(cell: Cell, kind: str, files: Mapping[str, int]) -> Hashable:
  """Equal for cells of equal content; ``None`` for an empty one."""
  if isinstance(cell, Value):
    return cell.digest
  if not cell or kind != "text":
    return files.get(cell)
  return " ".join(unicodedata.normalize("NFC", cell).split())


def _same_files(names: Iterable[str], folder: pathlib.Path) -> dict[str, int]:
  """{name: a number, equal for files of equal content}."""
  links: dict[Hashable, list[str]] = collections.defaultdict(list)
  sizes: dict[str, int] = {}
  for name in sorted(names):
    try:
      stat = os.stat(folder / name)
    except (OSError, ValueError):
      links[name].append(name)
    else:
      links[stat.st_dev, stat.st_ino].append(name)
      sizes[name] = stat.st_size
  # One name of each file stands for its other names.
  groups = _divide([[x[0] for x in links.values()]], lambda n: sizes.get(n, n))
  for most in (2 * _PART, None):
    hashed = [n for g in groups if len(g) > 1 for n in g]
    if most is None:
      hashed = [n for n in hashed if sizes[n] > 2 * _PART]
    keys = {
      name: _hash(folder / name, sizes[name], most)
      for name in progress(hashed, "comparing files", len(hashed))
    }
    groups = _divide(groups, keys.get)
  number = {name: i for i, group in enumerate(groups) for name in group}
  return {n: number[same[0]] for same in links.values() for n in same}


def _divide(
  groups: Iterable[list[str]], key: Callable[[str], Hashable]
) -> list[list[str]]:
  """Each group divided by a key."""
  divided: list[list[str]] = []
  for group in groups:
    parts: dict[Hashable, list[str]] = collections.defaultdict(list)
    for name in group:
      parts[key(name)].append(name)
    divided += parts.values()
  return divided


def _hash(path: pathlib.Path, size: int, most: int | None) -> bytes:
  """Of a file's bytes; of its beginning and end if it has more than most."""
  digest = hashlib.blake2b()
  with path.open("rb") as file:
    if most is not None and size > most:
      digest.update(file.read(most // 2))
      file.seek(size - most // 2)
    while block := file.read(_BLOCK):
      digest.update(block)
  return digest.digest()
