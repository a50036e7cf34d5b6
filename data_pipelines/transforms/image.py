"""Pictures: decoding, resizing, augmentation. Arrays are uint8 [h w c]."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import struct
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data_pipelines.core import Augment
from data_pipelines.errors import InputError
from data_pipelines.transforms.files import remarks, signatures

WHITE = (255, 255, 255)
QUALITY = 95  # of a JPEG
# That are decoded: Pillow's own limit, a quarter of a GiB as RGB.
MAX_PIXELS = 2**30 // 4 // 3
_QUARTER = 2**14  # of the values of 16 bits
_REDUCTIONS = (2, 4, 8)  # of a side, by which JPEGs can be decoded
_OPENING = threading.Lock()


def decode(
  data: bytes, size: int, fill: tuple[int, int, int] = WHITE
) -> np.ndarray:
  """Encoded picture to RGB, [``size``, ``size``, 3].

  The longer side fits; ``fill`` pads the rest and lies behind transparent
  pixels.
  """
  with Image.open(io.BytesIO(data)) as picture:
    return square(_opaque(picture, fill), size, fill)


def read(path: str | os.PathLike, size: int) -> np.ndarray:
  """A picture's file to RGB, [``size``, ``size``, 3], as ``decode`` does.

  Raises:
    ValueError: pixels are not brightness values.
    OSError: the file is absent or no picture (decoders may raise others).
  """
  return square(open_rgb(path), size)


def open_rgb(
  path: str | os.PathLike | io.BytesIO,
  tell: remarks.Tell = remarks.ignore,
  most: int = MAX_PIXELS,
) -> Image.Image:
  """A picture's file as RGB, see ``to_rgb``.

  Raises:
    ValueError: it is no picture, it is damaged, or as ``to_rgb``.
    OSError: the file is absent.
  """
  try:
    with _opened(path) as picture:
      return to_rgb(picture, tell, most)
  except UnidentifiedImageError as error:
    why = "it is no picture that Pillow can read; JPEG and PNG are the safest"
    if isinstance(path, io.BytesIO):
      raise InputError(why) from error
    raise signatures.unreadable("image", path, why) from error
  except (OSError, SyntaxError, struct.error) as error:
    if isinstance(error, OSError) and error.errno:  # Of the file system.
      raise
    raise InputError(
      f"it is damaged or cut off, and pictures must be whole: {error}"
    ) from error


@contextlib.contextmanager
def _opened(path: str | os.PathLike | io.BytesIO) -> Iterator[Image.Image]:
  """The picture, of which nothing but the header has been read.

  Pillow's own limit does not know that a JPEG will be reduced.
  """
  with _OPENING:
    own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      picture = Image.open(path)
    finally:
      Image.MAX_IMAGE_PIXELS = own
  with picture:
    yield picture


def to_rgb(
  picture: Image.Image,
  tell: remarks.Tell = remarks.ignore,
  most: int = MAX_PIXELS,
) -> Image.Image:
  """Any picture as RGB on a white background.

  Photographs are rotated as their EXIF data say; 16 bits become 8.

  Args:
    picture: of any mode.
    tell: gets a remark if 16 bits are hardly used.
    most: pixels that may be decoded. A JPEG of more is decoded at half, a
      quarter or an eighth of its width and height.

  Raises:
    ValueError: it has more pixels, or they are not brightness values.
  """
  _reduce(picture, most)
  check_pixels(picture.size, most)
  deep_colours = any(";16" in str(t) for t in getattr(picture, "tile", ()))
  upright = ImageOps.exif_transpose(picture)
  if upright.mode in ("I", "F"):
    raise InputError(
      f"pixels of mode {upright.mode}: convert the picture to 8 bits"
    )
  if upright.mode.startswith("I;16"):
    deep = np.asarray(upright)
    _check_range(int(deep.min()), int(deep.max()), tell)
    upright = Image.fromarray((deep // 257).astype(np.uint8))
  elif deep_colours:  # Pillow keeps the upper 8 bits.
    kept = np.asarray(upright.convert("RGB"))
    _check_range(256 * int(kept.min()), 256 * int(kept.max()) + 255, tell)
  return _opaque(upright, WHITE)


def check_pixels(size: tuple[int, int], most: int) -> None:
  """Refuses pictures that would fill the memory.

  Args:
    size: width and height.
    most: pixels that may be decoded.

  Raises:
    ValueError: there are more; with the fix.
  """
  width, height = size
  if width * height > most:
    raise InputError(
      f"{width} x {height} are {width * height:,} pixels, and at most {most:,} "
      "are decoded: make it smaller, or in your own data raise "
      "--config.data.max_pixels"
    )


def _reduce(picture: Image.Image, most: int) -> None:
  """Has a JPEG that is too large decoded at a reduced size, if it can be.

  Decoders hold all of a progressive one, whatever the size.
  """
  width, height = picture.size
  if width * height <= most or picture.info.get("progressive"):
    return
  for by in _REDUCTIONS:
    if math.ceil(width / by) * math.ceil(height / by) <= most:
      picture.draft(picture.mode, (width // by, height // by))
      return


def _check_range(low: int, high: int, tell: remarks.Tell) -> None:
  """A remark if 16 bits are dark or of little contrast, as depth maps are."""
  dark = 0 < high < _QUARTER
  if dark or 0 < high - low < _QUARTER:
    tell(remarks.Shallow(low, high))


def square(
  picture: Image.Image, size: int, fill: tuple[int, int, int] = WHITE
) -> np.ndarray:
  """An RGB picture to [``size``, ``size``, 3]; the rest is ``fill``."""
  scale = size / max(picture.size)
  width, height = (max(1, round(side * scale)) for side in picture.size)
  if (width, height) != picture.size:
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
  if (width, height) != (size, size):
    square = Image.new("RGB", (size, size), fill)
    square.paste(picture, ((size - width) // 2, (size - height) // 2))
    picture = square
  return np.asarray(picture, np.uint8)


def resize(array: np.ndarray, size: int) -> np.ndarray:
  """[h w c] or [t h w c] to [... ``size`` ``size`` c], ignoring the aspect."""
  if array.ndim == 4:
    return np.stack([resize(frame, size) for frame in array])
  picture = Image.fromarray(array)
  if picture.size != (size, size):
    picture = picture.resize((size, size), Image.Resampling.BILINEAR)
  return np.asarray(picture, np.uint8)


def encode(picture: Image.Image) -> bytes:
  """PNG bytes."""
  file = io.BytesIO()
  picture.save(file, "PNG", optimize=False)
  return file.getvalue()


def jpeg(array: np.ndarray) -> bytes:
  """JPEG bytes of high quality, of pixels [h w 3]."""
  file = io.BytesIO()
  Image.fromarray(array).save(file, "JPEG", quality=QUALITY)
  return file.getvalue()


def _opaque(picture: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
  if picture.has_transparency_data:
    behind = Image.new("RGBA", picture.size, (*fill, 255))
    picture = Image.alpha_composite(behind, picture.convert("RGBA"))
  return picture.convert("RGB")


def mirror(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
  """Mirrors a picture [h w c] or video [t h w c] with probability 1/2."""
  return array[..., ::-1, :] if rng.random() < 0.5 else array


def augmentation(
  *,
  shift: float = 0.08,
  rotate: float = 10.0,
  scale: float = 0.1,
  flip: bool = True,
  fill: tuple[int, int, int] = WHITE,
) -> Augment:
  """Random geometry, a pure function of the generator.

  Args:
    shift: largest translation along each axis, a share of the side.
    rotate: largest angle to either side, in degrees.
    scale: largest relative change of size.
    flip: mirror every second picture, left to right.
    fill: colour of what comes in from outside.

  Raises:
    ValueError: a range that is negative, or a scale not below 1.
  """
  for name, value in (("shift", shift), ("rotate", rotate), ("scale", scale)):
    if not 0 <= value < math.inf:
      raise InputError(f"{name} must be a number >= 0, got {value!r}")
  if scale >= 1:
    raise InputError(f"scale must be below 1, got {scale!r}")
  return functools.partial(
    _augment, shift=shift, rotate=rotate, scale=scale, flip=flip, fill=fill
  )


def _augment(
  rng: np.random.Generator,
  array: np.ndarray,
  *,
  shift: float,
  rotate: float,
  scale: float,
  flip: bool,
  fill: tuple[int, int, int],
) -> np.ndarray:
  height, width = array.shape[:2]
  u = rng.uniform(-1, 1, size=5)
  zoom = (1 + scale) ** u[0]
  angle = math.radians(rotate * u[1])
  a, b = math.cos(angle) / zoom, math.sin(angle) / zoom
  mirror = -1.0 if flip and u[4] < 0 else 1.0
  # Output pixel -> input pixel, about the centre.
  x, y = (width - 1) / 2 + 0.5, (height - 1) / 2 + 0.5
  dx, dy = x + shift * width * u[2], y + shift * height * u[3]
  matrix = (
    mirror * a, mirror * b, x - mirror * (a * dx + b * dy),
    -b, a, y - (-b * dx + a * dy),
  )  # fmt: skip
  moved = Image.fromarray(array).transform(
    (width, height),
    Image.Transform.AFFINE,
    matrix,
    Image.Resampling.BILINEAR,
    fillcolor=fill,
  )
  return np.asarray(moved, array.dtype)
