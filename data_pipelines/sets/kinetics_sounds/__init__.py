"""Kinetics-Sounds: 10 s of YouTube, sound and video, 31 actions.

Arandjelović and Zisserman, "Look, Listen and Learn", ICCV 2017; a part of
Kinetics (Kay et al., 2017). Nothing is downloaded: ``raw`` is the folder of
your download. Below it lie, anywhere, files or folders whose names begin with
the 11 characters of the YouTube id (``<id>_000010_000020.mp4``): videos with
sound, or sound files and folders of pictures (``<id>/frame_00001.jpg``), which
are preferred to a video. The class is the name of a folder above them, such as
``playing drums``, or comes from the lists.

==========  ===================================================================
audio       [257 1004 1] float32, log-spectrogram of 10 s at 16 kHz
video       [3 224 224 3] uint8, frames
label       the action, one of ``CLASSES``
==========  ===================================================================

The test part is that of OGM-GE (Peng et al., CVPR 2022), 2,597 clips beside
14,799 of training; ``val`` and ``outer`` get a tenth of the latter each, by
class and the hash of the id. Many clips are gone from YouTube: the report says
how many are there, the rest trains. ``annotations`` may be a folder of the
official lists, ``my_train.txt``, ``my_test.txt`` and perhaps ``my_val.txt``
(rows ``id,10,class``), which then make the splits. With them each clip that is
missing is listed by its id; numbers of classes there mean the folder that most
of their clips are in, and stay numbers without folders.

Deviations from the paper and the official code:

1. The paper's 15,000 / 1,900 / 1,900 clips are published nowhere; the lists
   are those of the code that it builds on.
2. Without lists, clips of these classes that are in no list train, too.
3. "10 frames, three of them": of a video it is frames 0, 3 and 6 of 10 equally
   spaced ones; of a folder with n pictures, pictures ``n // 3 * i``.
4. Frames are squashed to squares of 256 before they are stored, so the aspect
   of training crops is drawn in the square.
5. The paper's spectrogram is only known by its size, which is that of windows
   of 512 with 353 shared, 10 s at 16 kHz: scipy's power density, its logarithm
   after adding 1e-7, standardised in each clip (VGGSound's recipe).
"""

from __future__ import annotations

import pathlib
import re

from data_pipelines.sets._audio_video import split
from data_pipelines.sets._audio_video.named import NamedSet
from data_pipelines.sets._audio_video.youtube import ID, TenSeconds
from data_pipelines.sets.kinetics_sounds import official_split as official

NAME = "kinetics_sounds"
VERSION = "1.0.0"  # of the prepared data: any change of them raises it
CLASSES = (
  "blowing_nose", "blowing_out_candles", "bowling", "chopping_wood",
  "dribbling_basketball", "laughing", "mowing_lawn", "playing_accordion",
  "playing_bagpipes", "playing_bass_guitar", "playing_clarinet",
  "playing_drums", "playing_guitar", "playing_harmonica", "playing_keyboard",
  "playing_organ", "playing_piano", "playing_saxophone", "playing_trombone",
  "playing_trumpet", "playing_violin", "playing_xylophone", "ripping_paper",
  "shoveling_snow", "shuffling_cards", "singing", "stomping_grapes",
  "tap_dancing", "tapping_guitar", "tapping_pen", "tickling",
)  # fmt: skip
SIZES = {"train": 14799, "test": 2597}
_ID = re.compile(rf"({ID})(_[0-9]+){{0,2}}")


def _data_set(annotations: str = "") -> NamedSet:
  members = split.Members(official.SALT, official.MEMBERS)
  return NamedSet(
    NAME,
    VERSION,
    "official",
    annotations,
    key=_key,
    label=_label,
    split=lambda clip: "test" if clip in members else "train",
    shares=lambda label: {"val": 0.1, "outer": 0.1},
    lists={s: f"my_{s}.txt" for s in ("train", "test", "val")},
    classes=CLASSES,
    expected={},
    sizes=SIZES,
    layout="<class>/<id>_000010_000020.mp4, or <id>.wav and <id>/*.jpg",
  )


def _key(stem: str) -> str | None:
  found = _ID.fullmatch(stem)
  # A class such as "tap_dancing" may look like an id.
  return found[1] if found and _class(stem) is None else None


def _class(name: str) -> str | None:
  plain = re.sub("[^a-z]+", "_", name.lower()).strip("_")
  return plain if plain in CLASSES else None


def _label(clip: str, path: pathlib.Path) -> str | None:
  """The innermost folder that is named like a class."""
  del clip
  found = (_class(folder.name) for folder in path.parents)
  return next((label for label in found if label), None)


_SET = TenSeconds(_data_set)
load = _SET.load
prepare = _SET.prepare
