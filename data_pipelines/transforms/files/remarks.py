"""What a reader says about a file that it could use, but not as it stands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from data_pipelines.errors import InputError

LEAST = 0.25  # share of a damaged sound or video that must be readable
_WHOLE = 0.9  # headers are not exact


@dataclasses.dataclass(frozen=True)
class Damaged:
  """A sound or video of which only a part can be read.

  Attributes:
    share: of the length that the file announces; ``None`` if it announces none.
  """

  share: float | None


@dataclasses.dataclass(frozen=True)
class Shallow:
  """A picture of 16 bits that uses a small part of their range.

  Attributes:
    low: its smallest value.
    high: its largest value.
  """

  low: int
  high: int


Remark = Damaged | Shallow
Tell = Callable[[Remark], None]


def ignore(remark: Remark) -> None:
  """Takes no notice."""


def sentence(remark: Remark) -> str:
  """A remark in words."""
  if isinstance(remark, Shallow):
    return (
      f"its 16 bits use values {remark.low} to {remark.high} of 0 to 65535, "
      "no others"
    )
  part = "what can be read" if remark.share is None else f"{remark.share:.0%}"
  return f"it is damaged or cut off, and {part} of it is used"


def check_whole(share: float | None, broken: bool, tell: Tell) -> None:
  """The one rule for sounds and videos that are damaged or cut off.

  What can be read is used, with a remark, if it is at least ``LEAST`` of what
  the file announces or if the file announces nothing.

  Args:
    share: readable part of the announced length, ``None`` if none is announced.
    broken: whether some of the file could not be decoded.
    tell: gets the remark.

  Raises:
    ValueError: too little can be read.
  """
  if share is not None and share < LEAST:
    raise InputError(
      f"it is damaged or cut off: {share:.0%} of its length can be read, "
      f"{LEAST:.0%} are needed"
    )
  if broken or (share is not None and share < _WHOLE):
    tell(Damaged(None if share is None else min(share, 1.0)))
