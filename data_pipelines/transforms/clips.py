"""Clips as sets of sound and video store them: JPEG frames, 16-bit sound."""

from __future__ import annotations

import io
import os
import pathlib

import numpy as np
from PIL import Image

from data_pipelines.core import raw
from data_pipelines.errors import InputError
from data_pipelines.transforms import audio, image, video
from data_pipelines.transforms.files import remarks

PICTURES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".flv", ".mkv", ".webm", ".avi", ".mov")
OF_VIDEO = 10  # frames are chosen among this many, equally spaced
_FULL = 32767  # full scale in 16 bits


def picked(total: int, frames: int) -> np.ndarray:
  """``total // frames * i`` of ``total`` pictures, as in the official loaders.

  Of fewer pictures than ``frames`` it is ``total * i // frames``: some repeat.
  """
  i = np.arange(frames)
  return total // frames * i if total >= frames else total * i // frames


def sound(
  path: str,
  length: int,
  sample_rate: int,
  tell: remarks.Tell = remarks.ignore,
) -> np.ndarray:
  """The first ``length`` samples of a sound or video file, int16 [samples]."""
  with raw.named(path):
    if path.lower().endswith(VIDEOS):
      wave = video.sound(path, sample_rate, tell)
    else:
      wave = audio.read(path, sample_rate, tell)
  return numbers_of(wave[:length])


def numbers_of(wave: np.ndarray) -> np.ndarray:
  """A wave in [-1, 1] as 16-bit numbers; what lies outside is clipped."""
  return np.rint(np.clip(wave, -1, 1) * _FULL).astype(np.int16)


def wave_of(numbers: np.ndarray) -> np.ndarray:
  """16-bit numbers as a wave, float32 in [-1, 1]."""
  return np.asarray(numbers, np.float32) / _FULL


def frames(
  path: str, count: int, side: int, tell: remarks.Tell = remarks.ignore
) -> list[np.ndarray]:
  """``count`` frames of a video, or of a folder of pictures, as JPEG bytes."""
  return [jpeg(picture, side) for picture in _frames(path, count, tell)]


def _frames(path: str, frames: int, tell: remarks.Tell) -> list[Image.Image]:
  if os.path.isdir(path):
    files = sorted(
      p for p in pathlib.Path(path).iterdir()
      if p.suffix.lower() in PICTURES and p.name[0] != "."
    )  # fmt: skip
    if not files:
      raise InputError(f"{path}: it holds no pictures")
    return [_picture(files[i]) for i in picked(len(files), frames)]

  def choose(total: int) -> np.ndarray:
    return video.positions(total, OF_VIDEO)[picked(OF_VIDEO, frames)]

  with raw.named(path):
    return video.pictures(path, choose, tell)


def _picture(path: pathlib.Path) -> Image.Image:
  with raw.named(str(path)), Image.open(path) as picture:
    image.check_pixels(picture.size, image.MAX_PIXELS)
    return picture.convert("RGB")


def jpeg(picture: Image.Image, side: int) -> np.ndarray:
  """Squashed to a square, as uint8 [bytes]."""
  if picture.size != (side, side):
    picture = picture.resize((side, side), Image.Resampling.BILINEAR)
  file = io.BytesIO()
  picture.save(file, "JPEG", quality=image.QUALITY)
  return np.frombuffer(file.getvalue(), np.uint8)
