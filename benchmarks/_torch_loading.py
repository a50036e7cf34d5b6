"""Reads the clips through torch's ``DataLoader`` with our own functions.

Pillow and soundfile decode the files, ``transforms.crop`` crops and flips
pictures, and ``transforms.audio`` computes spectrograms. Batches are uint8 and
float32, like ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from data_pipelines.transforms import audio, crop


class Clips(Dataset):
  """(picture, sound) files, decoded and cropped on access."""

  def __init__(self, files: list[tuple[Path, Path]], size: int, wave: tuple):
    self._files, self._wave = files, wave
    self._cut = crop.random_resized_crop(size)

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> tuple[Any, Any, int]:
    picture, sound = self._files[index % len(self._files)]
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    rng = np.random.default_rng(int(torch.initial_seed()) + index)
    wave, _ = soundfile.read(sound, dtype="float32")
    spectrogram = audio.log_spectrogram(wave, *self._wave)
    cut = np.array(self._cut(rng, pixels))  # torch needs a writable array.
    return torch.from_numpy(cut), torch.from_numpy(spectrogram), 0


def stream(
  files: list[tuple[Path, Path]],
  size: int,
  wave: tuple,
  batch_size: int,
  batches: int,
  workers: int,
):
  """Iterator over ``batches`` random batches, with torch's default prefetching.

  Args:
    files: list of (picture, sound).
    size: side of crops.
    wave: arguments of ``audio.log_spectrogram`` after the wave.
    batch_size: number of samples per batch.
    batches: number of batches.
    workers: number of spawned processes; 0 means the caller's thread.
  """
  order = torch.randint(len(files), (batches * batch_size,))
  loader = DataLoader(
    Clips(files, size, wave),
    batch_size,
    sampler=order.tolist(),
    num_workers=workers,
    # A fork would copy locks that JAX's threads may hold.
    multiprocessing_context="spawn" if workers else None,
  )
  return iter(loader)
