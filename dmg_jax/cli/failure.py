"""The message of a run that failed: a line for the user, or a bug report."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from dmg_jax.errors import (
  ListedDataError,
  UserError,
  memory_advice,
  one_line,
  out_of_memory,
)

# What libraries that write files say in errors of their own.
_DISK = (
  "No space left on device",
  "Permission denied",
  "Read-only file system",
  "Disk quota exceeded",
)


def text(error: Exception, config: Any = None) -> str:
  """The message for an error that ended the command.

  A ``UserError``, or an error of the operating system, is one line. Several
  problems with data have a line each. If memory ran out, the line says what to
  lower, by the config. Anything else is a bug: the traceback, and what to send.
  """
  if isinstance(error, ListedDataError):
    return f"error: {error} (--traceback shows where)\n"
  if out_of_memory(error):
    return (
      f"error: {memory_advice(error, config)} (--traceback shows where). "
      f"{one_line(error)[:300]}\n"
    )
  if isinstance(error, UserError | OSError) or _of_the_disk(error):
    return f"error: {one_line(error)} (--traceback shows where)\n"
  shown = "".join(traceback.format_exception(error))
  return (
    f"{shown}\nThis is a bug in dmg_jax, not in your command. Please report it "
    "with the lines above, the command, and config.json of the run's folder "
    "if there is one.\n"
  )


def hook(otherwise: Callable[[Any], None]) -> Callable[[Any], None]:
  """``sys.unraisablehook`` without what follows from an error that was said.

  When a checkpoint cannot be written, threads of TensorStore report to an event
  loop that is closed by then, each with a traceback.

  Args:
    otherwise: the hook for all else.
  """

  def show(unraisable: Any) -> None:
    if "loop is closed" not in str(unraisable.exc_value):
      otherwise(unraisable)

  return show


def _of_the_disk(error: BaseException) -> bool:
  """Whether a file could not be written, in the words of a library."""
  return any(word in str(error) for word in _DISK)
