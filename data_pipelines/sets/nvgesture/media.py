"""A clip of NVGesture from its videos: frames, optical flow, strips."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from data_pipelines.core import raw
from data_pipelines.errors import InputError
from data_pipelines.sets.nvgesture import clips as _clips
from data_pipelines.sets.nvgesture.lists import FRAMES, Clip
from data_pipelines.transforms import video
from data_pipelines.transforms.files import npy
from data_pipelines.transforms.optical_flow import flow, opencv, quantised

LEAST = FRAMES // 2  # decoded frames of a clip that is filled up
FLOWS = ("auto", "dis", "files")


@dataclasses.dataclass(frozen=True)
class GestureSettings:
  """Where a download lies and what is made of it; see ``nvgesture.prepare``."""

  root: str
  color: str
  size: int
  flow: str


def make(clip: Clip, settings: GestureSettings) -> dict[str, np.ndarray]:
  """Strips ``rgb``, ``depth`` and ``flow``, and ``decoded``, frames of each.

  Raises:
    FileNotFoundError: a file is absent.
    ValueError: fewer than ``LEAST`` frames of a video can be decoded.
  """
  clips, decoded = {}, []
  for name, sensor in (("rgb", "color"), ("depth", "depth")):
    file, start, wanted = clip.sensors[sensor]
    if sensor == "color" and settings.color:
      file = settings.color
    path = _video(pathlib.Path(settings.root, clip.folder), f"{file}.avi")
    frames = read(path, start, wanted)
    decoded.append(len(frames))
    clips[name] = _filled(_resized(frames, settings.size), FRAMES)
  clips["depth"] = clips["depth"][..., :1]
  if settings.flow == "files":
    path = flow_file(settings.root, clip)
    found = _resized_flow(read_flow(path), settings.size)
    decoded.append(len(found))
    clips["flow"] = quantised(_filled(found[:FRAMES], FRAMES))
  else:
    clips["flow"] = quantised(flow(clips["rgb"]))
  strips = {
    name: np.frombuffer(_clips.encode(frames), np.uint8)
    for name, frames in clips.items()
  }
  return {**strips, "decoded": np.array(decoded)}


def read(path: pathlib.Path, start: int, wanted: int) -> Sequence[np.ndarray]:
  """Frames ``start`` to ``start + wanted - 1`` as RGB, or those there are.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: fewer than ``LEAST`` of them can be decoded.
  """
  av = video.require()
  _check_file(path)
  frames, reason = [], ""
  try:
    with av.open(os.fspath(path)) as container:
      for i, frame in enumerate(container.decode(video=0)):
        if i >= start + wanted:
          break
        if i >= start:
          frames.append(frame.to_ndarray(format="rgb24"))
  except (av.FFmpegError, IndexError) as error:  # Cut off, or no pictures.
    reason = f" ({error})"
  if len(frames) < LEAST:
    raise InputError(
      f"{path}: {len(frames)} of frames {start} to {start + wanted - 1} can be "
      f"decoded{reason}; {LEAST} are needed"
    )
  return frames


def flow_folder(root: str) -> pathlib.Path | None:
  """Where flow that was computed before lies, if it does."""
  for folder in ("Video_data/flow_data", "flow_data"):
    if pathlib.Path(root, folder).is_dir():
      return pathlib.Path(root, folder)
  return None


def flow_file(root: str, clip: Clip) -> pathlib.Path:
  """``flow_data/<train or test>/<row of the list, from 0>.npy``."""
  folder = flow_folder(root) or pathlib.Path(root, "flow_data")
  return folder / clip.listed / f"{clip.row}.npy"


def read_flow(path: pathlib.Path) -> np.ndarray:
  """A stored flow (height, width, 2, frames) as float32 [t h w 2].

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no such array, or has fewer than ``LEAST`` - 1 frames.
  """
  _check_file(path)
  with raw.named(path):
    found = npy.load(path)
  if found.ndim != 4 or found.shape[2] != 2 or found.shape[3] < LEAST - 1:
    raise InputError(
      f"{path}: the flow has shape {found.shape}, not (height, width, 2, "
      f"frames) with {LEAST - 1} frames or more"
    )
  return found.transpose(3, 0, 1, 2).astype(np.float32)


def _video(folder: pathlib.Path, name: str) -> pathlib.Path:
  """A file of a folder, whatever the case of its ending."""
  names = (name, name[:-4] + name[-4:].upper())
  return next(
    (folder / n for n in names if (folder / n).is_file()), folder / name
  )


def _check_file(path: pathlib.Path) -> None:
  if not path.is_file():
    raise FileNotFoundError(errno.ENOENT, "no such file", os.fspath(path))


def _resized(frames: Sequence[np.ndarray], size: int) -> np.ndarray:
  """Squeezed to a square, bilinear."""
  cv2 = opencv()
  return np.stack([cv2.resize(frame, (size, size)) for frame in frames])


def _resized_flow(found: np.ndarray, size: int) -> np.ndarray:
  """Flow of smaller or larger frames, in pixels of those."""
  h, w = found.shape[1:3]
  if (h, w) == (size, size):
    return found
  scale = np.array([size / w, size / h], np.float32)
  return _resized(list(found), size) * scale


def _filled(frames: np.ndarray, length: int) -> np.ndarray:
  """The last frame is repeated up to ``length``."""
  last = np.repeat(frames[-1:], length - len(frames), axis=0)
  return np.concatenate([frames, last])
