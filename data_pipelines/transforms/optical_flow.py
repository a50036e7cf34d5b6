"""Optical flow between frames, and flow as grey pictures. Needs OpenCV."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from data_pipelines.errors import MissingPackageError

BOUND = 20.0  # pixels; longer flow is cut


def flow(rgb: np.ndarray) -> np.ndarray:
  """Optical flow of a clip uint8 [t h w 3], float32 [t h w 2] in pixels.

  At frame i it is where a point of frame i is in frame i + 1, right and down
  positive; the last frame has that of the one before. Dense Inverse Search
  (Kroeger et al., ECCV 2016) of OpenCV, preset "medium".
  """
  cv2 = opencv()
  grey = [
    cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in rgb
  ]
  search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  found = [search.calc(a, b, None) for a, b in itertools.pairwise(grey)]
  return np.stack([*found, found[-1]])


def quantised(found: np.ndarray) -> np.ndarray:
  """Flow f in pixels as uint8, 127.5 (1 + clip(f, ±20) / 20), rounded."""
  share = np.clip(np.nan_to_num(found), -BOUND, BOUND) / BOUND
  return np.rint(127.5 * (1 + share)).astype(np.uint8)


def opencv() -> Any:
  """The module of OpenCV, on one thread: clips are what runs in parallel.

  Raises:
    ModuleNotFoundError: it is not installed; the message says how.
  """
  try:
    import cv2
  except ModuleNotFoundError as error:
    raise MissingPackageError(
      f"optical flow needs OpenCV ({error}): pip install -e '.[video]'"
    ) from error
  cv2.setNumThreads(1)
  return cv2
