"""How much sound the headers of a file announce, to find out what is lost."""

from __future__ import annotations

import os
import struct

_OPEN_ENDED = 0x7FFF0000  # Sizes of streams, which were not known at the start.
_SLACK = 64  # bytes that careless writers miscount
_COUNTS = (b"Xing", b"Info", b"VBRI")  # of the frames of an MP3


def share(
  path: str | os.PathLike, samples: int, announced: int
) -> float | None:
  """The part of a sound that is there, of what its headers announce.

  Args:
    path: of a file that soundfile reads.
    samples: that were read.
    announced: samples by soundfile, which for some formats is what is there.

  Returns:
    ``None`` if the headers announce no length.
  """
  with open(path, "rb") as file:
    start = file.read(12).ljust(12, b"\0")
    if start[:3] == b"ID3" or start[0] == 0xFF:
      announced *= _counts_frames(file, start)
  if start[:4] == b"OggS":
    return None
  total = _bytes(start)
  if total is None:
    return samples / announced if announced else None
  size = os.path.getsize(path)
  cut = size + _SLACK < total < _OPEN_ENDED
  return size / total if cut else 1.0


def is_cut_ogg(path: str | os.PathLike) -> bool:
  """Whether an Ogg file lacks its last page, or a part of that."""
  with open(path, "rb") as file:
    if file.read(4) != b"OggS":
      return False
    file.seek(max(0, os.path.getsize(path) - 2**17))
    end = file.read()
  page = end[max(end.rfind(b"OggS\0"), 0) :]
  if len(page) < 27 or not page[5] & 4:
    return True
  lengths = page[27 : 27 + page[26]]
  return len(page) < 27 + page[26] + sum(lengths)


def _bytes(start: bytes) -> int | None:
  """Size of a WAV, AIFF or AU file by its first bytes."""
  if start[:4] == b"RIFF":
    return struct.unpack("<I", start[4:8])[0] + 8
  if start[:4] == b"FORM":
    return struct.unpack(">I", start[4:8])[0] + 8
  if start[:4] == b".snd":
    return sum(struct.unpack(">II", start[4:12]))
  return None


def _counts_frames(file, start: bytes) -> bool:
  """Whether an MP3's first frame counts the others; else it is a guess."""
  tag = 0
  if start[:3] == b"ID3":
    for digit in start[6:10]:
      tag = tag << 7 | digit
    tag += 10
  file.seek(tag)
  frame = file.read(2048)
  return any(name in frame for name in _COUNTS)
