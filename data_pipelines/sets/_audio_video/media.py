"""One clip's media: some frames as JPEG bytes, the sound as 16-bit numbers."""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib

import numpy as np
from PIL import Image

from data_pipelines.core import raw
from data_pipelines.errors import InputError
from data_pipelines.sets._audio_video.files import PICTURES, VIDEOS
from data_pipelines.transforms import audio, video

OF_VIDEO = 10  # equally spaced frames of a video, of which some are taken
_QUALITY = 95
_FULL = 32767  # the 16-bit number of full scale


@dataclasses.dataclass(frozen=True)
class Settings:
  """How clips are stored.

  Attributes:
    frames: number of them.
    side: of a frame in pixels; frames are squashed to squares.
    sample_rate: samples a second.
    seconds: of sound kept, from the start.
  """

  frames: int
  side: int
  sample_rate: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Clip:
  """One sample.

  Attributes:
    label: its class.
    split: its part of the data.
    sound: path of a sound file, or of a video with sound.
    video: path of a video, or of a folder of pictures.
  """

  label: str
  split: str
  sound: str
  video: str


def picked(total: int, frames: int) -> np.ndarray:
  """``total // frames * i`` of ``total`` pictures, as the official loaders.

  Of fewer pictures than ``frames`` it is ``total * i // frames``: some repeat.
  """
  i = np.arange(frames)
  return total // frames * i if total >= frames else total * i // frames


def make(clip: Clip, settings: Settings) -> dict[str, np.ndarray]:
  """``wave`` int16 [samples], and ``frame_<i>`` uint8 [bytes of a JPEG]."""
  length = round(settings.seconds * settings.sample_rate)
  fields = {"wave": sound(clip.sound, length, settings.sample_rate)}
  for i, data in enumerate(frames(clip.video, settings.frames, settings.side)):
    fields[f"frame_{i}"] = data
  return fields


def sound(path: str, length: int, sample_rate: int) -> np.ndarray:
  """The first ``length`` samples of a sound, or of a video's, as int16."""
  wave = _wave(path, sample_rate)[:length]
  return np.rint(np.clip(wave, -1, 1) * _FULL).astype(np.int16)


def frames(path: str, count: int, side: int) -> list[np.ndarray]:
  """``count`` frames of a video, or of a folder of pictures, as JPEG bytes."""
  return [_jpeg(picture, side) for picture in _frames(path, count)]


def wave_of(numbers: np.ndarray) -> np.ndarray:
  """Stored sound as float32 in [-1, 1]."""
  return np.asarray(numbers, np.float32) / _FULL


def _wave(path: str, sample_rate: int) -> np.ndarray:
  with raw.named(path):
    if path.lower().endswith(VIDEOS):
      return video.sound(path, sample_rate)
    return audio.read(path, sample_rate)


def _frames(path: str, frames: int) -> list[Image.Image]:
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
    return video.pictures(path, choose)


def _picture(path: pathlib.Path) -> Image.Image:
  with raw.named(str(path)), Image.open(path) as picture:
    return picture.convert("RGB")


def _jpeg(picture: Image.Image, side: int) -> np.ndarray:
  if picture.size != (side, side):
    picture = picture.resize((side, side), Image.Resampling.BILINEAR)
  file = io.BytesIO()
  picture.save(file, "JPEG", quality=_QUALITY)
  return np.frombuffer(file.getvalue(), np.uint8)
