"""The lists of a download of Food-101: pictures, titles and classes.

Three forms are known. A list made by others says which rows are val; the
release's own does not.
"""

from __future__ import annotations

import csv
import json
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.errors import InputError
from data_pipelines.sets._tweets.raw import Annotations

_DEPTH = 3  # folders below the download's that are looked into
_PICTURES = ("images", "train", "test")  # folders without lists
_FORMS = (
  {"split": "split.json", "text": "text.json"},
  {"train": "train.jsonl", "val": "dev.jsonl", "test": "test.jsonl"},
  {"train": "train.jsonl", "test": "test.jsonl"},
  {"train": "train_titles.csv", "test": "test_titles.csv"},
)
# Headers that copies of the release were given; the release has none.
_NAMES = {
  "picture": {"image_path", "image", "img", "filename", "file", "picture"},
  "title": {"text", "title", "caption"},
  "label": {"label", "class", "class_name", "food", "category"},
}
_ROW = re.compile(r"""^"?[\w-]+\.(jpe?g|png|gif|bmp|webp)"?,""", re.IGNORECASE)


class Item(NamedTuple):
  """A row of a list; ``None`` for what the list does not say.

  Attributes:
    picture: name of the file, perhaps with folders.
    title: as listed.
    label: name of the class.
  """

  picture: Any
  title: Any
  label: Any


Items = Iterator[tuple[str, Item]]


class Lists:
  """The lists of a download.

  Args:
    root: the download's folder.

  Raises:
    DataError: the folder or the lists are not there.
  """

  def __init__(self, root: pathlib.Path):
    if not root.is_dir():
      raise core.DataError(
        f"there is no folder {root}: name the download's folder with "
        "--config.data.raw"
      )
    self.files = self._find(root)

  def items(self, made: Annotations) -> dict[str, Items]:
    """{split: (place, row)}; faults and notes go to ``made``.

    Raises:
      DataError: a JSON file cannot be read.
    """
    names = ", ".join(path.name for path in self.files.values())
    made.notes.append(f"read from {names}")
    if "split" in self.files:
      return _of_split(self.files["split"], self.files["text"])
    if "val" in self.files or self.files["train"].suffix == ".jsonl":
      return {s: _of_jsonl(path, made) for s, path in self.files.items()}
    return {s: _of_titles(path, made) for s, path in self.files.items()}

  def _find(self, root: pathlib.Path) -> dict[str, pathlib.Path]:
    folders = sorted(_walk(root), key=lambda f: (len(f[0].parts), f[0]))
    for form in _FORMS:
      for folder, names in folders:
        if names.issuperset(form.values()):
          return {key: folder / name for key, name in form.items()}
    forms = "; or ".join(", ".join(form.values()) for form in _FORMS[::-1])
    raise core.DataError(
      f"no folder in {root} (nor up to {_DEPTH} below) has all lists of one "
      f"form: {forms}"
    )


def _walk(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, set[str]]]:
  depth = len(root.parts)
  for folder, below, files in os.walk(root, followlinks=True):
    path = pathlib.Path(folder)
    if len(path.parts) - depth >= _DEPTH:
      below.clear()
    below[:] = [b for b in below if b not in _PICTURES]
    yield path, set(files)


def _of_split(split: pathlib.Path, text: pathlib.Path) -> dict[str, Items]:
  """{split: names of pictures} beside {name: title}."""
  splits, titles = _object(split), _object(text)
  for name in ("train", "test"):
    if not isinstance(splits.get(name), list):
      raise core.DataError(f"{split} has no list of pictures {name!r}")
  val = {"val": splits["val"]} if isinstance(splits.get("val"), list) else {}
  lists = {"train": splits["train"], **val, "test": splits["test"]}

  def rows(part: str, names: Sequence[Any]) -> Items:
    for number, name in enumerate(names, 1):
      title = titles.get(name) if isinstance(name, str) else None
      yield f"{split.name}, {part} {number}", Item(name, title, None)

  return {part: rows(part, names) for part, names in lists.items()}


def _object(path: pathlib.Path) -> dict[str, Any]:
  try:
    found = json.loads(path.read_text("utf-8-sig"))
    if not isinstance(found, dict):
      raise InputError("it is no object")
  except (ValueError, RecursionError) as error:
    raise core.DataError(f"{path} is no JSON object: {error}") from error
  return found


def _of_jsonl(path: pathlib.Path, made: Annotations) -> Items:
  """Lines with ``img``, ``text`` and ``label``, as MMBT writes them."""
  for number, line in enumerate(_lines(path, made), 1):
    where = f"{path.name}, line {number}"
    if not line.strip():
      continue
    try:
      row = json.loads(line)
      if not isinstance(row, dict):
        raise InputError(f"no object, but {type(row).__name__}")
    except (ValueError, RecursionError) as error:
      made.problems.append(
        raw.Defect(where, raw.UNDECODABLE, f"{where}: no JSON: {error}")
      )
      continue
    picture = row.get("img") or row.get("id")
    yield where, Item(picture, row.get("text"), row.get("label"))


def _lines(path: pathlib.Path, made: Annotations) -> list[str]:
  """Lines without their ends; one that is no UTF-8 is listed and left out."""
  data = path.read_bytes()
  if b"\r\n" in data:
    made.notes.append(f"{path.name} has Windows line ends, now ignored")
  lines = []
  for number, line in enumerate(
    data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
  ):
    try:
      lines.append(line.removesuffix(b"\r").decode("utf-8"))
    except UnicodeDecodeError as error:
      where = f"{path.name}, line {number}"
      problem = raw.Defect(where, raw.UNDECODABLE, f"{where}: {error}")
      made.problems.append(problem)
      lines.append("")
  return lines


def _of_titles(path: pathlib.Path, made: Annotations) -> Items:
  """Rows ``picture,title,class``, with or without a header."""
  order: tuple[int, ...] = (0, 1, 2)
  joined = 0
  for number, cells in _records(_lines(path, made)):
    where = f"{path.name}, line {number}"
    if number == 1 and (named := _header(cells)):
      order = named
      continue
    if len(cells) > 3 and order == (0, 1, 2):
      cells = [cells[0], ",".join(cells[1:-1]), cells[-1]]
      joined += 1
    if len(cells) <= max(order):
      text = f"{where}: {len(cells)} cells instead of picture, title, class"
      made.problems.append(raw.Defect(where, raw.UNDECODABLE, text))
      continue
    yield where, Item(*(cells[i] for i in order))
  if joined:
    made.notes.append(
      f"{path.name}: {joined} titles hold commas without quotes around them"
    )


def _header(cells: Sequence[str]) -> tuple[int, ...]:
  """Positions of picture, title and class if the cells name them."""
  names = [cell.strip().lower() for cell in cells]
  found = [
    next((i for i, name in enumerate(names) if name in known), -1)
    for known in _NAMES.values()
  ]
  return () if min(found) < 0 else tuple(found)


def _records(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
  """Rows of cells with the number of their first line.

  A quote that is never closed would take the rows behind it into its cell:
  such a row is one with a single cell, and reading goes on behind it.
  """
  at = 0
  while at < len(lines):
    # ``csv`` asks for a line at a time.
    reader = csv.reader(f"{lines[i]}\n" for i in range(at, len(lines)))
    try:
      cells, used = next(reader, []), reader.line_num
    except csv.Error:
      cells, used = [lines[at]], 1
    if used > 1 and any(_ROW.match(x) for x in lines[at + 1 : at + used]):
      cells, used = [lines[at]], 1
    if any(cell.strip() for cell in cells):
      yield at + 1, cells
    at += max(used, 1)
