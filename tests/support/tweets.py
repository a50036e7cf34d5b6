"""Downloads of tweets with pictures, from real annotations, for tests."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest
from PIL import Image

import launch

SARCASM = "sarcasm_cai2019/text"
TWITTER = "twitter_tombert/absa_data/twitter2015"


def annotations(name: str) -> pathlib.Path:
  """A folder of real annotation files; the test is skipped without it."""
  beside = pathlib.Path(launch.__file__).parent.parent / "shared" / "data"
  root = pathlib.Path(os.environ.get("DMG_SHARED_DATA", beside))
  folder = root / "paper_annotations" / name
  if not folder.is_dir():
    pytest.skip(f"there is no {folder}")
  return folder


def some(source: pathlib.Path, target: pathlib.Path, count: int) -> list[str]:
  """Copies lines from all over a file; returns them without line ends."""
  lines = source.read_bytes().splitlines(keepends=True)
  lines = lines[:: len(lines) // count][:count]
  target.parent.mkdir(parents=True, exist_ok=True)
  target.write_bytes(b"".join(lines))
  return [line.decode().rstrip("\r\n") for line in lines]


def draw(path: pathlib.Path, shade: int, size: tuple[int, int] = (40, 30)):
  """A picture with a red left half; ``shade`` is the blue of the other."""
  array = np.zeros((size[1], size[0], 3), np.uint8)
  array[:, : size[0] // 2, 0] = 255
  array[:, size[0] // 2 :, 2] = shade
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(array).save(path)
