"""One clip's media: some frames as JPEG bytes, the sound as 16-bit numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from data_pipelines.transforms import kinds

NPERSEG, NOVERLAP = 512, 353


@dataclasses.dataclass(frozen=True)
class ClipSettings:
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


def make(clip: Clip, settings: ClipSettings) -> dict[str, np.ndarray]:
  """``wave`` int16 [samples], and ``frame_<i>`` uint8 [bytes of a JPEG]."""
  options = preprocessing(settings, settings.side)
  sounds = kinds.ClipAudio(options["audio"])
  videos = kinds.ClipVideo(options["video"])
  fields = {"wave": sounds.pack(sounds.read(clip.sound))}
  for i, data in enumerate(videos.pack(videos.read(clip.video))):
    fields[f"frame_{i}"] = data
  return fields


def preprocessing(
  settings: ClipSettings, image_size: int
) -> dict[str, dict[str, Any]]:
  """Settings of both modalities; ``image_size`` is that of a batch."""
  rate = settings.sample_rate
  return {
    "audio": {
      "sample_rate": rate,
      "length": round(settings.seconds * rate),
      "nperseg": NPERSEG,
      "noverlap": NOVERLAP,
      "of_clip": True,
    },
    "video": {
      "frames": settings.frames,
      "size": image_size,
      "stored": settings.side,
      "of_clip": True,
    },
  }
