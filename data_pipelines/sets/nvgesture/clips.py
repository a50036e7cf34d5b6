"""Clips as strips: all frames of a clip in one JPEG, and cuts of clips.

A strip has the frames [t h w c] below each other, a picture of t h rows; with
two channels each frame's channels lie below each other as grey pictures, 2 t h
rows. Heights are multiples of 8, JPEG's blocks, so that frames do not mix.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from data_pipelines.errors import InputError

QUALITY = 95
_HEIGHT = 65_500  # of a JPEG, at most


def encode(clip: np.ndarray) -> bytes:
  """JPEG bytes of a clip uint8 [t h w c] with 1, 2 or 3 channels.

  Raises:
    ValueError: a height that is no multiple of 8, or too many rows.
  """
  t, h, w, c = clip.shape
  rows = t * h * (2 if c == 2 else 1)
  if h % 8 or rows > _HEIGHT:
    raise InputError(
      f"a clip of {t} frames of {h} rows and {c} channels makes no strip: the "
      f"height must be a multiple of 8 and all rows at most {_HEIGHT}"
    )
  strip = clip.transpose(0, 3, 1, 2) if c == 2 else clip
  strip = strip.reshape((rows, w, 3) if c == 3 else (rows, w))
  file = io.BytesIO()
  Image.fromarray(strip).save(file, "JPEG", quality=QUALITY, subsampling=0)
  return file.getvalue()


def decode(
  data: bytes, frames: int, channels: int, reduce: int = 1
) -> np.ndarray:
  """The clip [t h w c] of a strip, height and width divided by ``reduce``.

  A pixel is the mean of ``reduce`` x ``reduce`` stored ones.
  """
  quick = next(n for n in (8, 4, 2, 1) if reduce % n == 0)  # by the decoder
  with Image.open(io.BytesIO(data)) as strip:
    strip.draft(None, (strip.width // quick, strip.height // quick))
    left = reduce // quick
    pixels = np.asarray(strip.reduce(left) if left > 1 else strip, np.uint8)
  width = pixels.shape[1]
  if channels == 2:
    return pixels.reshape(frames, 2, -1, width).transpose(0, 2, 3, 1)
  return pixels.reshape(frames, -1, width, channels)


def random_cut(
  rng: np.random.Generator, clip: np.ndarray, window: int, size: int
) -> np.ndarray:
  """A random run of ``window`` frames of a random square of ``size`` pixels."""
  frames, height, width = clip.shape[:3]
  t = rng.integers(frames - window + 1)
  y = rng.integers(height - size + 1)
  x = rng.integers(width - size + 1)
  return clip[t : t + window, y : y + size, x : x + size]


def centre_cut(clip: np.ndarray, size: int) -> np.ndarray:
  """All frames of the square of ``size`` pixels in the middle."""
  y, x = ((n - size) // 2 for n in clip.shape[1:3])
  return clip[:, y : y + size, x : x + size]
