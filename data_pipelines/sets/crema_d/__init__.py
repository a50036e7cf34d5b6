"""CREMA-D: 7,442 spoken sentences of 91 actors, sound and video, 6 emotions.

Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", IEEE
TAC 5(4), 2014. Nothing is downloaded: ``raw`` is the folder of your download.
Below it lie, anywhere, files named by clip, such as ``1001_DFA_ANG_XX`` (actor,
sentence, emotion, level): sounds (``AudioWAV``), and videos (``VideoFlash``) or
a folder of pictures a clip (``Image-01-FPS``), which is preferred to a video.

==========  ===================================================================
audio       [257 299 1] float32, log-spectrogram of 3 s at 16 kHz
video       [3 224 224 3] uint8, frames
label       the emotion in the name: ANG, DIS, FEA, HAP, NEU or SAD
==========  ===================================================================

The split ``official`` is that of OGM-GE (Peng et al., CVPR 2022), 6,698 clips
to train and 744 to test. It is not independent of the speaker: all 91 actors
are in both parts. Out of the 6,698, ``val`` gets 744 clips with the classes of
test, and ``outer`` a tenth, both by class and the hash of the clip's name.
``speakers`` splits the actors instead: 19 test, 8 val, 8 outer, 56 train, women
and men alike, by the hash of the actor's number.

Deviations from the paper and the official code:

1. The paper defines neither val nor outer; both are taken from its train part.
2. "10 frames, three of them": of a video it is frames 0, 3 and 6 of 10 equally
   spaced ones; of a folder with n pictures, pictures ``n // 3 * i``. Clips have
   2 to 4 pictures at one a second, so that some repeat.
3. Frames are squashed to squares of 256 before they are stored, so the aspect
   of training crops is drawn in the square.
4. The paper gives only the size of its spectrogram, which matches windows of
   512 samples with an overlap of 353, 3 s at 16 kHz: scipy's power density, its
   logarithm after adding 1e-7, standardised per clip (VGGSound's recipe).
"""

from __future__ import annotations

import os
import pathlib
import re

from data_pipelines import core
from data_pipelines.errors import unknown
from data_pipelines.sets._audio_video import load as av_load
from data_pipelines.sets._audio_video import media
from data_pipelines.sets._audio_video import split as av_split
from data_pipelines.sets._audio_video.named import NamedSet
from data_pipelines.sets._audio_video.prepared import Prepared
from data_pipelines.sets.crema_d import official_split as official

NAME = "crema_d"
VERSION = "1.0.0"  # of the prepared data: any change of them raises it
SPLITS = ("official", "speakers")
# Clips of each class: in the official train, in the official test.
EXPECTED = {
  "ANG": (1166, 105),
  "DIS": (1142, 129),
  "FEA": (1138, 133),
  "HAP": (1148, 123),
  "NEU": (973, 114),
  "SAD": (1131, 140),
}
_NAME = re.compile(r"10[0-9]{2}_[A-Z]{3}_(ANG|DIS|FEA|HAP|NEU|SAD)_[A-Z]{2}")
_OUTER = 0.1
_ACTORS = range(1001, 1092)
# Women among the actors, 1000 less each (VideoDemographics.csv).
_WOMEN = {
  2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 18, 20, 21, 24, 25, 28, 29, 30, 37, 43, 46,
  47, 49, 52, 53, 54, 55, 56, 58, 60, 61, 63, 72, 73, 74, 75, 76, 78, 79, 82,
  84, 89, 91,
}  # fmt: skip


