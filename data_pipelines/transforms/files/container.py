"""Files with streams of sound and pictures, as far as PyAV can read them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import importlib
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.errors import MissingPackageError, reason
from data_pipelines.transforms.files import signatures

# Formats whose headers count packets, and those that state a duration.
_COUNTED = ("mov", "avi")
_TIMED = ("matroska", "flv")
_ASF = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")  # File properties.


def require() -> Any:
  """The module of PyAV.

  Raises:
    ModuleNotFoundError: it is not installed; the message says how.
  """
  try:
    return importlib.import_module("av")
  except ModuleNotFoundError as error:
    raise MissingPackageError(
      f"videos need the package av ({error}): pip install -e '.[video]'"
    ) from error


@dataclasses.dataclass(frozen=True)
class Survey:
  """What the packets of a stream say, before any is decoded.

  Attributes:
    packets: those that are not empty.
    share: of what the header announces; ``None`` if it announces nothing.
  """

  packets: int
  share: float | None


@contextlib.contextmanager
def opened(path: str | os.PathLike, kind: str) -> Iterator[Any]:
  """The open container.

  Args:
    path: of the file.
    kind: of the modality, ``video`` or ``audio``.

  Raises:
    ValueError: it cannot be opened.
  """
  av = require()
  if ":" in signatures.what(path):  # FFmpeg makes something of any text.
    raise signatures.unreadable(kind, path, "")
  try:
    container = av.open(os.fspath(path))
  except (av.FFmpegError, UnicodeError) as error:
    raise signatures.unreadable(kind, path, _closed(path, error)) from error
  with container:
    yield container


def survey(path: str | os.PathLike, kind: str) -> Survey:
  """Looks through the first stream of a kind; headers alone may be wrong.

  Raises:
    ValueError: as ``opened``; or there is no such stream.
  """
  spans: dict[int, _Span] = collections.defaultdict(_Span)
  with opened(path, kind) as container:
    chosen = stream(container, kind)
    for packet in _packets(container, []):
      spans[packet.stream.index].add(packet)
    share = _share(container, chosen, spans)
    return Survey(spans[chosen.index].packets, share)


@dataclasses.dataclass
class _Span:
  """The packets of a stream that are not empty, and its time in seconds."""

  packets: int = 0
  start: float = float("inf")
  end: float = 0.0

  def add(self, packet: Any) -> None:
    self.packets += packet.size > 0
    if packet.pts is not None and packet.size:
      self.start = min(self.start, float(packet.pts * packet.time_base))
      end = packet.pts + (packet.duration or 0)
      self.end = max(self.end, float(end * packet.time_base))


def _share(
  container: Any, chosen: Any, spans: Mapping[int, _Span]
) -> float | None:
  """Of what the header announces: of packets or of time.

  An uncompressed sound's header counts samples and not packets.
  """
  name, own = container.format.name, spans[chosen.index]
  if name.startswith("avi") and container.streams.video:
    chosen = container.streams.video[0]
    own = spans[chosen.index]
  if name.startswith(_COUNTED) and chosen.type == "video" and chosen.frames:
    return own.packets / chosen.frames
  if name.startswith("mov") and chosen.duration:
    length = float(chosen.duration * chosen.time_base)
    return max(own.end - max(own.start, 0), 0) / length
  if name.startswith(_TIMED) and container.duration:
    start = max(container.start_time or 0, 0) / 1e6
    end = max((s.end for s in spans.values()), default=0)
    return max(end - start, 0) / (container.duration / 1e6)
  return _share_of_asf(container.name) if name.startswith("asf") else None


def _share_of_asf(path: str) -> float | None:
  """Of the bytes that the header of a WMA or WMV file announces."""
  with open(path, "rb") as file:
    start = file.read(4096)
  place = start.find(_ASF)
  if place < 0 or len(start) < place + 48:
    return None
  total = int.from_bytes(start[place + 40 : place + 48], "little")
  return os.path.getsize(path) / total if total else None


def stream(container: Any, kind: str) -> Any:
  """The first stream of a kind.

  Raises:
    ValueError: there is none.
  """
  found = getattr(container.streams, kind)
  if not found:
    what = "sound" if kind == "audio" else "pictures"
    raise signatures.unreadable(kind, container.name, f"it has no {what}")
  return found[0]


def frames(container: Any, kind: str, lost: list[str]) -> Iterator[Any]:
  """All frames of the first stream of a kind that can be decoded.

  Args:
    container: an open one.
    kind: ``video`` or ``audio``.
    lost: gets the reason of each packet that cannot be decoded.
  """
  av = require()
  for packet in _packets(container, lost, stream(container, kind)):
    if packet.is_corrupt:
      lost.append("a packet is cut off")
    try:
      found = packet.decode()
    except av.FFmpegError as error:
      lost.append(reason(error))
    else:
      yield from found


def _packets(container: Any, lost: list[str], *streams: Any) -> Iterator[Any]:
  """Up to the end, or to the place where it cannot go on."""
  av = require()
  try:
    yield from container.demux(*streams)
  except av.FFmpegError as error:
    lost.append(reason(error))


def _closed(path: str | os.PathLike, error: Exception) -> str:
  """Why a file cannot be opened, in words."""
  if signatures.what(path) == signatures.MP4 and not _has_index(path):
    return (
      "it is cut off: its index, which MP4 keeps at the end, is missing; copy "
      "or download it again"
    )
  return f"it is damaged, or no sound or video ({reason(error)})"


def _has_index(path: str | os.PathLike) -> bool:
  """Whether an MP4 file has its box ``moov``."""
  place, total = 0, os.path.getsize(path)
  with open(path, "rb") as file:
    while place + 8 <= total:
      file.seek(place)
      size, name = struct.unpack(">I4s", file.read(8))
      if name == b"moov":
        return place + size <= total
      if size == 1:
        size = int.from_bytes(file.read(8), "big")
      if size < 8:
        return False
      place += size
  return False
