"""Videos: some frames of each, uint8 [t h w c], and sound. Needs PyAV."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from PIL import Image

from data_pipelines.errors import InputError
from data_pipelines.transforms import image
from data_pipelines.transforms.files import container, remarks, upright

require = container.require


def positions(total: int, frames: int) -> np.ndarray:
  """Centres of ``frames`` equal parts of ``total`` frames; may repeat."""
  return ((np.arange(frames) + 0.5) * total / frames).astype(int)


def read(
  path: str | os.PathLike,
  frames: int,
  size: int,
  tell: remarks.Tell = remarks.ignore,
  most: int = image.MAX_PIXELS,
) -> np.ndarray:
  """Equally spaced frames as RGB, [``frames``, ``size``, ``size``, 3].

  Args:
    path: of the video.
    frames: how many.
    size: side of a frame.
    tell: gets a remark if the file is damaged.
    most: pixels that a frame may have.

  Raises:
    ValueError: no frame can be decoded, or too few, or they are too large.
  """
  chosen = pictures(path, lambda total: positions(total, frames), tell, most)
  return np.stack([square(picture, size) for picture in chosen])


def square(picture: Image.Image, size: int) -> np.ndarray:
  """A frame as RGB [``size``, ``size``, 3]; the rest is black."""
  return image.square(picture, size, fill=(0, 0, 0))


def pictures(
  path: str | os.PathLike,
  choose: Callable[[int], np.ndarray],
  tell: remarks.Tell = remarks.ignore,
  most: int = image.MAX_PIXELS,
) -> list[Image.Image]:
  """The frames that ``choose`` wants, as RGB pictures, upright.

  Args:
    path: of the video.
    choose: number of frames -> positions of those wanted; may repeat.
    tell: gets a remark if the file is damaged.
    most: pixels that a frame may have, by the file's header.

  Raises:
    ValueError: as ``read``.
  """
  with container.opened(path, "video") as file:
    stream = container.stream(file, "video")
    image.check_pixels((stream.width, stream.height), most)
  found = container.survey(path, "video")
  total, lost = found.packets, []
  kept, decoded = _decode(path, set(choose(total)), lost)
  if decoded < total:  # Damaged packets, or some that make no frame.
    total = decoded
    kept, _ = _decode(path, set(choose(total)), []) if total else ({}, 0)
  if not total:
    raise InputError("no frame can be decoded")
  remarks.check_whole(found.share, bool(lost), tell)
  return [kept[i] for i in choose(total)]


def sound(
  path: str | os.PathLike,
  sample_rate: int,
  tell: remarks.Tell = remarks.ignore,
) -> np.ndarray:
  """The sound track as mono, float32 [samples].

  Args:
    path: of the video.
    sample_rate: samples a second.
    tell: gets a remark if the track is damaged.

  Raises:
    ValueError: there is none, it holds no samples, too little of it can be
      read, or the file is no video.
  """
  av = require()
  found = container.survey(path, "audio")
  parts, lost = [], []
  with container.opened(path, "audio") as file:
    resampler = av.AudioResampler("flt", "mono", sample_rate)
    for frame in container.frames(file, "audio", lost):
      parts += resampler.resample(frame)
    if parts:
      parts += resampler.resample(None)
  samples = [np.asarray(part.to_ndarray()).reshape(-1) for part in parts]
  wave = np.concatenate([np.zeros(0, np.float32), *samples])
  if not len(wave):
    raise InputError("its sound holds no samples")
  remarks.check_whole(found.share, bool(lost), tell)
  return wave.astype(np.float32)


def _decode(
  path: str | os.PathLike, wanted: set[int], lost: list[str]
) -> tuple[dict[int, Image.Image], int]:
  """{position: wanted frame}, and how many frames there are."""
  kept, decoded = {}, 0
  with container.opened(path, "video") as file:
    for frame in container.frames(file, "video", lost):
      if decoded in wanted:
        kept[decoded] = upright.picture(frame)
      decoded += 1
  return kept, decoded
