"""Videos: some frames of each, uint8 [t h w c]. Needs PyAV."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy as np

from data_pipelines import image


def require() -> Any:
  """The module of PyAV.

  Raises:
    ModuleNotFoundError: it is not there; the message says how to get it.
  """
  try:
    return importlib.import_module("av")
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
      f"videos need the package av ({error}): pip install -e '.[video]'"
    ) from error


def positions(total: int, frames: int) -> np.ndarray:
  """Middles of ``frames`` equal parts of ``total`` frames; may repeat."""
  return ((np.arange(frames) + 0.5) * total / frames).astype(int)


def read(path: str | os.PathLike, frames: int, size: int) -> np.ndarray:
  """Equally spaced frames as RGB, [``frames``, ``size``, ``size``, 3].

  Raises:
    ValueError: no frame can be decoded.
    OSError: the file is absent or no video (decoders raise others, too).
  """
  total = _count(path)
  kept, decoded = _decode(path, set(positions(total, frames)), size)
  if decoded < total:  # Damaged packets, or some that make no frame.
    total = decoded
    kept, _ = _decode(path, set(positions(total, frames)), size)
  if not total:
    raise ValueError("no frame can be decoded")
  return np.stack([kept[i] for i in positions(total, frames)])


def _count(path) -> int:
  """Packets of pictures, which costs no decoding; headers may be wrong."""
  with require().open(os.fspath(path)) as container:
    if not container.streams.video:
      raise ValueError("it has no pictures")
    return sum(p.size > 0 for p in container.demux(video=0))


def _decode(
  path, wanted: set[int], size: int
) -> tuple[dict[int, np.ndarray], int]:
  """{position: wanted frame}, and how many frames there are."""
  kept, decoded = {}, 0
  with require().open(os.fspath(path)) as container:
    for frame in container.decode(video=0):
      if decoded in wanted:
        kept[decoded] = image.square(frame.to_image(), size, fill=(0, 0, 0))
      decoded += 1
  return kept, decoded
