"""Writes synthetic pictures and sounds that cost as much to decode as real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from PIL import Image
from scipy import ndimage

SIDE, SECONDS, RATE = 256, 3.0, 16000
CLASSES = ("bowling", "singing")  # Two classes of Kinetics-Sounds.
_SPLITS = ("train",) * 8 + ("val", "test")


def write(folder: Path, count: int) -> dict[str, list[tuple[Path, Path]]]:
  """Writes a 256-pixel JPEG and a 3-second WAV per sample, and split lists.

  Args:
    folder: new folder, to be used as ``raw`` and ``annotations`` of
      ``kinetics_sounds``.
    count: number of samples.

  Returns:
    {split: [(picture, sound)]}.
  """
  rng = np.random.default_rng(0)
  made: dict[str, list[tuple[Path, Path]]] = {s: [] for s in _SPLITS}
  rows: dict[str, list[str]] = {s: [] for s in _SPLITS}
  for i in range(count):
    split, label = _SPLITS[i % len(_SPLITS)], CLASSES[i // 10 % 2]
    name = f"clip-{i:06d}"
    picture = folder / label / name / "frame_00001.jpg"
    picture.parent.mkdir(parents=True)
    _picture(rng).save(picture, "JPEG", quality=90)
    sound = folder / label / f"{name}.wav"
    soundfile.write(sound, _wave(rng), RATE, "PCM_16")
    made[split].append((picture, sound))
    rows[split].append(f"{name},10,{label}\n")
  for split, lines in rows.items():
    (folder / f"my_{split}.txt").write_text("".join(lines))
  return made


def _picture(rng: np.random.Generator) -> Image.Image:
  """Noise whose amplitudes fall as 1 / frequency, as in photographs."""
  rows, columns = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)
  frequency = np.maximum(np.hypot(rows, columns), 1 / SIDE)[..., None]
  noise = np.fft.rfft2(rng.normal(size=(SIDE, SIDE, 3)), axes=(0, 1))
  waves = np.fft.irfft2(noise / frequency, axes=(0, 1))
  pixels = 128 + 45 * waves / waves.std()
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _wave(rng: np.random.Generator) -> np.ndarray:
  noise = np.cumsum(rng.normal(size=round(SECONDS * RATE)))
  noise -= ndimage.uniform_filter1d(noise, 400)
  return (0.2 * noise / np.abs(noise).max()).astype(np.float32)
