"""Every error class, and the one ``unknown``.

Those that data pipelines raise, too, are defined there; see
``data_pipelines.errors`` for the family.
"""

from __future__ import annotations

from pathlib import Path

from data_pipelines.errors import (
  BusyError,
  DamagedError,
  DataError,
  InputError,
  ListedDataError,
  MissingFileError,
  MissingPackageError,
  UserError,
  WriteError,
  close_to,
  nearest,
  unknown,
)

__all__ = [
  "BusyError",
  "DamagedError",
  "DataError",
  "DivergedError",
  "InputError",
  "ListedDataError",
  "MissingFileError",
  "MissingPackageError",
  "NotPicklableError",
  "UnsuitableError",
  "UserError",
  "WriteError",
  "close_to",
  "nearest",
  "one_line",
  "out_of_memory",
  "unknown",
]

_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")
MEMORY_ADVICE = (
  "out of memory: lower batch_size (after the recipe, as in "
  "lb,batch_size=16; the batches for α and for evaluation follow) or the size "
  "of the inputs, e.g. --config.data.image_size"
)


class UnsuitableError(InputError):
  """A method that does not work with such data, whatever else is configured."""


class NotPicklableError(UserError, TypeError):
  """Something that pickle cannot keep; the message says what does."""


class DivergedError(UserError, RuntimeError):
  """A loss term or the weights became NaN or infinite.

  Attributes:
    workdir: the run's folder, if it has one.
  """

  def __init__(self, text: str, workdir: Path | None = None):
    super().__init__(text)
    self.workdir = workdir


def out_of_memory(error: BaseException) -> bool:
  """Whether a device, or the host, ran out of memory."""
  if isinstance(error, MemoryError):
    return True
  return type(error).__name__ == "JaxRuntimeError" and any(
    word in str(error) for word in _MEMORY
  )


def one_line(error: BaseException) -> str:
  """The message of an error without line breaks; its type if it has none."""
  return " ".join(str(error).split()) or type(error).__name__
