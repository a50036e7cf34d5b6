"""Videos: some frames of each, uint8 [t h w c], and sound. Needs PyAV."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.errors import InputError, MissingPackageError
from data_pipelines.transforms import image


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


def positions(total: int, frames: int) -> np.ndarray:
  """Centres of ``frames`` equal parts of ``total`` frames; may repeat."""
  return ((np.arange(frames) + 0.5) * total / frames).astype(int)


def read(path: str | os.PathLike, frames: int, size: int) -> np.ndarray:
  """Equally spaced frames as RGB, [``frames``, ``size``, ``size``, 3].

  Raises:
    ValueError: no frame can be decoded.
    OSError: the file is absent or no video (decoders may raise others).
  """
  chosen = pictures(path, lambda total: positions(total, frames))
  return np.stack([square(picture, size) for picture in chosen])


def square(picture: Image.Image, size: int) -> np.ndarray:
  """A frame as RGB [``size``, ``size``, 3]; the rest is black."""
  return image.square(picture, size, fill=(0, 0, 0))


def pictures(
  path: str | os.PathLike, choose: Callable[[int], np.ndarray]
) -> list[Image.Image]:
  """The frames that ``choose`` wants, as RGB pictures.

  Args:
    path: of the video.
    choose: number of frames -> positions of those wanted; may repeat.

  Raises:
    ValueError, OSError: as ``read``.
  """
  total = _count(path)
  kept, decoded = _decode(path, set(choose(total)))
  if decoded < total:  # Damaged packets, or some that make no frame.
    total = decoded
    kept, _ = _decode(path, set(choose(total))) if total else ({}, 0)
  if not total:
    raise InputError("no frame can be decoded")
  return [kept[i] for i in choose(total)]


def sound(path: str | os.PathLike, sample_rate: int) -> np.ndarray:
  """The sound track as mono, float32 [samples].

  Raises:
    ValueError: there is none, or it holds no samples.
    OSError: as ``read``.
  """
  av = require()
  parts = []
  with av.open(os.fspath(path)) as container:
    if not container.streams.audio:
      raise InputError("it has no sound")
    resampler = av.AudioResampler("flt", "mono", sample_rate)
    for frame in container.decode(audio=0):
      parts += resampler.resample(frame)
    if parts:
      parts += resampler.resample(None)
  samples = [np.asarray(part.to_ndarray()).reshape(-1) for part in parts]
  wave = np.concatenate([np.zeros(0, np.float32), *samples])
  if not len(wave):
    raise InputError("its sound holds no samples")
  return wave.astype(np.float32)


def _count(path) -> int:
  """Number of video packets, without decoding; headers may be wrong."""
  with require().open(os.fspath(path)) as container:
    if not container.streams.video:
      raise InputError("it has no pictures")
    return sum(p.size > 0 for p in container.demux(video=0))


def _decode(path, wanted: set[int]) -> tuple[dict[int, Image.Image], int]:
  """{position: wanted frame}, and how many frames there are."""
  kept, decoded = {}, 0
  with require().open(os.fspath(path)) as container:
    for frame in container.decode(video=0):
      if decoded in wanted:
        kept[decoded] = frame.to_image()
      decoded += 1
  return kept, decoded
