"""AVE: 10 s of YouTube, sound and video, 28 audio-visual events.

Tian et al., "Audio-Visual Event Localization in Unconstrained Videos", ECCV
2018. Nothing is downloaded: ``raw`` is the folder of your download, which holds

* ``AVE/<id>.mp4``, videos named by the 11 characters of their YouTube id, in
  any folder below ``raw``; or sounds (``<id>.wav``) and folders of pictures
  (``Image-01-FPS/<id>/00000.jpg``), which are preferred to a video;
* ``trainSet.txt``, ``valSet.txt`` and ``testSet.txt``, rows
  ``class&id&quality&start&end``, here or in the folder ``annotations``.
  ``Annotations.txt`` is not read: it has the same rows.

==========  ===================================================================
audio       [257 1004 1] float32, log-spectrogram of 10 s at 16 kHz
video       [3 224 224 3] uint8, frames
label       the class of the row
train       3,339 rows of trainSet.txt, less a tenth of each class
outer       that tenth, by the hash of the id
val, test   402 rows of valSet.txt and of testSet.txt
==========  ===================================================================

A row is a sample. Of 4,097 videos, 45 are in two or three rows, each time with
another class, such as a dog's bark and a goat; 18 of these have rows in train
and in val or test. Such samples have the class behind their id. They never go
to ``outer``, so that no video is in both train and outer.

What is absent, damaged, without sound or silent is listed in ``problems.csv``.
Prepared data take 1.6 GB, and as much again while preparing.

Deviations from the loaders of OGM-GE (Peng et al., CVPR 2022) and TCMax:

1. The whole sound is used, not its first 3 s (TCMax), as windows of 512 samples
   with an overlap of 353: scipy's power density, its logarithm after adding
   1e-7, standardised in each clip (VGGSound's recipe).
2. Frames 0, 3 and 6 of 10 equally spaced ones; of a folder with n pictures,
   pictures ``n // 3 * i``, in order of their names; not the first three that
   the file system lists.
3. All rows are kept, as by TCMax; OGM-GE keeps the last row of a video.
4. ``outer`` is held out of train.
5. Frames are squashed to squares of 256 before they are stored, so the aspect
   of training crops is drawn in the square.
"""

from __future__ import annotations

import pathlib
import re

from data_pipelines.core import raw as _raw
from data_pipelines.sets._audio_video import listed
from data_pipelines.sets._audio_video.youtube import ID, TenSeconds

NAME = "ave"
VERSION = "1.0.0"  # of the prepared data: any change of them raises it
LISTS = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt"}
SIZES = {"train": 3339, "val": 402, "test": 402}
CLASSES = 28
_ID = re.compile(ID)
_OUTER = 0.1


def _data_set(annotations: str = "") -> listed.ListedSet:
  return listed.ListedSet(
    NAME,
    VERSION,
    "official",
    annotations,
    read=_read,
    shares=lambda label: {"outer": _OUTER},
    classes=CLASSES,
    sizes=SIZES,
    layout="AVE/<id>.mp4, trainSet.txt, valSet.txt and testSet.txt",
  )


def _read(folder: pathlib.Path) -> listed.Listing:
  """The three lists in ``folder``."""
  rows, problems, versions = [], [], {}
  for split, name in LISTS.items():
    text = listed.text_of(folder, name)
    versions[name] = listed.version(text)
    for number, line in enumerate(text.splitlines(), 1):
      if not line.strip() or line.startswith("Category&"):
        continue
      place = f"{name}, line {number}"
      label, *cells = (cell.strip() for cell in line.rsplit("&", 4))
      if label and len(cells) == 4 and _ID.fullmatch(cells[0]):
        rows.append(listed.Row(cells[0], label, split, place))
      else:
        reason = f"{place}: expected class&id&quality&start&end, got {line!r}"
        problems.append(_raw.Defect(place, _raw.SKIPPED, reason))
  known = {row.clip for row in rows}

  def key(stem: str) -> str | None:
    # Some copies name a video like its row.
    name = stem.split("&")[1] if stem.count("&") == 4 else stem
    return name if name in known else None

  return listed.listing(rows, problems, key, versions)


_SET = TenSeconds(_data_set)
load = _SET.load
prepare = _SET.prepare
