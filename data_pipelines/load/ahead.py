"""Batches made ahead of their use, by threads or by processes.

Worker processes outlive signals that are sent to all processes of a run, as a
terminal's Ctrl-C is: the run stops them once it has saved. They end by
themselves when the process that reads them is gone.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any, Protocol, cast

import grain
from absl import flags

from data_pipelines.core.batch import Batch

_BUFFER = 4  # batches made ready in the background
_THREADS = 4
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 30.0  # seconds that a worker lives on after SIGTERM


class Stream(Protocol):
  """Batches, made as long as it is not closed."""

  def __iter__(self) -> Iterator[Batch]: ...

  def __next__(self) -> Batch: ...

  def close(self) -> None: ...


def ahead(
  numbers: range, make: Callable[[int], Batch], workers: int = 0
) -> Stream:
  """``make`` of each number in turn, some of them ahead.

  Args:
    numbers: its arguments.
    make: pure; with ``workers`` it is sent to them.
    workers: processes; 0 is threads of this one.
  """
  made = grain.MapDataset.range(numbers.start, numbers.stop).map(make)
  batches = made.to_iter_dataset(grain.ReadOptions(_THREADS, _BUFFER))
  if not workers:
    return cast(Any, iter(batches))
  if not flags.FLAGS.is_parsed():  # Grain reads flags of its own there.
    flags.FLAGS.mark_as_parsed()
  options = grain.MultiprocessingOptions(workers, _BUFFER)
  return _FromWorkers(iter(batches.mp_prefetch(options, _guard)))


class _FromWorkers:
  """Starts the workers when first read, with signals held back from them."""

  def __init__(self, batches: Any):
    self._batches, self._started = batches, False

  def __iter__(self) -> Iterator[Batch]:
    return self

  def __next__(self) -> Batch:
    if self._started:
      return next(self._batches)
    self._started = True
    with _held_back():
      return next(self._batches)

  def close(self) -> None:
    self._batches.close()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
  """Threads and processes that begin here begin with signals blocked."""
  resource_tracker.ensure_running()  # It would undo the mask as it starts.
  old = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _guard(index: int, count: int) -> None:
  """The first that a worker does."""
  del index, count
  threading.Thread(target=_end_with_parent, daemon=True).start()
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, _end_later)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _end_with_parent() -> None:
  parent = multiprocessing.parent_process()
  assert parent is not None
  parent.join()
  os._exit(1)


def _end_later(number: int, frame: Any) -> None:
  del frame
  timer = threading.Timer(_GRACE, os._exit, (128 + number,))
  timer.daemon = True
  timer.start()
