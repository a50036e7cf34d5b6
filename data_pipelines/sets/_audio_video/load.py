"""Batches of prepared clips: spectrograms, crops of frames."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.sets._audio_video import media
from data_pipelines.transforms import audio, crop, image

NPERSEG, NOVERLAP = 512, 353


def assemble(
  name: str, folder: pathlib.Path, settings: media.Settings, image_size: int
) -> core.Dataset:
  """The prepared data in ``folder``."""
  made = core.Report.read(folder)
  length = round(settings.seconds * settings.sample_rate)
  times = (length - NOVERLAP) // (NPERSEG - NOVERLAP)
  heard = core.ModalitySpec("audio", (NPERSEG // 2 + 1, times, 1), "float32")
  shape = (settings.frames, image_size, image_size, 3)
  shown = core.ModalitySpec("video", shape, "uint8")
  shape = (settings.frames, settings.side, settings.side, 3)
  stored = {"audio": heard, "video": core.ModalitySpec("video", shape, "uint8")}
  decode = functools.partial(_decode, settings=settings, length=length)
  frames = tuple(f"frame_{i}" for i in range(settings.frames))
  sources = {
    split: core.cache_if_small(
      core.Decoded(storage.read(folder, split, frames), decode), stored
    )
    for split in made.counts
  }
  sizes = {split: len(source) for split, source in sources.items()}
  modalities = {"audio": heard, "video": shown}
  return core.Dataset(
    core.Spec(name, modalities, made.classes, sizes),
    sources,
    augment={"video": crop.random_resized_crop(image_size)},
    decoded={"video": stored["video"]},
    view={"video": functools.partial(image.resize, size=image_size)},
    intake=intakes(settings, image_size),
    fingerprint=made.fingerprint,
  )


def intakes(
  settings: media.Settings, image_size: int
) -> dict[str, dict[str, Any]]:
  """How new clips are made."""
  rate = settings.sample_rate
  return {
    "audio": {
      "sample_rate": rate,
      "length": round(settings.seconds * rate),
      "nperseg": NPERSEG,
      "noverlap": NOVERLAP,
      "of_clip": True,
    },
    "video": {
      "frames": settings.frames,
      "size": image_size,
      "stored": settings.side,
      "of_clip": True,
    },
  }


def stored_side(image_size: int) -> int:
  """Side of stored frames: 256 for 224."""
  return -(-image_size * 8 // 7)


def _decode(
  record: dict[str, Any], settings: media.Settings, length: int
) -> core.Sample:
  frames = [
    image.decode(record[f"frame_{i}"], settings.side)
    for i in range(settings.frames)
  ]
  wave = media.wave_of(record["wave"])
  spectrogram = audio.log_spectrogram(
    wave, length, settings.sample_rate, NPERSEG, NOVERLAP
  )
  inputs = {"audio": spectrogram, "video": np.stack(frames)}
  label, key = int(record["label"]), record["id"].decode()
  return {"inputs": inputs, "label": label, "id": key}
