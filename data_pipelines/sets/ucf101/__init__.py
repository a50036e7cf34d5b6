"""UCF-101: 13,320 clips of YouTube, RGB and optical flow, 101 human actions.

Soomro et al., "UCF101: A Dataset of 101 Human Actions Classes From Videos in
The Wild", CRCV-TR-12-01, 2012. Nothing is downloaded: ``raw`` is the folder of
your download, which holds

* ``UCF-101/<class>/v_<class>_g08_c01.avi`` (group, clip), in any folder below
  ``raw``; or folders of pictures, ``v_<class>_g08_c01/img_00001.jpg``, for
  clips without a video;
* ``trainlist01.txt`` (rows ``class/v_class_g08_c01.avi 1``), ``testlist01.txt``
  (without the number) and ``classInd.txt``, here, in a folder in it
  (``ucfTrainTestlist``) or in the folder ``annotations``; likewise 02 and 03;
* perhaps optical flow as pictures, 127.5 (1 + f / 20) for f pixels, right and
  down: ``v_<class>_g08_c01/flow_x_00001.jpg`` and ``flow_y_00001.jpg`` (TSN),
  or ``u/v_<class>_g08_c01/frame000001.jpg`` and ``v/...`` (tvl1_flow).

==========  ===================================================================
rgb         [3 224 224 3] uint8, the middle frames of three thirds
flow        [3 224 224 2] uint8, right and down: from such frames to the next
label       the class, the folder in the lists
train       9,537 clips of trainlist01.txt, less val and outer
outer, val  a tenth each of the groups of each class in the train list
test        3,783 clips of testlist01.txt
==========  ===================================================================

The other splits have 9,586 and 3,734, and 9,624 and 3,696 clips. Clips of a
group are cut from one video. Groups are held out as a whole, by the hash of
their name. What is absent or damaged is listed in ``problems.csv``. Prepared
data take 1.3 GB, and as much again while preparing.

Deviations from the loaders of BalanceBenchmark and TCMax:

1. Flow is computed here unless it is there (``flow``), by Dense Inverse Search
   on frames of full size. BalanceBenchmark reads TV-L1 flow; TCMax computes
   Farnebäck's and takes ten pairs, as channels of one picture
   (``flow_frames=10`` gives ten pictures of two channels here).
2. Frames are the middle ones of thirds of the clip, in training, too.
   BalanceBenchmark draws them from thirds in training, those of RGB among its
   first six pictures; TCMax takes the first three that the file system lists.
3. A random box and mirroring are alike for all frames of a clip and for its
   flow, which points the other way when mirrored. In BalanceBenchmark each
   picture is mirrored by itself, and flow as if it were a photograph.
4. ``val`` and ``outer`` are held out of the train list; there is no official
   val.
5. Frames are squashed to squares of 256 before they are stored.
"""

from __future__ import annotations

import functools
import io
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import core
from data_pipelines.core import raw as _raw
from data_pipelines.core import storage
from data_pipelines.errors import unknown
from data_pipelines.sets._audio_video import load as av_load
from data_pipelines.sets._audio_video import preparing
from data_pipelines.sets.ucf101 import lists, media
from data_pipelines.transforms import image

NAME = "ucf101"
VERSION = "1.0.0"  # of the prepared data: any change of them raises it


