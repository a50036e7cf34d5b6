"""What a run that failed says: a line for the user, or a bug report."""

from __future__ import annotations

import traceback

from dmg_jax.errors import ListedDataError, UserError

_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")
_MEMORY_ADVICE = (
  "out of memory: lower batch_size (behind the recipe, as lb,batch_size=16; "
  "the batches of α and of evaluation follow) or the size of the inputs, e.g. "
  "--config.data.image_size (--traceback shows where)"
)


def text(error: Exception) -> str:
  """The words for an error that ended the command.

  A ``UserError``, or an error of the operating system, is one line. Several
  things that are wrong with data have a line each. Memory that ran out is a
  line that says what to lower. Anything else is a bug: the traceback, and what
  to send.
  """
  if isinstance(error, ListedDataError):
    return f"error: {error} (--traceback shows where)\n"
  if isinstance(error, UserError | OSError):
    return f"error: {_line(error)} (--traceback shows where)\n"
  if out_of_memory(error):
    return f"error: {_MEMORY_ADVICE}. {_line(error)[:300]}\n"
  shown = "".join(traceback.format_exception(error))
  return (
    f"{shown}\nThis is a bug in dmg_jax, not in your command. Please report it "
    "with the lines above, the command, and config.json of the run's folder "
    "if there is one.\n"
  )


def out_of_memory(error: BaseException) -> bool:
  """Whether a device, or the host, had too little memory."""
  if isinstance(error, MemoryError):
    return True
  return type(error).__name__ == "JaxRuntimeError" and any(
    word in str(error) for word in _MEMORY
  )


def _line(error: Exception) -> str:
  return " ".join(str(error).split())
