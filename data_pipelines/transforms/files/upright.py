"""Frames of a video the way players show them.

A phone writes frames as its sensor sees them, and beside them a matrix that
turns or mirrors them for display.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

_Turn = Image.Transpose


def picture(frame: Any) -> Image.Image:
  """A frame of PyAV as an RGB picture, turned as its display matrix says."""
  made = frame.to_image()
  beside = frame.side_data  # Its iterator differs between versions of PyAV.
  for i in range(len(beside)):
    data = beside[i]
    if getattr(data.type, "name", "") == "DISPLAYMATRIX":
      return turned(made, np.frombuffer(bytes(data), np.int32))
  return made


def turned(made: Image.Image, matrix: np.ndarray) -> Image.Image:
  """The picture under a display matrix.

  Pixel (x, y) goes to (a x + c y, b x + d y), up to a shift. Angles are rounded
  to multiples of 90 degrees.

  Args:
    made: the picture as it is stored.
    matrix: nine numbers by rows, of which a, b are the first two and c, d the
      fourth and fifth.
  """
  a, b, c, d = (float(matrix[i]) for i in (0, 1, 3, 4))
  right, down = a, d
  if abs(a) + abs(d) < abs(b) + abs(c):
    made = made.transpose(_Turn.TRANSPOSE)
    right, down = c, b
  if right < 0:
    made = made.transpose(_Turn.FLIP_LEFT_RIGHT)
  if down < 0:
    made = made.transpose(_Turn.FLIP_TOP_BOTTOM)
  return made