def load(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  image_size: int = 224,
  frames: int = 3,
  flow_frames: int = 3,
  flow: str = "auto",
  split: int = 1,
  annotations: str = "",
  workers: int = -1,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  Args:
    data_dir: folder of all prepared data.
    raw: folder of the download; not needed once the data are prepared.
    image_size: side of pictures in pixels; stored are 8 / 7 of it.
    frames: of a clip, 1 to 64.
    flow_frames: pairs of flow pictures of a clip, 1 to 64.
    flow: ``dis`` computes it, ``files`` reads pictures, ``auto`` reads them if
      any are there.
    split: number of the official split, 1 to 3.
    annotations: folder of the lists; empty is ``raw``, or one in it.
    workers: processes that decode; 0 is this one alone, -1 one a core.

  Raises:
    ValueError: an option out of its range, or no ``raw`` where it is needed.
    core.DataError: raw or prepared data that cannot be used.
    ModuleNotFoundError: a package of the extra ``video`` is missing.
  """
  made = _prepared(
    data_dir, raw, image_size, frames, flow_frames, flow, split, annotations,
    workers,
  )  # fmt: skip
  return _assemble(made.ready(), made.settings, image_size)


def prepare(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  image_size: int = 224,
  frames: int = 3,
  flow_frames: int = 3,
  flow: str = "auto",
  split: int = 1,
  annotations: str = "",
  workers: int = -1,
) -> core.PreparedSummary:
  """Decodes and stores all clips; arguments and errors as ``load``'s.

  Intact data are left alone. Clips that are missing or cannot be decoded are
  left out and listed in ``problems.csv``; the summary counts them.
  """
  return _prepared(
    data_dir, raw, image_size, frames, flow_frames, flow, split, annotations,
    workers,
  ).prepare()  # fmt: skip


class Prepared(preparing.Preparing):
  """See ``Preparing``; ``settings`` are ``media.FlowSettings``."""

  def __post_init__(self):
    s = self.settings
    preparing.check("frames", s.frames, 1, 64)
    preparing.check("flow_frames", s.flow_frames, 1, 64)
    preparing.check("image_size", s.side, 8, 4096)
    preparing.check("workers", self.workers, -1, 1024)

  def make(self) -> Callable[[Any], _raw.Fields]:
    """The function of a clip that decodes it."""
    return functools.partial(media.make, settings=self.settings)

  def features(self) -> dict[str, Any]:
    """{field: feature} of a stored clip."""
    import tensorflow_datasets as tfds

    s = self.settings
    shapes = dict.fromkeys(s.names(), (s.side, s.side, 3))
    shapes |= dict.fromkeys(s.flow_names(), (s.side, s.side, 1))
    return {
      name: tfds.features.Image(shape=shape, encoding_format="jpeg")
      for name, shape in shapes.items()
    }

  def record(self, fields: _raw.Fields) -> dict[str, Any]:
    """{field: value} of what was decoded."""
    names = [*self.settings.names(), *self.settings.flow_names()]
    return {name: fields[name].tobytes() for name in names}


def _prepared(
  data_dir, raw, image_size, frames, flow_frames, flow, split, annotations,
  workers,
) -> Prepared:  # fmt: skip
  if split not in lists.SIZES:
    raise unknown("split", split, lists.SIZES)
  if flow not in lists.FLOWS:
    raise unknown("flow", flow, lists.FLOWS)
  side = av_load.stored_side(image_size)
  settings = media.FlowSettings(frames, flow_frames, side)
  about = lists.FlowSet(NAME, VERSION, split, annotations, flow)
  return Prepared(about, data_dir, settings, raw, workers)


def _assemble(
  folder: pathlib.Path, settings: media.FlowSettings, image_size: int
) -> core.Dataset:
  """The prepared data in ``folder``."""
  made = core.PreparedSummary.read(folder)
  counts = {"rgb": (settings.frames, 3), "flow": (settings.flow_frames, 2)}
  shown, stored = (
    {
      m: core.ModalitySpec("video", (t, side, side, c), "uint8")
      for m, (t, c) in counts.items()
    }
    for side in (image_size, settings.side)
  )
  names = (*settings.names(), *settings.flow_names())
  decode = functools.partial(_decode, settings=settings)
  sources = {
    split: core.cache_if_small(
      core.Decoded(storage.read(folder, split, names), decode), stored
    )
    for split in made.counts
  }
  sizes = {split: len(source) for split, source in sources.items()}
  cut = functools.partial(media.random_crop, size=image_size)
  view = functools.partial(media.resize, size=image_size)
  return core.Dataset(
    core.Spec(NAME, shown, made.classes, sizes),
    sources,
    augment=dict.fromkeys(shown, cut),
    decoded=stored,
    view=dict.fromkeys(shown, view),
    together=tuple(shown),
    fingerprint=made.fingerprint,
  )


def _decode(
  record: dict[str, Any], settings: media.FlowSettings
) -> core.Sample:
  side = settings.side
  shown = [image.decode(record[name], side) for name in settings.names()]
  planes = np.stack([_grey(record[name]) for name in settings.flow_names()])
  flow = planes.reshape(settings.flow_frames, 2, side, side)
  inputs = {"rgb": np.stack(shown), "flow": flow.transpose(0, 2, 3, 1)}
  label, key = int(record["label"]), record["id"].decode()
  return {"inputs": inputs, "label": label, "id": key}


def _grey(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as picture:
    return np.asarray(picture.convert("L"), np.uint8)
