"""Which files prepared data were made from: contents decide, not times.

Beside prepared data lies a note for each table that they were made from, with
size, time and a hash of each file. A file of the size and time noted is
trusted; any other is read, and its content decides. So a file that was only
touched or copied changes nothing, and files that nobody touched are not read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from data_pipelines.core.progress import progress

FOLDER = "sources"  # in the folder of the prepared data
_THREADS = 8
# Size and time in nanoseconds; ``None`` if there is no such file.
State = tuple[int, int] | tuple[None]


@dataclasses.dataclass(frozen=True)
class Sources:
  """A table and its files as they are now.

  Attributes:
    about: hash of the table's text and of the options of preparing.
    base: folder that names are relative to.
    states: {name of a file: its state}.
  """

  about: str
  base: pathlib.Path
  states: Mapping[str, State]


def state(path: str | os.PathLike) -> State:
  """Size and time of a file."""
  try:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns
  except (OSError, ValueError):
    return (None,)


def states(base: pathlib.Path, names: Iterable[str]) -> dict[str, State]:
  """The states of files by their names."""
  return {name: state(os.path.join(base, name)) for name in names}


def find(
  folders: Iterable[pathlib.Path], about: str, base: pathlib.Path
) -> tuple[pathlib.Path, Sources] | None:
  """The prepared data of a table whose files have not changed.

  Args:
    folders: of prepared data.
    about, base: as in ``Sources``.

  Returns:
    Their folder, and the files now; ``None`` if there are none.
  """
  noted = {folder: _read(folder, about) for folder in folders}
  there = {folder: note for folder, note in noted.items() if note is not None}
  names = dict.fromkeys(name for note in there.values() for name in note)
  now = states(base, names)
  for folder, note in there.items():
    if all(now[name] == then[0] for name, then in note.items()):
      return folder, Sources(about, base, {name: now[name] for name in note})
  digests: dict[str, str | None] = {}
  for folder, note in there.items():
    if _same_contents(note, now, base, digests):
      found = Sources(about, base, {name: now[name] for name in note})
      _write(folder, found, {name: then[1] for name, then in note.items()})
      return folder, found
  return None


def note(folder: pathlib.Path, sources: Sources, hashed: bool = True) -> None:
  """Notes what the data in ``folder`` were made from.

  Args:
    folder: of the prepared data.
    sources: table and files, as they were before they were read.
    hashed: read the files once more; otherwise a file that is touched later
      counts as changed.
  """
  digests: dict[str, str | None] = dict.fromkeys(sources.states)
  if hashed:
    paths = {n: os.path.join(sources.base, n) for n in sources.states}
    with ThreadPoolExecutor(_THREADS) as pool:
      found = pool.map(digest, paths.values())
      found = progress(found, "noting files", len(paths))
      digests = dict(zip(paths, found, strict=True))
    for name, before in sources.states.items():
      if state(paths[name]) != before:
        digests[name] = None
  _write(folder, sources, digests)


def digest(path: str | os.PathLike) -> str | None:
  """Hash of a file's content; ``None`` if it cannot be read."""
  try:
    with open(path, "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  except (OSError, ValueError):
    return None


_Note = dict[str, tuple[State, str | None]]


def _same_contents(
  note: _Note,
  now: Mapping[str, State],
  base: pathlib.Path,
  digests: dict[str, str | None],
) -> bool:
  """Whether files have the contents noted; ``digests`` gets what was read."""
  changed = [name for name, then in note.items() if now[name] != then[0]]
  if any(note[n][1] is None or now[n][0] != note[n][0][0] for n in changed):
    return False
  for name in changed:
    if name not in digests:
      digests[name] = digest(os.path.join(base, name))
    if digests[name] != note[name][1]:
      return False
  return True


def _path(folder: pathlib.Path, about: str) -> pathlib.Path:
  return folder / FOLDER / f"{about[:32]}.json"


def _read(folder: pathlib.Path, about: str) -> _Note | None:
  """A note; ``None`` if it is not there or damaged."""
  try:
    rows = json.loads(_path(folder, about).read_text(encoding="utf-8"))
    return {name: (tuple(then), known) for name, then, known in rows}
  except (OSError, ValueError, TypeError):
    return None


def _write(
  folder: pathlib.Path, sources: Sources, digests: Mapping[str, str | None]
) -> None:
  """Writes a note, whole; a folder that is read-only goes without."""
  rows = [[n, then, digests[n]] for n, then in sources.states.items()]
  path = _path(folder, sources.about)
  part = path.with_name(f"{path.name}.{os.getpid()}.part")
  with contextlib.suppress(OSError):
    path.parent.mkdir(exist_ok=True)
    part.write_text(json.dumps(rows), encoding="utf-8")
    os.replace(part, path)