def load(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  image_size: int = 224,
  frames: int = 3,
  sample_rate: int = 16000,
  seconds: float = 3.0,
  split: str = "official",
  annotations: str = "",
  workers: int = -1,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  In training each frame is cut at random (``crop.random_resized_crop``) by
  itself; else it is resized.

  Args:
    data_dir: folder of all prepared data.
    raw: folder of the download; not needed once the data are prepared.
    image_size: side of frames in pixels; stored are 8 / 7 of it.
    frames: of a clip, 1 to 10.
    sample_rate: samples of sound a second.
    seconds: length that sounds are repeated or cut to.
    split: ``official`` or ``speakers``.
    annotations: folder of ``train.csv``, ``test.csv`` and perhaps ``val.csv``
      (rows ``clip,class``, no header), which then make the splits.
    workers: processes that decode; 0 is this one alone, -1 one a core.

  Raises:
    ValueError: an option out of its range, or no ``raw`` where it is needed.
    core.DataError: raw or prepared data that cannot be used.
    ModuleNotFoundError: videos, but no PyAV (the extra ``video``).
  """
  return _prepared(
    data_dir, raw, image_size, frames, sample_rate, seconds, split,
    annotations, workers,
  ).load(image_size)  # fmt: skip


def prepare(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  image_size: int = 224,
  frames: int = 3,
  sample_rate: int = 16000,
  seconds: float = 3.0,
  split: str = "official",
  annotations: str = "",
  workers: int = -1,
) -> core.PreparedSummary:
  """Decodes and stores all clips; arguments and errors as ``load``'s.

  Intact data are left alone. Clips that are missing or cannot be decoded are
  left out and listed in ``problems.csv``; the summary counts them.
  """
  return _prepared(
    data_dir, raw, image_size, frames, sample_rate, seconds, split,
    annotations, workers,
  ).prepare()  # fmt: skip


def _prepared(
  data_dir, raw, image_size, frames, sample_rate, seconds, split, annotations,
  workers,
) -> Prepared:  # fmt: skip
  if split not in SPLITS:
    raise unknown("split", split, SPLITS)
  side = av_load.stored_side(image_size)
  settings = media.ClipSettings(frames, side, sample_rate, seconds)
  about = _data_set(split, annotations)
  return Prepared(about, data_dir, settings, raw, workers)


def _data_set(rule: str, annotations: str = "") -> NamedSet:
  split = "official" if annotations else rule
  members = av_split.Members(official.SALT, official.MEMBERS)
  rules = {
    "official": lambda clip: "test" if clip in members else "train",
    "speakers": lambda clip: speakers()[int(clip[:4])],
  }
  train, test = (sum(n) for n in zip(*EXPECTED.values(), strict=True))
  return NamedSet(
    NAME,
    VERSION,
    rule,
    annotations,
    key=_key,
    label=_label,
    split=rules[split],
    shares=_shares if split == "official" else lambda label: {},
    lists={s: f"{s}.csv" for s in ("train", "test", "val")},
    classes=tuple(EXPECTED),
    expected={label: sum(n) for label, n in EXPECTED.items()},
    sizes={"train": train, "test": test} if split == "official" else {},
    layout="AudioWAV/<clip>.wav and VideoFlash/<clip>.flv, or "
    "Image-01-FPS/<clip>/*.jpg",
  )


def _key(stem: str) -> str | None:
  return stem if _NAME.fullmatch(stem) else None


def _label(clip: str, path: pathlib.Path) -> str:
  del path
  return clip.split("_")[2]


def _shares(label: str) -> dict[str, float]:
  train, test = EXPECTED[label]
  return {"val": test / train, "outer": _OUTER}


def speakers() -> dict[int, str]:
  """{actor: split} of the split ``speakers``."""
  found = dict.fromkeys(_ACTORS, "train")
  for women in (True, False):
    actors = [a for a in _ACTORS if (a - 1000 in _WOMEN) == women]
    actors.sort(key=lambda a: av_split.digest(str(a)))
    tenth = len(actors) // 10
    test = round(0.2 * len(actors))
    found.update(dict.fromkeys(actors[:test], "test"))
    found.update(dict.fromkeys(actors[test : test + tenth], "val"))
    held = actors[test + tenth : test + 2 * tenth]
    found.update(dict.fromkeys(held, "outer"))
  return found
