"""Errors of writing, as one line that names the folder and what is missing.

Whatever writes files does so within ``writing``. Libraries report a full disk
by errors of their own; their text is read, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.errors import UserError, WriteError

# What is missing, and what mends it; ``{flag}`` names another folder.
_FAULTS = {
  errno.ENOSPC: ("no space is left on the device", "make room there"),
  errno.EDQUOT: ("the disk quota is used up", "make room there"),
  errno.EFBIG: ("a file would be larger than allowed", "raise the limit"),
  errno.EROFS: ("it is read-only", "make it writable{flag}"),
  errno.EACCES: ("not permitted", "give write permission{flag}"),
  errno.EPERM: ("not permitted", "give write permission{flag}"),
  errno.ENOENT: ("it was removed or moved", "leave it in place{flag}"),
  errno.ESTALE: ("it was removed or moved", "leave it in place{flag}"),
  errno.ENOTDIR: (
    "a part of the path is a file, not a folder", "move that file away{flag}",
  ),
}  # fmt: skip
# As libraries say it: [OS error 28: ENOSPC No space left on device].
_NUMBER = re.compile(r"OS error (\d+)", re.IGNORECASE)
# Libraries in C++ know no numbers, only the words of the system.
_WORDS = {os.strerror(number): number for number in _FAULTS}


@contextlib.contextmanager
def writing(
  folder: str | os.PathLike, what: str, flag: str = ""
) -> Iterator[None]:
  """Turns errors of the disk in its block into a ``WriteError``.

  Errors that name a file elsewhere, which the block reads, pass.

  Args:
    folder: that is written to, for the message.
    what: is written, in words.
    flag: by which the user names another folder, if there is one.

  Raises:
    WriteError: a file could not be written; the message names the folder, what
      is missing and the fix.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    number = number_of(error)
    if number is None or _elsewhere(error, os.path.abspath(folder)):
      raise
    raise fault(folder, what, number, flag) from error


def _elsewhere(error: Exception, folder: str) -> bool:
  """Whether an error names a file that has nothing to do with the folder."""
  if not isinstance(error, OSError) or not isinstance(error.filename, str):
    return False
  name = os.path.abspath(error.filename)
  common = os.path.commonpath([name, folder])
  return common not in (name, folder)


def fault(
  folder: str | os.PathLike, what: str, number: int, flag: str = ""
) -> WriteError:
  """The error for a number of ``errno``; arguments as for ``writing``."""
  other = f", or name another folder with {flag}" if flag else ""
  why, fix = _FAULTS.get(
    number, (os.strerror(number), "mend the disk or the folder{flag}")
  )
  found = WriteError(
    f"cannot write {what} to {os.fspath(folder)} ({why}): "
    f"{fix.format(flag=other)}, then run the same command again"
  )
  found.errno = number
  return found


def number_of(error: BaseException) -> int | None:
  """The number of the system's error behind ``error``; ``None`` without one."""
  while True:
    if isinstance(error, OSError) and error.errno is not None:
      return error.errno
    if match := _NUMBER.search(str(error)):
      return int(match[1])
    for words, number in _WORDS.items():
      if words in str(error):
        return number
    if error.__cause__ is None:
      return None
    error = error.__cause__


def replace(path: Path, content: bytes, flag: str = "") -> None:
  """Writes bytes atomically; of several writers, the last one wins.

  Nothing is left behind if that fails.

  Args:
    path: of the file; its folder exists.
    content: of the file.
    flag: see ``writing``.

  Raises:
    WriteError: see ``writing``.
  """
  with (
    writing(path.parent, path.name, flag),
    whole(path) as part,
    part.open("wb") as file,
  ):
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
  """A new file to write, which takes the place of ``path`` at the end.

  Its name begins with a dot and holds the process and the time, so it is no
  file of the user's. If the block fails it is removed.
  """
  part = path.with_name(f".{path.name}.{os.getpid()}.{time.time_ns()}.part")
  try:
    yield part
    os.replace(part, path)
  except BaseException:
    with contextlib.suppress(OSError):
      part.unlink(missing_ok=True)
    raise
