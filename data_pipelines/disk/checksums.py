"""Checksums of a folder's files, kept in a file among them.

They show files that were cut, lost or changed: a power cut, a bad disk.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE = "checksums.json"


def write(folder: Path, but: Iterable[str] = ()) -> None:
  """Writes the sizes and checksums of all files below a folder.

  The files are on the disk afterwards, not in the system's memory alone, so a
  power cut leaves them whole.

  Args:
    folder: with the files, none of which changes any more.
    but: names of files that may still change.
  """
  found = {}
  for name, path in _files(folder, {FILE, *but}):
    with path.open("rb") as file:
      digest = hashlib.file_digest(file, "sha256").hexdigest()
      found[name] = [os.fstat(file.fileno()).st_size, digest]
      os.fsync(file.fileno())
  with (folder / FILE).open("w", encoding="utf-8") as file:
    json.dump(found, file)
    file.flush()
    os.fsync(file.fileno())


def known(folder: Path) -> bool:
  """Whether ``write`` was called for a folder."""
  return (folder / FILE).exists()


def problem(folder: Path, part: str = "") -> str | None:
  """What is wrong with the files of a folder; ``None`` if they are whole.

  Args:
    folder: for which ``write`` was called.
    part: with it only files are looked at whose names begin so.

  Raises:
    OSError: a file is there and cannot be read.
  """
  try:
    stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
    for name, (size, digest) in stored.items():
      if not name.startswith(part):
        continue
      with (folder / name).open("rb") as file:
        there = os.fstat(file.fileno()).st_size
        if there != size:
          return f"{name} has {there} bytes instead of {size}"
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
          return f"{name} has changed"
  except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
    return f"{Path(error.filename).relative_to(folder)} is missing"
  except (ValueError, TypeError, AttributeError) as error:
    return f"{FILE} is unreadable ({error})"
  return None


def _files(folder: Path, but: set[str]) -> Iterator[tuple[str, Path]]:
  for path in sorted(folder.rglob("*")):
    if path.is_file() and path.name not in but:
      yield path.relative_to(folder).as_posix(), path
