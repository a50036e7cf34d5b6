"""TensorBoard's ``events.*`` of a run, written by the process itself.

The package's own writer has a thread that dies when the disk is full, and then
waits for it for ever.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_FLUSH = 30.0  # seconds between two flushes


class Events:
  """One file of events; what is written is flushed at times, and at the end."""

  def __init__(self, folder: Path, purge: int | None = None):
    """Opens a new file.

    Args:
      folder: of the run.
      purge: of the files before, what is of this step or later is void.
    """
    with _hidden("torch"):
      from tensorboardX.event_file_writer import EventsWriter
      from tensorboardX.proto import event_pb2

    self._kinds: Any = event_pb2
    old = len(list(folder.glob("events.*")))
    # The suffix keeps apart files that were created in the same second.
    self._file = EventsWriter(os.fspath(folder / "events"), f".{old}")
    if purge is not None and old:
      event, log = self._kinds.Event, self._kinds.SessionLog
      self._write(event(step=purge, file_version="brain.Event:2"))
      start = log(status=log.START)
      self._write(event(step=purge, session_log=start))
    self._flushed = -_FLUSH

  def write(self, values: Mapping[str, float], step: int) -> None:
    """Adds ``{tag: value}`` of a step.

    Raises:
      OSError: they cannot be written.
    """
    from tensorboardX.summary import scalar

    event = self._kinds.Event(step=step)
    for tag, value in values.items():
      event.summary.MergeFrom(scalar(tag, value))
    self._write(event)
    if time.monotonic() - self._flushed >= _FLUSH:
      self._file.flush()
      self._flushed = time.monotonic()

  def _write(self, event: Any) -> None:
    event.wall_time = time.time()
    self._file.write_event(event)

  def close(self) -> None:
    """Writes what is pending, closes the file.

    Raises:
      OSError: it cannot be written; the file is closed all the same.
    """
    try:
      self._file.flush()
    finally:
      # It was said what is wrong; closing says it again.
      with contextlib.suppress(OSError):
        self._file.close()


@contextlib.contextmanager
def _hidden(name: str) -> Iterator[None]:
  """A package that is installed is not found, unless it was before.

  TensorBoardX names one of PyTorch's types in its annotations, and would take a
  second or more to import it.
  """
  unknown = name not in sys.modules
  if unknown:
    sys.modules[name] = None  # pyright: ignore[reportArgumentType]
  try:
    yield
  finally:
    if unknown:
      del sys.modules[name]
