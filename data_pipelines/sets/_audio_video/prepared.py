"""Data sets of clips with sound and pictures: preparing and loading.

Frames are stored as JPEG, a seventh larger than requested, and sound as 16-bit
mono; spectrograms and crops are made on access.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.sets._audio_video import load as av_load
from data_pipelines.sets._audio_video import media, preparing
from data_pipelines.transforms import clips


class Prepared(preparing.Preparing):
  """See ``Preparing``; ``settings`` are ``media.ClipSettings``."""

  def __post_init__(self):
    s = self.settings
    preparing.check("frames", s.frames, 1, clips.OF_VIDEO)
    preparing.check("image_size", s.side, 8, 4096)
    preparing.check("sample_rate", s.sample_rate, 1000, 192_000)
    preparing.check("seconds", s.seconds, media.NPERSEG / s.sample_rate, 60)
    preparing.check("workers", self.workers, -1, 1024)

  def make(self) -> Callable[[Any], raw.Fields]:
    """The function of a clip that decodes it."""
    return functools.partial(media.make, settings=self.settings)

  def features(self) -> dict[str, Any]:
    """{field: feature} of a stored clip."""
    import tensorflow_datasets as tfds

    side = self.settings.side
    picture = tfds.features.Image(shape=(side, side, 3), encoding_format="jpeg")
    # As bytes: a list of integers takes ten bytes for each negative one.
    wave = tfds.features.Tensor(
      shape=(None,), dtype=np.int16, encoding=tfds.features.Encoding.BYTES
    )
    return {"wave": wave, **dict.fromkeys(self._frames(), picture)}

  def record(self, fields: raw.Fields) -> dict[str, Any]:
    """{field: value} of what was decoded."""
    frames = {name: fields[name].tobytes() for name in self._frames()}
    return {"wave": fields["wave"], **frames}

  def _frames(self) -> list[str]:
    return [f"frame_{i}" for i in range(self.settings.frames)]

  def load(self, image_size: int) -> core.Dataset:
    """Loads the data set and prepares it first if need be.

    Raises:
      ValueError, core.DataError: as ``prepare``; or the data are damaged.
    """
    return av_load.assemble(
      self.about.name, self.ready(), self.settings, image_size
    )
