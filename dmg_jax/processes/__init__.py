"""Several processes that make one run together, each with devices of its own.

All of them run the same program on parts of the same batches (``jit`` over a
mesh of all devices), so all know the same metrics. The *first* alone writes
files and prints. What it reads from the disk, it tells the others
(``decided``), so that all take the same way.

With one process every function here does nothing, or the obvious.
"""

from dmg_jax.processes.agreement import (
  AnyOf,
  agree,
  by_first,
  decided,
  first,
  in_turn,
  place,
  several,
)
from dmg_jax.processes.arrays import gather
from dmg_jax.processes.joining import Position, join, leave, position_of
from dmg_jax.processes.lifeline import Lifeline

__all__ = [
  "AnyOf",
  "Lifeline",
  "Position",
  "agree",
  "by_first",
  "decided",
  "first",
  "gather",
  "in_turn",
  "join",
  "leave",
  "place",
  "position_of",
  "several",
]
