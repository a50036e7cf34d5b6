"""From a table to the folder of its prepared data, which may exist."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from data_pipelines.errors import DataError, InputError
from data_pipelines.manifest import cells, sources, table
from data_pipelines.manifest.prepared import (
  PREFIX,
  VERSION,
  Manifest,
  Options,
)

_UPRIGHT = b"upright"  # Videos were stored on their side before.


def of_file(
  data_dir: str | os.PathLike, manifest: str, options: Options
) -> Manifest:
  """A manifest by its path; not read if its data are prepared.

  Raises:
    ValueError, core.DataError: there is no such table.
  """
  if not manifest:
    raise InputError(
      "no manifest is named: add --config.data.manifest=FILE, one of .csv, "
      ".tsv, .jsonl, .parquet with the columns split, label and name:kind"
    )
  path = pathlib.Path(manifest).expanduser()
  key = options.hashed(path.name)
  key.update(_bytes(path))
  about = key.hexdigest()
  found = _found(data_dir, about, path.parent)
  if found is not None:
    read = functools.partial(table.read, path)
    return Manifest(data_dir, path.name, read, *found, options)
  content = table.read(path)
  states = sources.states(path.parent, sorted({*files_of(content)}))
  for name, state in states.items():
    key.update(repr((name, *state)).encode())
  if any(c.kind == "video" for c in content.columns):
    key.update(_UPRIGHT)
  origin = sources.Sources(about, path.parent, states)
  return _made(data_dir, path.name, content, key.hexdigest(), options, origin)


def of_table(
  data_dir: str | os.PathLike,
  name: str,
  content: table.Table,
  options: Options,
  needed: tuple[str, ...],
) -> Manifest:
  """A table in memory; arguments as ``Manifest``'s."""
  begin = f"{name} in memory"
  key, about = options.hashed(begin), options.hashed(begin)
  paths = {n: os.path.abspath(content.folder / n) for n in files_of(content)}
  states = sources.states(content.folder, sorted({*paths.values()}))
  kinds = {c.header: c.kind for c in content.columns}
  for line in content.lines:
    for header, cell in line.cells.items():
      known: tuple[Any, ...] = (line.number, header)
      state: sources.State | tuple[()] = ()
      if isinstance(cell, cells.Value):
        known += (cell.digest,)
      elif kinds.get(header, "text") == "text" or not cell:
        known += (cell,)
      else:
        known, state = (*known, paths[cell]), states[paths[cell]]
        key.update(_UPRIGHT * (kinds[header] == "video"))
      about.update(repr(known).encode())
      key.update(repr((*known, *state)).encode())
  base = content.folder
  found = _found(data_dir, about.hexdigest(), base)
  if found is not None:
    return Manifest(data_dir, name, lambda: content, *found, options, needed)
  origin = sources.Sources(about.hexdigest(), base, states)
  end = key.hexdigest(), options, origin, needed
  return _made(data_dir, name, content, *end)


def is_there(
  data_dir: str | os.PathLike, manifest: str, options: Options
) -> bool:
  """Whether a manifest and all files that it names exist."""
  path = pathlib.Path(manifest).expanduser()
  if not path.is_file():
    return False
  key = options.hashed(path.name)
  key.update(_bytes(path))
  if _found(data_dir, key.hexdigest(), path.parent) is not None:
    return True
  try:
    names = {*files_of(table.read(path))}
  except DataError:
    return True  # Of another form now: reading it says what is wrong.
  return all((path.parent / name).exists() for name in names)


def files_of(content: table.Table) -> Iterator[str]:
  """The names of files in a table, once a cell."""
  columns = [c.header for c in content.columns if c.kind != "text"]
  for line in content.lines:
    for header in columns:
      cell = line.cells[header]
      if cell and isinstance(cell, str):
        yield cell


def _bytes(path: pathlib.Path) -> bytes:
  """The content of a manifest; empty if ``table.read`` will refuse it."""
  try:
    return path.read_bytes()
  except OSError:
    return b""


def _found(
  data_dir: str | os.PathLike, about: str, base: pathlib.Path
) -> tuple[str, sources.Sources] | None:
  """Key and origin of prepared data, for a table without changes."""
  there = sorted(pathlib.Path(data_dir).glob(f"{PREFIX}*/{VERSION}"))
  found = sources.find(there, about, base)
  if found is None:
    return None
  return found[0].parent.name.removeprefix(PREFIX), found[1]


def _made(
  data_dir: str | os.PathLike,
  name: str,
  content: table.Table,
  key: str,
  options: Options,
  origin: sources.Sources,
  *needed: tuple[str, ...],
) -> Manifest:
  """A table by its key, which holds sizes and times of the files."""
  read = lambda: content  # noqa: E731
  made = Manifest(data_dir, name, read, key, origin, options, *needed)
  if made.folder.exists():  # From before there were notes.
    sources.note(made.folder, origin, hashed=False)
  return made
