"""Data sets of 10 s of YouTube, sound and video: their options."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from data_pipelines import core
from data_pipelines.sets._audio_video import load as av_load
from data_pipelines.sets._audio_video import media
from data_pipelines.sets._audio_video.prepared import Prepared
from data_pipelines.sets._audio_video.samples import DataSet

ID = r"[A-Za-z0-9_-]{11}"  # of a video


@dataclasses.dataclass(frozen=True)
class TenSeconds:
  """Loading and preparing one of these data sets.

  Attributes:
    about: folder of its lists, perhaps empty -> its properties.
  """

  about: Callable[[str], DataSet]

  def load(
    self,
    data_dir: str | os.PathLike,
    *,
    raw: str = "",
    image_size: int = 224,
    frames: int = 3,
    sample_rate: int = 16000,
    seconds: float = 10.0,
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
      annotations: folder of the lists; the data set's module names them.
      workers: processes that decode; 0 is this one alone, -1 one a core.

    Raises:
      ValueError: an option out of its range, or no ``raw`` where it is needed.
      core.DataError: raw or prepared data that cannot be used.
      ModuleNotFoundError: videos, but no PyAV (the extra ``video``).
    """
    settings = _settings(image_size, frames, sample_rate, seconds)
    about = self.about(annotations)
    return Prepared(about, data_dir, settings, raw, workers).load(image_size)

  def prepare(
    self,
    data_dir: str | os.PathLike,
    *,
    raw: str = "",
    image_size: int = 224,
    frames: int = 3,
    sample_rate: int = 16000,
    seconds: float = 10.0,
    annotations: str = "",
    workers: int = -1,
  ) -> core.PreparedSummary:
    """Decodes and stores all clips; arguments and errors as ``load``'s.

    Intact data are left alone. Clips that are missing or cannot be decoded are
    left out and listed in ``problems.csv``; the summary counts them.
    """
    settings = _settings(image_size, frames, sample_rate, seconds)
    about = self.about(annotations)
    return Prepared(about, data_dir, settings, raw, workers).prepare()


def _settings(
  image_size: int, frames: int, sample_rate: int, seconds: float
) -> media.ClipSettings:
  side = av_load.stored_side(image_size)
  return media.ClipSettings(frames, side, sample_rate, seconds)
