"""Locks between processes: one works in a folder, the others wait or end.

A lock is held by a process on a file (POSIX record locks), not by the file
being there: when the process dies, however it dies, the system releases it. On
NFS that needs version 4, or the lock daemon of version 3. Where a file system
knows no locks, there is no protection and nothing else changes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from data_pipelines.errors import BusyError

try:
  import fcntl
except ModuleNotFoundError:  # Windows: no protection.
  fcntl = None

FILE = ".lock"
_BUSY = (errno.EACCES, errno.EAGAIN)
_EVERY = 0.2  # seconds between two attempts
# Record locks do not keep a process from itself.
_own: set[str] = set()
_guard = threading.Lock()


class Locks:
  """The folders that this process works in; a context that releases them."""

  def __init__(self):
    self._held: dict[str, int | None] = {}

  def __enter__(self) -> Locks:
    return self

  def __exit__(self, *_) -> None:
    for name, number in self._held.items():
      _release(name, number)
    self._held.clear()

  def take(self, folder: Path) -> bool:
    """Locks a folder, which exists; returns whether it was not locked before.

    Raises:
      BusyError: another process, or another part of this one, works in it.
      OSError: no file can be made there.
    """
    name = os.path.realpath(folder / FILE)
    if name in self._held:
      return False
    self._held[name] = _take(name)
    return True


def _take(name: str) -> int | None:
  """Locks a file; its descriptor, ``None`` where there are no locks."""
  with _guard:
    if name in _own:
      raise _busy(name, "this process")
    number = _open(name)
    _own.add(name)
  return number


def _open(name: str) -> int | None:
  while True:
    number = os.open(name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      if not _locked(number):
        owner = os.pread(number, 200, 0).decode(errors="replace").strip()
        raise _busy(name, owner or "another process")
      # The process before may have removed the file in between.
      if _is_there(name, number):
        text = f"process {os.getpid()} on {socket.gethostname()}"
        with contextlib.suppress(OSError):  # A full disk: only a name is lost.
          os.truncate(number, 0)
          os.pwrite(number, text.encode(), 0)
        return number
    except BaseException:
      os.close(number)
      raise
    os.close(number)


def _locked(number: int) -> bool:
  """Whether the lock could be had; also where there are no locks."""
  if fcntl is None:
    return True
  try:
    fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    return error.errno not in _BUSY
  return True


def _is_there(name: str, number: int) -> bool:
  try:
    return os.path.samestat(os.stat(name), os.fstat(number))
  except FileNotFoundError:
    return False


def _release(name: str, number: int | None) -> None:
  if number is not None:
    with contextlib.suppress(OSError):
      if _is_there(name, number):
        os.unlink(name)
    os.close(number)
  with _guard:
    _own.discard(name)


def _busy(name: str, owner: str) -> BusyError:
  folder = os.path.dirname(name)
  return BusyError(
    f"{folder} is in use by {owner}: wait until that has ended and run the "
    "same command again, or choose another folder with --workdir"
  )


@contextlib.contextmanager
def waiting(path: Path, say: Callable[[], None]) -> Iterator[None]:
  """Does its block while no other process does so with the same path.

  Args:
    path: of the file to lock; its folder is made, and removed if it is empty
      afterwards. If it cannot be made the block is done at once: what it does
      there says why.
    say: called once if there is something to wait for.
  """
  held = None
  new = [p for p in path.parents if not p.exists()]
  with contextlib.suppress(OSError):
    path.parent.mkdir(parents=True, exist_ok=True)
    held = _wait(os.path.realpath(path), say)
  try:
    yield
  finally:
    if held is not None:
      _release(*held)
    with contextlib.suppress(OSError):
      for folder in new:
        folder.rmdir()


def _wait(name: str, say: Callable[[], None]) -> tuple[str, int | None]:
  said = False
  while True:
    try:
      return name, _take(name)
    except BusyError:
      if not said:
        say()
      said = True
      time.sleep(_EVERY)
