"""One clip's media: some frames as JPEG bytes, the sound as 16-bit numbers."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.transforms import kinds
from data_pipelines.transforms.files import remarks

NPERSEG, NOVERLAP = 512, 353
REMARKS = "remarks"


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
  """``wave`` int16 [samples], and ``frame_<i>`` uint8 [bytes of a JPEG].

  ``REMARKS``, uint8 [bytes of a text], is there if the clip is not as it should
  be.
  """
  options = preprocessing(settings, settings.side)
  sounds = kinds.ClipAudio(options["audio"])
  videos = kinds.ClipVideo(options["video"])
  told: list[str] = []

  def tell(path: str, remark: remarks.Remark) -> None:
    told.append(f"{path}: {remarks.sentence(remark)}")

  heard = sounds.read(clip.sound, functools.partial(tell, clip.sound))
  shown = videos.read(clip.video, functools.partial(tell, clip.video))
  if not heard.any():
    told.append(f"{clip.sound}: its sound is silent")
  fields = {"wave": sounds.pack(heard)}
  for i, data in enumerate(videos.pack(shown)):
    fields[f"frame_{i}"] = data
  return fields | noted(told)


def noted(told: Sequence[str]) -> dict[str, np.ndarray]:
  """``REMARKS`` of a clip, if there are any."""
  text = "; ".join(dict.fromkeys(told))
  return {REMARKS: np.frombuffer(text.encode(), np.uint8)} if text else {}


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
