"""Batches of prepared clips: spectrograms, crops of frames."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.sets._audio_video import media
from data_pipelines.transforms import crop, image, kinds


def assemble(
  name: str, folder: pathlib.Path, settings: media.ClipSettings, image_size: int
) -> core.Dataset:
  """The prepared data in ``folder``."""
  made = core.PreparedSummary.read(folder)
  length = round(settings.seconds * settings.sample_rate)
  window, shared = media.NPERSEG, media.NOVERLAP
  times = (length - shared) // (window - shared)
  heard = core.ModalitySpec("audio", (window // 2 + 1, times, 1), "float32")
  shape = (settings.frames, image_size, image_size, 3)
  shown = core.ModalitySpec("video", shape, "uint8")
  shape = (settings.frames, settings.side, settings.side, 3)
  stored = {"audio": heard, "video": core.ModalitySpec("video", shape, "uint8")}
  frames = tuple(f"frame_{i}" for i in range(settings.frames))
  options = media.preprocessing(settings, image_size)
  decode = functools.partial(
    _decode,
    sounds=kinds.ClipAudio(options["audio"]),
    videos=kinds.ClipVideo(options["video"]),
    frames=frames,
  )
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
    preprocessing=options,
    fingerprint=made.fingerprint,
  )


def stored_side(image_size: int) -> int:
  """Side of stored frames: 256 for 224."""
  return -(-image_size * 8 // 7)


def _decode(
  record: dict[str, Any],
  sounds: kinds.ClipAudio,
  videos: kinds.ClipVideo,
  frames: tuple[str, ...],
) -> core.Sample:
  inputs = {
    "audio": sounds.decode(record["wave"]),
    "video": videos.unpack([record[name] for name in frames]),
  }
  label, key = int(record["label"]), record["id"].decode()
  return {"inputs": inputs, "label": label, "id": key}
