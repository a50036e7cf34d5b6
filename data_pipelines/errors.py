"""Errors that the user can fix, and ``unknown`` for names.

``UserError`` is the family: the command line shows any of them as one line (or
a line for each thing that is wrong with the data), anything else as a bug.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """Something that the user can fix; the message says what and how.

  Example:

    >>> import dmg_jax
    >>> try:
    ...   dmg_jax.fit({"sensor": [[1.0], [2.0]]}, ["a", "b"], recipe="bl")
    ... except dmg_jax.UserError as error:
    ...   print(str(error)[:41])
    unknown recipe 'bl'; did you mean 'lb'? (
  """


class InputError(UserError, ValueError):
  """A value that cannot be used; the message names it and the valid ones."""


class DataError(UserError, RuntimeError):
  """Data on disk that cannot be used; the message names folder and fix."""


class ListedDataError(DataError):
  """Several faults in data, one a line."""


class WriteError(DataError, OSError):
  """A file that cannot be written; names the folder and what is missing."""


class BusyError(UserError, RuntimeError):
  """A folder that another process is working in."""


class DamagedError(UserError, RuntimeError):
  """A file of a run that is not as it was written."""


class MissingPackageError(UserError, ModuleNotFoundError):
  """An optional package is missing; the message says how to install it."""


class MissingFileError(UserError, FileNotFoundError):
  """A required file is missing; the message names it."""


def unknown(what: str, value: object, known: Iterable[object]) -> InputError:
  """The error for a name that is not among the choices.

  Args:
    what: what the name stands for, e.g. ``"recipe"``.
    value: the name that was given.
    known: the choices.
  """
  choices = sorted(known, key=str)
  return InputError(f"unknown {what} {value!r}{nearest(value, choices)}")


def reason(error: Exception) -> str:
  """What an error says, in one line, without numbers of the system.

  Messages of decoders (FFmpeg, libsndfile) repeat the path and end in a log;
  only their sentence is kept.
  """
  said = getattr(error, "strerror", None) or getattr(error, "error_string", "")
  text = " ".join(str(said or error).split())
  return text or type(error).__name__


def nearest(value: object, choices: Iterable[object]) -> str:
  """``; did you mean 'x'? (choose from x, y)``, to end a message with."""
  names = [str(c) for c in choices]
  shown = f"choose from {', '.join(names)}" if names else "there are none"
  return f"{close_to(value, names)} ({shown})"


def close_to(value: object, names: Iterable[str]) -> str:
  """``; did you mean 'x'?``, or nothing if no name is close."""
  close = difflib.get_close_matches(str(value), list(names), n=1, cutoff=0.5)
  return f"; did you mean {close[0]!r}?" if close else ""
