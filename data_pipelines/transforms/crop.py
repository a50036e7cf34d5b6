"""Random resized crops, the training augmentation of pictures and videos.

The box is drawn as ``RandomResizedCrop`` of torchvision draws it (Szegedy et
al., "Going Deeper with Convolutions", CVPR 2015, section 6).
"""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image

from data_pipelines.core import Augment
from data_pipelines.errors import InputError
from data_pipelines.transforms import image

_TRIES = 10


def random_resized_crop(
  size: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  flip: bool = True,
) -> Augment:
  """A random box of the picture, resized to [``size`` ``size`` c].

  Frames of a video [t h w c] are cropped and mirrored independently. Pillow's
  bilinear filter resizes without aliasing.

  Args:
    size: side of the result in pixels.
    scale: least and largest area of the box, a share of the picture's.
    ratio: least and largest width / height of the box, drawn by its logarithm.
    flip: mirror every second box, left to right.

  Returns:
    A pure function of (generator, uint8 array).

  Raises:
    ValueError: a range that is empty or not positive, or an area above 1.
  """
  for name, (low, high) in (("scale", scale), ("ratio", ratio)):
    if not 0 < low <= high < math.inf:
      raise InputError(f"{name} must be 0 < low <= high, got {(low, high)!r}")
  if scale[1] > 1:
    raise InputError(f"scale must be at most 1, got {scale!r}")
  return functools.partial(cut, size=size, scale=scale, ratio=ratio, flip=flip)


def cut(
  rng: np.random.Generator,
  array: np.ndarray,
  *,
  size: int,
  scale: tuple[float, float],
  ratio: tuple[float, float],
  flip: bool,
) -> np.ndarray:
  """See ``random_resized_crop``."""
  if array.ndim == 4:
    one = functools.partial(
      cut, rng, size=size, scale=scale, ratio=ratio, flip=flip
    )
    return np.stack([one(frame) for frame in array])
  total_height, total_width = array.shape[:2]
  top, left, height, width = box(rng, total_height, total_width, scale, ratio)
  picture = Image.fromarray(array[top : top + height, left : left + width])
  picture = picture.resize((size, size), Image.Resampling.BILINEAR)
  part = np.asarray(picture, np.uint8)
  return image.mirror(rng, part) if flip else part


def box(
  rng: np.random.Generator,
  height: int,
  width: int,
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> tuple[int, int, int, int]:
  """(top, left, height, width) of a random box.

  After ten draws that do not fit, it is the largest centred box with an allowed
  ratio.
  """
  low, high = math.log(ratio[0]), math.log(ratio[1])
  for _ in range(_TRIES):
    area = height * width * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(low, high))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      top = int(rng.integers(0, height - h + 1))
      return top, int(rng.integers(0, width - w + 1)), h, w
  aspect = min(max(width / height, ratio[0]), ratio[1])
  w, h = min(width, round(height * aspect)), min(height, round(width / aspect))
  return (height - h) // 2, (width - w) // 2, h, w
