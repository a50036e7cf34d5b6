"""Batches made ahead of their use, by threads or by processes.

Worker processes survive signals that go to all processes of a run, as Ctrl-C in
a terminal does: the run stops them once it has saved. They end by themselves
when the process that started them is gone.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import (
  Executor,
  Future,
  ProcessPoolExecutor,
  ThreadPoolExecutor,
)
from multiprocessing import resource_tracker
from typing import Any, Protocol

from data_pipelines.core.batch import Batch

_BUFFER = 4  # batches made ahead by threads, or by each worker
_THREADS = 4
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE = 30.0  # seconds that a worker lives on after SIGTERM


class Stream(Protocol):
  """Batches, made until it is closed."""

  def __iter__(self) -> Iterator[Batch]: ...

  def __next__(self) -> Batch: ...

  def close(self) -> None: ...


def ahead(
  numbers: range, make: Callable[[int], Batch], workers: int = 0
) -> Stream:
  """``make`` of each number in turn, a few of them ahead.

  Threads and processes start when the first batch is read.

  Args:
    numbers: its arguments.
    make: pure; each worker gets a copy.
    workers: processes; 0 is threads of this one.
  """
  if workers:
    return _Ahead(
      numbers,
      lambda: ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(make,),
      ),
      _make_in_worker,
      _BUFFER * workers,
      _held_back,
    )
  return _Ahead(numbers, lambda: ThreadPoolExecutor(_THREADS), make, _BUFFER)


class _Ahead:
  """Results in the order of their numbers, ``size`` of them in the making."""

  def __init__(
    self,
    numbers: range,
    pool: Callable[[], Executor],
    make: Callable[[int], Batch],
    size: int,
    starting: Callable[
      [], contextlib.AbstractContextManager[None]
    ] = contextlib.nullcontext,
  ):
    """``starting``: what a pool is in as it starts its members."""
    self._starting = starting
    self._numbers, self._make, self._size = iter(numbers), make, size
    self._open_pool = pool
    self._pool: Executor | None = None
    self._closed = False
    self._made: collections.deque[Future[Batch]] = collections.deque()

  def __iter__(self) -> Iterator[Batch]:
    return self

  def __next__(self) -> Batch:
    if self._closed:
      raise StopIteration
    self._fill()
    if not self._made:
      self.close()
      raise StopIteration
    first = self._made.popleft()
    self._fill()
    return first.result()

  def close(self) -> None:
    """What is not begun is not made; ends threads and processes."""
    self._closed = True
    self._made.clear()
    if self._pool is not None:
      self._pool.shutdown(wait=True, cancel_futures=True)
      self._pool = None

  def _fill(self) -> None:
    if len(self._made) == self._size:
      return
    with self._starting():  # Pools start their members as work comes in.
      if self._pool is None:
        self._pool = self._open_pool()
      while len(self._made) < self._size:
        number = next(self._numbers, None)
        if number is None:
          return
        self._made.append(self._pool.submit(self._make, number))


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
  """Threads and processes that begin in here begin with signals blocked."""
  resource_tracker.ensure_running()  # It would undo the mask as it starts.
  old = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, old)


_of_worker: dict[str, Callable[[int], Batch]] = {}


def _begin(make: Callable[[int], Batch]) -> None:
  """The first thing that a worker does."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, _end_later)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
  _of_worker["make"] = make


def _make_in_worker(number: int) -> Batch:
  return _of_worker["make"](number)


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
