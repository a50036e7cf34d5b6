"""Every error class, and the one ``unknown``.

Those that data pipelines raise, too, are defined there; see
``data_pipelines.errors`` for the family.
"""

from __future__ import annotations

from pathlib import Path

from data_pipelines.errors import (
  DataError,
  InputError,
  ListedDataError,
  MissingFileError,
  MissingPackageError,
  UserError,
  close_to,
  nearest,
  unknown,
)

__all__ = [
  "DataError",
  "DivergedError",
  "InputError",
  "ListedDataError",
  "MissingFileError",
  "MissingPackageError",
  "UnsuitableError",
  "UserError",
  "close_to",
  "nearest",
  "unknown",
]


class UnsuitableError(InputError):
  """A method that does not work with such data, whatever else is configured."""


class DivergedError(UserError, RuntimeError):
  """A loss term or the weights became NaN or infinite.

  Attributes:
    workdir: the run's folder, if it has one.
  """

  def __init__(self, text: str, workdir: Path | None = None):
    super().__init__(text)
    self.workdir = workdir
