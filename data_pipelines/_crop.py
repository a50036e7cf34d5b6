"""Pictures squashed to a square, and squares cut out of them at random."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

_RATIO = 4 / 3  # widest of a crop, and its inverse the narrowest
_TRIALS = 10


def squash(picture: Image.Image, size: int) -> Image.Image:
  """Resized to ``size`` × ``size``, whatever its shape was (bilinear)."""
  if picture.size == (size, size):
    return picture
  return picture.resize((size, size), Image.Resampling.BILINEAR)


def resized(array: np.ndarray, size: int) -> np.ndarray:
  """``squash`` of an array [h w 3] uint8."""
  return np.asarray(squash(Image.fromarray(array), size), np.uint8)


def random_resized(
  rng: np.random.Generator, array: np.ndarray, size: int, min_area: float
) -> np.ndarray:
  """A random part [h w 3] uint8, resized to [``size`` ``size`` 3].

  Its share of the area is uniform in [``min_area``, 1], the logarithm of its
  ratio of sides in ±log(4/3), its place uniform; torchvision's
  RandomResizedCrop. The whole picture if ten draws do not fit into it.
  """
  height, width = array.shape[:2]
  for _ in range(_TRIALS):
    area = height * width * rng.uniform(min_area, 1)
    ratio = math.exp(rng.uniform(-math.log(_RATIO), math.log(_RATIO)))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      top = rng.integers(height - h + 1)
      left = rng.integers(width - w + 1)
      return resized(array[top : top + h, left : left + w], size)
  return resized(array, size)
