"""Progress bars, and silence where it is asked for."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterable, Iterator
from typing import TypeVar

_QUIET = contextvars.ContextVar("quiet", default=False)
T = TypeVar("T")


@contextlib.contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
  """Preparing data prints nothing in here, if ``quiet``."""
  before = _QUIET.set(quiet)
  try:
    yield
  finally:
    _QUIET.reset(before)


def is_quiet() -> bool:
  """Whether this runs inside ``quietly``."""
  return _QUIET.get()


def progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
  """Passes items on; on a terminal with a progress bar."""
  from rich.console import Console
  from rich.progress import track

  console = Console(stderr=True)
  yield from track(
    items,
    description,
    total=total,
    console=console,
    transient=True,
    disable=is_quiet() or not console.is_terminal,
  )
