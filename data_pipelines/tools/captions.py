"""Captioned pictures: a manifest from a JSONL table and a zip of pictures.

  python -m data_pipelines.tools.captions --table=cliparts.jsonl \
    --images=images_64px.zip --label=category --text=title \
    --drop=unsorted --smallest=100 --out=data/cliparts

A line of the table is an object with ``id`` and the fields that ``--label`` and
``--text`` name; the picture is ``<id>.png`` (or .jpg, .jpeg) in the folder or
zip. Classes with fewer than ``--smallest`` rows are left out, and those that
``--drop`` names (with commas between). Splits are drawn class by class by the
seed: ``--test`` of each class are test, ``--held_out`` are outer, as many val.
The files are copied as they are.

What was seen of the Open Clip Art Library: keywords often hold the category's
name, so the title alone is a fair text.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import DataError
from data_pipelines.tools import _folder

HEADER = ("id", "split", "label", "image:image", "text:text")
SUFFIXES = (".png", ".jpg", ".jpeg")

Row = tuple[str, str, str]  # id, label, text


def write(
  table: str | os.PathLike,
  images: str | os.PathLike,
  out: str | os.PathLike,
  label: str = "label",
  text: str = "text",
  drop: str = "",
  smallest: int = 4,
  test: float = 0.2,
  held_out: float = 0.1,
  seed: int = 0,
) -> PreparedSummary:
  """Writes ``out`` with ``manifest.csv`` and ``pictures``.

  Args:
    table: the JSONL file.
    images: folder or zip of pictures.
    out: a new or empty folder; it appears when all is in it.
    label, text: fields of the table.
    drop: classes to leave out, with commas between.
    smallest: rows that a class must have.
    test, held_out, seed: of the splits, ``_folder.draw_splits``.

  Raises:
    ValueError: an option out of its range.
    DataError: a source that is absent or damaged, a line that is no object or
      lacks a field, an id twice or without a picture; no class is left; or
      ``out`` is not empty.
  """
  table, images, out = (
    pathlib.Path(p).expanduser() for p in (table, images, out)
  )
  _folder.check_empty(out)
  rows, notes = _choose(_rows(table, label, text), drop, smallest)
  splits = _folder.draw_splits([r[1] for r in rows], test, held_out, seed)
  said = [
    f"table: {table.name}, label={label} text={text}",
    f"pictures: {images.name}",
    f"drop={drop} smallest={smallest} test={test} held_out={held_out} "
    f"seed={seed}",
  ]
  with _folder.new_folder(out) as made:
    files = _copy(images, [r[0] for r in rows], made / "pictures")
    lines = [
      (key, split, name, f"pictures/{file}", words)
      for (key, name, words), split, file in zip(
        rows, splits, files, strict=True
      )
    ]
    _folder.write_manifest(made, HEADER, lines, said)
  counts = _folder.count((s, r[1]) for s, r in zip(splits, rows, strict=True))
  return PreparedSummary("captions", str(out), counts, notes=tuple(notes))


def _rows(table: pathlib.Path, label: str, text: str) -> list[Row]:
  try:
    lines = table.read_text("utf-8-sig").splitlines()
  except FileNotFoundError as error:
    raise DataError(f"no table {table}: name one with --table") from error
  except UnicodeDecodeError as error:
    raise DataError(f"{table} is not UTF-8: {error}") from error
  rows, seen = [], set()
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    where = f"{table}, line {number}"
    row = _object(where, line)
    lacking = [
      f for f in ("id", label, text) if not str(row.get(f) or "").strip()
    ]
    if lacking:
      raise DataError(
        f"{where} has no {', '.join(lacking)}; its fields are "
        f"{', '.join(row)}: name others with --label and --text"
      )
    key = str(row["id"])
    if key in seen:
      raise DataError(f"{where}: id {key!r} is there twice")
    seen.add(key)
    rows.append((key, str(row[label]), str(row[text])))
  if not rows:
    raise DataError(f"{table} is empty")
  return rows


def _object(where: str, line: str) -> dict[str, Any]:
  try:
    row = json.loads(line)
  except json.JSONDecodeError as error:
    raise DataError(f"{where} is no JSON: {error}") from error
  if not isinstance(row, dict):
    raise DataError(f"{where} is no object, got {type(row).__name__}")
  return row


def _choose(
  rows: Sequence[Row], drop: str, smallest: int
) -> tuple[list[Row], list[str]]:
  """The rows of classes that stay, and what was left out."""
  sizes = collections.Counter(r[1] for r in rows)
  dropped = [name.strip() for name in drop.split(",") if name.strip()]
  for name in dropped:
    if name not in sizes:
      raise DataError(
        f"no class {name!r} to drop; there are {', '.join(sorted(sizes))}"
      )
  out = {n: k for n, k in sizes.items() if n in dropped or k < smallest}
  kept = [r for r in rows if r[1] not in out]
  if not kept:
    raise DataError(f"no class has {smallest} rows: lower --smallest")
  named = ", ".join(f"{n} ({k})" for n, k in sorted(out.items()))
  return kept, [f"left out: {named}"] if out else []


def _copy(
  images: pathlib.Path, keys: Sequence[str], folder: pathlib.Path
) -> list[str]:
  """Copies each id's picture; the names below ``folder``."""
  if images.is_dir():
    files = [p for p in images.rglob("*") if p.suffix.lower() in SUFFIXES]
    there = {p.relative_to(images).as_posix(): p.read_bytes for p in files}
    return _write(images, there, keys, folder)
  if not images.is_file():
    raise DataError(f"no folder or zip {images}: name one with --images")
  try:
    with zipfile.ZipFile(images) as file:
      there = {n: lambda n=n: file.read(n) for n in file.namelist()}
      return _write(images, there, keys, folder)
  except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
    if isinstance(error, DataError):
      raise
    raise DataError(
      f"{images} is no zip, or a damaged one ({error}): fetch it again"
    ) from error


def _write(
  images: pathlib.Path,
  there: dict[str, Callable[[], bytes]],
  keys: Sequence[str],
  folder: pathlib.Path,
) -> list[str]:
  found = [
    next((k + s for s in SUFFIXES if k + s in there), None) for k in keys
  ]
  lacking = [k for k, name in zip(keys, found, strict=True) if name is None]
  if lacking:
    raise DataError(
      f"{images} lacks the pictures of {len(lacking)} ids, e.g. "
      + ", ".join(f"{k}.png" for k in lacking[:5])
    )
  names = [
    f"{i:06d}{pathlib.Path(n or '').suffix}" for i, n in enumerate(found)
  ]
  folder.mkdir()
  for name, source in zip(names, found, strict=True):
    (folder / name).write_bytes(there[source or ""]())
  return names


def main(arguments: Sequence[str] | None = None) -> int:
  """The command; an error is one line and exit code 1."""
  made = _folder.parser("captions", __doc__)
  made.add_argument("--table", required=True, help="JSONL file")
  made.add_argument("--images", required=True, help="folder or zip")
  made.add_argument("--label", default="label", help="field of the class")
  made.add_argument("--text", default="text", help="field of the words")
  made.add_argument("--drop", default="", help="classes to leave out: a,b")
  made.add_argument("--smallest", type=int, default=4, help="rows of a class")
  _folder.add_shares(made)
  return _folder.run(write, made, arguments)


if __name__ == "__main__":
  sys.exit(main())
