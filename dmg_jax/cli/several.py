"""The flags of several processes that make one run together."""

from __future__ import annotations

import time
from typing import Any

from dmg_jax import processes
from dmg_jax.errors import InputError

# What all processes do together; the rest is done by one alone.
MODES = ("train", "evaluate", "readouts")
_SECONDS = 3.0


def join(flags: Any) -> None:
  """Joins the other processes, if the flags name some.

  Args:
    flags: of the command line, parsed.

  Raises:
    ValueError: flags that are incomplete or out of range, or a mode that one
      process does; the others did not come.
  """
  place = processes.position_of(
    flags.coordinator_address,
    flags.process_count,
    flags.process_index,
    flags.distributed,
  )
  if place is None and flags.distributed == "off":
    return
  if flags.mode not in MODES:
    raise InputError(
      f"--mode={flags.mode} is done by one process: leave out the flags of "
      f"several processes, which work with {', '.join(MODES)}"
    )
  processes.join(place)


def named(text: str) -> str:
  """An error message, which says of which process it is if there are several.

  If the error comes from the end of another process, the lifeline names that
  one instead, and this call does not return.
  """
  if not processes.several():
    return text
  index, count = processes.place()
  if not text.startswith("error: "):  # A bug; or a peer that is gone.
    time.sleep(_SECONDS)
  return f"process {index} of {count}: {text}"
