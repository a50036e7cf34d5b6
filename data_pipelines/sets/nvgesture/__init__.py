"""NVGesture: 1,532 clips of 25 hand gestures as RGB, depth and optical flow.

Molchanov et al., "Online Detection and Classification of Dynamic Hand Gestures
with Recurrent 3D Convolutional Neural Networks", CVPR 2016. The download has
``Video_data/class_XX/subjectY_rZ/{sk_color,sk_depth}.avi`` and two lists, one
line a clip: ``path:<folder> depth:<file>:<start>:<end> color:...
duo_left:... label:<1..25>``, 1,050 to train with and 482 to test.

==========  ===================================================================
rgb         [t s s 3] uint8, frames ``start`` to ``end - 1``, which are 80
depth       [t s s 1] uint8, the same frames of the depth sensor
flow        [t s s 2] uint8, 127.5 (1 + clip(f, ±20) / 20) for f pixels of
            stored frames, right and down; see ``media.flow``
label       the gesture's number in the lists, less one
train       the train list without the subjects of val and outer
outer, val  subjects of the train list, by a hash: ``lists.split``
test        the test list; its subjects are others
==========  ===================================================================

A training sample is one random run of 64 frames of one random 224 x 224 square,
alike for all modalities; nothing is mirrored, since gestures have a direction.
An evaluation sample is all 80 frames of the square in the middle.

Stored are 80 frames of 256 x 256 pixels as JPEG strips (``clips``), about 1.2
MB a clip and 2 GB in all, twice that while preparing; a core prepares a clip in
one or two seconds, most of it optical flow. JPEG changes flow by .002 pixels in
the mean. A video that ends early, with at least 40 of its 80 frames, is filled
up with its last frame and listed in problems.csv; a shorter one is left out.

Deviations from the NVGesture loaders of the LFM group's later codes (IGM,
AMSS), which are public where the paper gives no details:

1. RGB is in the order red, green, blue; those codes give OpenCV's blue, green,
   red to weights made for the other order.
2. Scaling to numbers is the encoder's (``dmg_jax/model/encoders/i3d.py``).
3. Optical flow is computed here; those codes do not state its origin. It is cut
   in time like the other modalities, not given with all 80 frames. Files
   ``flow_data/<split>/<row>.npy`` of that layout are read if they exist.
4. What a short video lacks repeats its last frame and is not black.
5. Subjects are held out of the train list for ``val`` and ``outer``; those
   codes train on all of it and select on test.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
from typing import Any

from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.errors import InputError, unknown
from data_pipelines.sets.nvgesture import clips, making
from data_pipelines.sets.nvgesture.lists import CLASSES, FRAMES
from data_pipelines.sets.nvgesture.media import FLOWS, GestureSettings
from data_pipelines.transforms import video

NAME = "nvgesture"
VERSION = "1.0.0"  # of the prepared data: any change of them raises it
SIZE = 256


def load(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  lists: str = "",
  color: str = "",
  flow: str = "auto",
  stored_size: int = SIZE,
  held_out: float = 0.1,
  workers: int = 0,
  step: int = 1,
  reduce: int = 1,
  window: int = 64,
  image_size: int = 224,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  Args:
    data_dir: folder of all prepared data.
    raw, lists, color, flow, stored_size, held_out, workers: see ``prepare``;
      raw and lists are not needed once the data are prepared.
    step: one frame of so many is used, the middle one.
    reduce: stored pixels along each side that make one by their mean.
    window: frames of a training sample, of the 80 / step.
    image_size: side in pixels of the square cut out of stored_size / reduce.

  Raises:
    ValueError: an option out of its range.
    core.DataError: ``prepare`` cannot start or the prepared data are damaged.
    ModuleNotFoundError: a package of the extra ``video`` is missing.
  """
  folder = _folder(data_dir, color, flow, stored_size, held_out)
  _check("step", step, 1, FRAMES)
  _check("reduce", reduce, 1, stored_size)
  if stored_size % reduce:
    raise InputError(
      f"reduce must divide stored_size ({stored_size}), got {reduce}"
    )
  _check("window", window, 1, FRAMES // step)
  _check("image_size", image_size, 1, stored_size // reduce)
  if not folder.exists():
    prepare(
      data_dir,
      raw=raw,
      lists=lists,
      color=color,
      flow=flow,
      stored_size=stored_size,
      held_out=held_out,
      workers=workers,
    )
  storage.check(folder)
  shape = (FRAMES // step, stored_size // reduce)
  return _assemble(folder, shape, reduce, window, image_size)


def prepare(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  lists: str = "",
  color: str = "",
  flow: str = "auto",
  stored_size: int = SIZE,
  held_out: float = 0.1,
  workers: int = 0,
) -> core.PreparedSummary:
  """Decodes the videos of both lists, computes flow, stores all by split.

  Intact data are left alone, damaged data replaced; an interrupted run goes on
  where it stopped. Broken lines and clips are left out and reported.

  Args:
    data_dir: folder of all prepared data.
    raw: folder of the download, the one that holds ``Video_data``.
    lists: folder of the two lists; empty is ``raw``.
    color: name of the colour videos; empty is as the lists say, ``sk_color``.
    flow: ``dis`` computes it, ``files`` reads ``flow_data/<train or test>/
      <row of the list, from 0>.npy`` in ``raw`` or its ``Video_data``, arrays
      (height, width, 2, frames) in pixels; ``auto`` reads if that folder is
      there.
    stored_size: side of stored frames in pixels, a multiple of 8.
    held_out: least share of the train list in ``outer`` and in ``val``.
    workers: processes that decode; 0 is one for each core.

  Raises:
    ValueError: an option out of its range.
    core.DataError: ``raw`` is not named, a list is absent, a split would be
      empty, or data cannot be written.
    ModuleNotFoundError: a package of the extra ``video`` is missing.
  """
  folder = _folder(data_dir, color, flow, stored_size, held_out)
  _check("workers", workers, 0, 1024)
  if storage.problem_of(folder) is None:
    return core.PreparedSummary.read(folder)
  if not raw:
    raise core.DataError(
      f"there are no prepared data of NVGesture in {folder}, and no download "
      "to make them from: name the folder that holds Video_data and the lists "
      "nvgesture_{train,test}_correct_cvpr2016_v2.lst with "
      "--config.data.raw=FOLDER"
    )
  root = os.path.abspath(os.path.expanduser(raw))
  settings = GestureSettings(root, color, stored_size, flow)
  processes = making.processes(workers)
  return storage.once(
    folder,
    lambda: making.prepare(
      folder, NAME, root, lists, settings, held_out, processes
    ),
  )


def _folder(
  data_dir, color: str, flow: str, stored_size: int, held_out: float
) -> pathlib.Path:
  """Of the prepared data; other options than the defaults have one each."""
  if flow not in FLOWS:
    raise unknown("flow", flow, FLOWS)
  _check("stored_size", stored_size, 16, 400)
  if stored_size % 8:
    raise InputError(f"stored_size must be a multiple of 8, got {stored_size}")
  if not 0 < held_out <= 0.4:
    raise InputError(f"held_out must lie in (0, 0.4], got {held_out!r}")
  options, name = (color, flow, stored_size, held_out), NAME
  if options != ("", "auto", SIZE, 0.1):
    key = hashlib.sha256(repr(options).encode()).hexdigest()
    name = f"{NAME}_{key[:8]}"
  return storage.folder_of(data_dir, name, VERSION)


def _assemble(
  folder: pathlib.Path,
  shape: tuple[int, int],
  reduce: int,
  window: int,
  image_size: int,
) -> core.Dataset:
  """The prepared data in ``folder``; ``shape`` is frames and side."""
  made = core.PreparedSummary.read(folder)
  frames, side = shape
  modalities, decoded = (
    {
      m: core.ModalitySpec("video", (frames, size, size, c), "uint8")
      for m, c in making.CHANNELS.items()
    }
    for size in (image_size, side)
  )
  decode = functools.partial(_decode, frames=frames, reduce=reduce)
  sources = {
    split: core.cache_if_small(
      core.Decoded(storage.read(folder, split, tuple(modalities)), decode),
      decoded,
    )
    for split in made.counts
  }
  sizes = {split: len(source) for split, source in sources.items()}
  cut = functools.partial(clips.random_cut, window=window, size=image_size)
  view = functools.partial(clips.centre_cut, size=image_size)
  return core.Dataset(
    core.Spec(NAME, modalities, CLASSES, sizes),
    sources,
    augment=dict.fromkeys(modalities, cut),
    decoded=decoded,
    view=dict.fromkeys(modalities, view),
    together=tuple(modalities),
    fingerprint=made.fingerprint,
  )


def _decode(record: dict[str, Any], frames: int, reduce: int) -> core.Sample:
  used = video.positions(FRAMES, frames)
  inputs = {
    m: clips.decode(record[m], FRAMES, channels, reduce)[used]
    for m, channels in making.CHANNELS.items()
  }
  label, key = int(record["label"]), record["id"].decode()
  return {"inputs": inputs, "label": label, "id": key}


def _check(name: str, value: int, low: int, high: int) -> None:
  whole = isinstance(value, int) and not isinstance(value, bool)
  if not whole or not low <= value <= high:
    raise InputError(
      f"{name} must be a whole number from {low} to {high}, got {value!r}"
    )
