"""VGGSound: 10 s of YouTube, sound and video, 309 classes of sounds.

Chen et al., "VGGSound: A Large-scale Audio-Visual Dataset", ICASSP 2020.
Nothing is downloaded: ``raw`` is the folder of your download, which holds

* ``<id>_<start>.mp4``, in any folder below ``raw``: the 11 characters of the
  YouTube id and the first second, as six digits; or sounds of that name and
  folders of pictures (``<id>_<start>/00000.jpg``), which are preferred to a
  video. A start without zeros, an end (``<id>_30_40``), both in milliseconds,
  and what public loaders put around a name (folders ``<id>_<start>.mp4``,
  ``v<id>_30_40_out.mkv``) are understood; a start of another clip is not;
* ``vggsound.csv``, rows ``id,start,label,split``, here or in the folder
  ``annotations``. Labels with commas stand in quotation marks.

==========  ===================================================================
audio       [257 1004 1] float32, log-spectrogram of 10 s at 16 kHz
video       [3 224 224 3] uint8, frames
label       the label of the row
train       183,730 rows, less val and outer
outer, val  a tenth each of each class of these, by the hash of the clip's name
test        15,446 rows
==========  ===================================================================

Many clips are gone from YouTube. Each one is listed in ``problems.csv`` with
its row, beside those that are damaged, without sound or silent; the summary
counts them, and the rest trains. A whole copy makes 76 GB of prepared data, and
takes as much again while preparing.

Deviations from the loaders of OGM-GE (Peng et al., CVPR 2022), BalanceBenchmark
and TCMax:

1. The whole sound is used, not 5 s at random (OGM-GE) or the first 3 s (TCMax),
   with the spectrogram of VGGSound's own code: windows of 512 samples with an
   overlap of 353, scipy's power density, its logarithm after adding 1e-7,
   standardised in each clip.
2. Frames 0, 3 and 6 of 10 equally spaced ones; of a folder with n pictures,
   pictures ``n // 3 * i``. BalanceBenchmark draws one of each third in
   training; the others take the first ones.
3. Clips with fewer than four pictures are kept.
4. ``val`` and ``outer`` are held out of train; there is no official val.
5. Frames are squashed to squares of 256 before they are stored, so the aspect
   of training crops is drawn in the square.
"""

from __future__ import annotations

import collections
import csv
import pathlib
import re
from collections.abc import Iterable

from data_pipelines.core import raw as _raw
from data_pipelines.sets._audio_video import files, listed
from data_pipelines.sets._audio_video.youtube import ID, TenSeconds

NAME = "vggsound"
VERSION = "1.0.0"  # of the prepared data: any change of them raises it
LIST = "vggsound.csv"
SIZES = {"train": 183_730, "test": 15_446}
CLASSES = 309
_HELD_OUT = {"val": 0.1, "outer": 0.1}
_START = re.compile(r"([0-9]+)(\.0*)?")
_NAME = re.compile(rf"(?:v(?=.{{11}}_))?({ID})(?:_(\d+)(?:_(\d+))?(?:_out)?)?")
_ENDING = re.compile(r"\.(mp4|mkv|webm|avi)$", re.IGNORECASE)


def _data_set(annotations: str = "") -> listed.ListedSet:
  return listed.ListedSet(
    NAME,
    VERSION,
    "official",
    annotations,
    read=_read,
    shares=lambda label: _HELD_OUT,
    classes=CLASSES,
    sizes=SIZES,
    layout="<id>_<start>.mp4, such as -0jeONf82dE_000021.mp4, and vggsound.csv",
  )


def _read(folder: pathlib.Path) -> listed.Listing:
  """The list in ``folder``."""
  text = listed.text_of(folder, LIST)
  rows, problems = [], []
  for number, line in enumerate(text.splitlines(), 1):
    if not line.strip():
      continue
    place = f"{LIST}, line {number}"
    row = _row(line, place)
    if row is not None:
      rows.append(row)
    elif number > 1 or line[0] not in "#iyY":  # A first line may name columns.
      reason = f"{place}: expected id,start,label,train or test, got {line!r}"
      problems.append(_raw.Defect(place, _raw.SKIPPED, reason))
  key = _key_of(row.clip for row in rows)
  return listed.listing(rows, problems, key, {LIST: listed.version(text)})


def _row(line: str, place: str) -> listed.Row | None:
  """A line of the list, by itself: an open quote ends with it."""
  try:
    cells = [cell.strip() for cell in next(csv.reader([line]))]
  except csv.Error:
    return None
  if len(cells) < 4:
    return None
  name, start, *words, split = cells
  begin = _START.fullmatch(start)
  label = ", ".join(words)  # Some copies lack quotation marks.
  if not (re.fullmatch(ID, name) and begin and label and split in SIZES):
    return None
  return listed.Row(f"{name}_{int(begin[1]):06d}", label, split, place)


def _key_of(clips: Iterable[str]) -> files.Key:
  """The clip that a file is of, by its YouTube id and its start."""
  starts = collections.defaultdict(dict)
  for clip in clips:
    starts[clip[:11]][int(clip[12:])] = clip

  def key(stem: str) -> str | None:
    found = _NAME.fullmatch(_ENDING.sub("", stem))
    known = starts.get(found[1], {}) if found else {}
    if not found or not found[2]:
      return next(iter(known.values())) if len(known) == 1 else None
    start, end = int(found[2]), int(found[3] or 0)
    if end - start >= 1000:  # Milliseconds.
      start //= 1000
    return known.get(start)

  return key


_SET = TenSeconds(_data_set)
load = _SET.load
prepare = _SET.prepare
