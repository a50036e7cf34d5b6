"""One clip of UCF-101: some frames and some optical flow, as JPEG bytes."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
from PIL import Image

from data_pipelines.core import raw
from data_pipelines.errors import InputError
from data_pipelines.sets._audio_video import media
from data_pipelines.sets.ucf101 import found as ucf_files
from data_pipelines.transforms import clips, crop, image, optical_flow, video
from data_pipelines.transforms.files import remarks

PARTS = ("x", "y")


@dataclasses.dataclass(frozen=True)
class FlowSettings:
  """How clips are stored.

  Attributes:
    frames: number of pictures.
    flow_frames: number of pairs of flow pictures.
    side: of a picture in pixels; they are squashed to squares.
  """

  frames: int
  flow_frames: int
  side: int

  def names(self) -> list[str]:
    """Fields of pictures."""
    return [f"rgb_{i}" for i in range(self.frames)]

  def flow_names(self) -> list[str]:
    """Fields of flow pictures, right and down in turns."""
    return [f"flow_{i}_{p}" for i in range(self.flow_frames) for p in PARTS]


@dataclasses.dataclass(frozen=True)
class FlowClip:
  """One sample.

  Attributes:
    label: its class.
    split: its part of the data.
    shown: path of a video, or of a folder of pictures.
    flow: its pictures; ``None`` if flow is computed from the video.
  """

  label: str
  split: str
  shown: str
  flow: ucf_files.FlowFiles | None


def make(clip: FlowClip, settings: FlowSettings) -> dict[str, np.ndarray]:
  """``rgb_<i>``, ``flow_<i>_x`` and ``flow_<i>_y``, uint8 [bytes of a JPEG].

  Frames are the middle ones of equal parts of the clip. Flow is that of such
  frames to the next one, see ``optical_flow``, computed in the size of the
  video.

  Raises:
    ValueError: a file is damaged, or there are too few frames.
  """
  told: list[str] = []

  def tell(remark: remarks.Remark) -> None:
    told.append(f"{clip.shown}: {remarks.sentence(remark)}")

  if clip.flow is None:
    frames, moves = _of_video(clip.shown, settings, tell)
  else:
    frames = _frames(clip.shown, settings.frames, tell)
    moves = _stored(clip.flow, settings.flow_frames)
  side = settings.side
  pictures = [*frames, *(Image.fromarray(m) for m in moves)]
  names = [*settings.names(), *settings.flow_names()]
  fields = {
    name: clips.jpeg(picture, side)
    for name, picture in zip(names, pictures, strict=True)
  }
  return fields | media.noted(told)


def _of_video(
  path: str, settings: FlowSettings, tell: remarks.Tell
) -> tuple[list[Image.Image], list[np.ndarray]]:
  """Frames of a video, and flow pictures."""

  def choose(total: int) -> np.ndarray:
    if total < 2:
      raise InputError(f"it has {total} frames; optical flow needs two")
    start = video.positions(total - 1, settings.flow_frames)
    shown = video.positions(total, settings.frames)
    return np.concatenate([shown, np.stack([start, start + 1], 1).ravel()])

  with raw.named(path):
    found = video.pictures(path, choose, tell)
  frames, pairs = found[: settings.frames], found[settings.frames :]
  moves = []
  for first, second in zip(pairs[::2], pairs[1::2], strict=True):
    both = np.stack([np.asarray(first), np.asarray(second)])
    move = optical_flow.quantised(optical_flow.flow(both)[0])
    moves += [move[..., 0], move[..., 1]]
  return frames, moves


def _frames(path: str, count: int, tell: remarks.Tell) -> list[Image.Image]:
  """Frames of a video or of a folder of pictures."""
  if path.lower().endswith(clips.VIDEOS):
    with raw.named(path):
      return video.pictures(path, lambda n: video.positions(n, count), tell)
  files = list(ucf_files.pictures(path))
  if not files:
    raise InputError(f"{path}: it holds no pictures")
  chosen = [files[i] for i in video.positions(len(files), count)]
  return [_open(file, "RGB") for file in chosen]


def _stored(flow: ucf_files.FlowFiles, count: int) -> list[np.ndarray]:
  """Flow pictures that were computed before."""
  pairs = flow.pairs()
  if not pairs:
    raise InputError(
      f"{flow.x}: no picture of flow is there in both directions"
    )
  chosen = [pairs[i] for i in video.positions(len(pairs), count)]
  return [np.asarray(_open(p, "L")) for pair in chosen for p in pair]


def _open(path: str | os.PathLike, mode: str) -> Image.Image:
  with raw.named(path), Image.open(path) as picture:
    image.check_pixels(picture.size, image.MAX_PIXELS)
    return picture.convert(mode)


def random_crop(
  rng: np.random.Generator, clip: np.ndarray, size: int
) -> np.ndarray:
  """One random box of a clip [t h w c], mirrored every second time.

  All frames are cut alike. A mirrored flow [t h w 2] points the other way.
  """
  height, width = clip.shape[1:3]
  top, left, h, w = crop.box(rng, height, width, (0.08, 1.0), (3 / 4, 4 / 3))
  flip = rng.random() < 0.5
  made = resize(clip[:, top : top + h, left : left + w], size)
  if not flip:
    return made
  made = made[:, :, ::-1].copy()
  if made.shape[-1] == len(PARTS):
    made[..., 0] = 255 - made[..., 0]
  return made


def resize(clip: np.ndarray, size: int) -> np.ndarray:
  """Of [t h w 3] or [t h w 2] to [t ``size`` ``size`` c]."""
  if clip.shape[-1] == 3:
    return image.resize(clip, size)
  return np.stack([_planes(frame, size) for frame in clip])


def _planes(frame: np.ndarray, size: int) -> np.ndarray:
  planes = [frame[..., c] for c in range(frame.shape[-1])]
  made = [image.resize(np.ascontiguousarray(p), size) for p in planes]
  return np.stack(made, -1)
