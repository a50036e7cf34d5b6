"""What ``kanji.py`` reads: KanjiVG's file of a character."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from data_pipelines.errors import DataError

PACKAGE = "kanjivg"
SIDE = 109  # of KanjiVG's drawing area
_NAME = re.compile(r"[0-9a-f]{5}\.svg")  # others are variants: 05b57-Kaisho
_IDEOGRAPHS = range(0x4E00, 0xA000)  # CJK Unified Ideographs
_GROUP = re.compile(r"<g [^>]*>")
_PATH = re.compile(r"<path [^>]*>")
_WIDTH = 3.0  # of a stroke, in units of the drawing area
_FINE = 4  # pixels of the drawing for one of the picture, each way
_PIECES = 12  # straight pieces of a curve


class Character(NamedTuple):
  """A character: its name, radical, types of stroke, and their outlines."""

  name: str
  radical: str
  types: tuple[str, ...]
  paths: tuple[str, ...]


def read(folder: str | os.PathLike | None) -> list[Character]:
  """The characters of a folder of KanjiVG, by code point.

  Args:
    folder: of files ``{code point, five hexadecimal digits}.svg``; ``None`` is
      that of the package ``kanjivg``.

  Raises:
    DataError: no such folder or package, or no character in it.
  """
  path = _installed() if folder is None else pathlib.Path(folder).expanduser()
  if not path.is_dir():
    raise DataError(f"no folder {path}: name KanjiVG's with --source")
  found = [c for file in _files(path) if (c := parse(file)) is not None]
  if not found:
    raise DataError(
      f"{path} has no file of a character, such as 06728.svg, with a radical"
    )
  return found


def _installed() -> pathlib.Path:
  try:
    files = importlib.metadata.files(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError as error:
    raise DataError(
      "no package kanjivg: pip install kanjivg, or name a folder of KanjiVG "
      "with --source"
    ) from error
  drawn = [f for f in files if _NAME.fullmatch(f.name)]
  if not drawn:
    raise DataError("the package kanjivg has no drawings: install it again")
  return pathlib.Path(str(drawn[0].locate())).parent


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  for path in sorted(folder.iterdir()):
    if _NAME.fullmatch(path.name) and int(path.stem, 16) in _IDEOGRAPHS:
      yield path


def parse(path: pathlib.Path) -> Character | None:
  """The character of a file; ``None`` if it names no radical.

  The radical is that of the first group with ``kvg:radical`` ``general`` or
  ``tradit``, in its original form (``心`` for ``忄``). A type is the sign of a
  stroke without its variant: ``㇔`` for ``㇔a`` and ``㇔/㇏``.
  """
  text = path.read_text(encoding="utf-8")
  radical = None
  for group in _GROUP.findall(text):
    if _value(group, "radical") in ("general", "tradit"):
      radical = _value(group, "original") or _value(group, "element")
      if radical:
        break
  strokes = _PATH.findall(text)
  types = tuple((_value(s, "type") or "?")[:1] for s in strokes)
  paths = tuple(m[1] for s in strokes if (m := re.search(r' d="([^"]*)"', s)))
  if not radical or not paths or len(paths) != len(types):
    return None
  return Character(chr(int(path.stem, 16)), radical, types, paths)


def _value(tag: str, name: str) -> str | None:
  found = re.search(rf'kvg:{name}="([^"]*)"', tag)
  return found[1] if found else None


def draw(paths: tuple[str, ...], size: int) -> np.ndarray:
  """The picture [size size] uint8, strokes bright."""
  scale = size * _FINE / SIDE
  width = _WIDTH * scale
  canvas = Image.new("L", (size * _FINE, size * _FINE))
  pen = ImageDraw.Draw(canvas)
  for path in paths:
    points = [(x * scale, y * scale) for x, y in points_of(path)]
    pen.line(points, fill=255, width=round(width), joint="curve")
    for x, y in (points[0], points[-1]):
      r = width / 2
      pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
  return np.asarray(canvas.reduce(_FINE))


def points_of(path: str) -> list[tuple[float, float]]:
  """Points along an SVG path, each of its curves in straight pieces.

  Raises:
    DataError: fonttools is not installed.
  """
  try:
    from fontTools.pens.recordingPen import RecordingPen
    from fontTools.svgLib.path import parse_path
  except ImportError as error:
    raise DataError(
      "drawings are read by fonttools: pip install 'dmg_jax[demo]'"
    ) from error
  pen = RecordingPen()
  parse_path(path, pen)
  points: list[tuple[float, float]] = []
  for operation, given in pen.value:
    if operation in ("moveTo", "lineTo"):
      points.append(given[0])
    elif operation == "curveTo":
      corners = np.array([points[-1], *given])  # cubic: B(t) of four points
      t = np.linspace(0, 1, _PIECES + 1)[1:, None]
      weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
      curve = sum(w * c for w, c in zip(weights, corners, strict=True))
      points += map(tuple, np.asarray(curve))
  return points
