"""Splits of clips: by short hashes, by lists, and parts held out of train."""

from __future__ import annotations

import base64
import collections
import hashlib
from collections.abc import Callable, Container, Iterable, Mapping

Shares = Callable[[str], Mapping[str, float]]


def digest(text: str) -> bytes:
  """SHA-256 of a text."""
  return hashlib.sha256(text.encode()).digest()


class Members:
  """A set of names as short hashes: ``base64`` of 3 bytes each.

  Args:
    salt: before each name.
    text: all hashes; white space is ignored.
  """

  def __init__(self, salt: int, text: str):
    data = base64.b64decode("".join(text.split()))
    self._salt = salt
    self._hashes = {data[i : i + 3] for i in range(0, len(data), 3)}

  def __contains__(self, name: str) -> bool:
    return digest(f"{self._salt}{name}")[:3] in self._hashes

  def __len__(self) -> int:
    return len(self._hashes)


def hold_out(
  labels: Mapping[str, str],
  splits: Mapping[str, str],
  shares: Shares,
  stay: Container[str] = (),
) -> dict[str, str]:
  """The splits, with those that have no clips yet taken from train.

  Within each class, clips of train are ordered by the hash of their name; the
  first ones, at least one, make the first split held out, and so on. At least
  one clip stays.

  Args:
    labels: {clip: class}.
    splits: {clip: split}.
    shares: class -> {split: share of the class's clips in train}.
    stay: clips that are never held out.
  """
  there = set(splits.values())
  members = collections.defaultdict(list)
  for clip in sorted(splits, key=lambda c: (digest(c), c)):
    if splits[clip] == "train" and clip not in stay:
      members[labels[clip]].append(clip)
  held = dict(splits)
  for label, clips in members.items():
    total = len(clips)
    for split, share in shares(label).items():
      if split not in there:
        count = min(max(1, round(share * total)), len(clips) - 1)
        held.update(dict.fromkeys(clips[:count], split))
        del clips[:count]
  return held


def fill(
  splits: Mapping[str, str], wanted: Iterable[str], stay: Container[str] = ()
) -> dict[str, str]:
  """The splits, with a tenth of train in each wanted one that is empty.

  Of any class, at least one clip, by the hash of its name; one clip stays.

  Args:
    splits: {clip: split}.
    wanted: splits.
    stay: clips that stay in train.
  """
  made = dict(splits)
  order = sorted(splits, key=lambda c: (digest(c), c))
  for split in wanted:
    train = [c for c in order if made[c] == "train"]
    if split not in made.values():
      free = [c for c in train if c not in stay][: max(1, len(train) // 10)]
      made.update(dict.fromkeys(free[: len(train) - 1], split))
  return made
