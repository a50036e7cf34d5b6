"""Pictures of emoji from OpenMoji's colour font.

Pillow draws a sequence such as WOMAN + ZWJ + ROCKET as one glyph only where the
system has a text-shaping library. So that every machine draws the same picture,
the glyph of each sequence is looked up in the font's own ligature table and
given a private code point, which Pillow draws without shaping. The look-up is
exact: a sequence that the font does not know is reported, never drawn as two
glyphs or as a box.
"""

from __future__ import annotations

import dataclasses
import io
import pathlib
from collections.abc import Iterable, Sequence

from PIL import Image, ImageChops, ImageDraw, ImageFont

SIDE = 72  # pixels of a picture
_PRIVATE = 0x100000  # first code point of the last private-use plane
_VARIATION = 0xFE0F  # "draw as emoji": no picture of its own
# OpenMoji draws on a grid one advance (1.289 em) wide, a few drawings a little
# beyond it: such a drawing is moved inside.
_ADVANCE_EM = 1.2890625


def code_points(unified: str) -> tuple[int, ...]:
  """Code points of ``"1F469-200D-1F680"``."""
  return tuple(int(part, 16) for part in unified.split("-"))


@dataclasses.dataclass(frozen=True)
class Glyphs:
  """A font whose every known sequence is one private character.

  Attributes:
    font: Pillow's font, at its size, basic layout.
    characters: {sequence of code points: its character}.
  """

  font: ImageFont.FreeTypeFont
  characters: dict[tuple[int, ...], str]

  def draw(self, sequence: Sequence[int]) -> Image.Image:
    """RGB picture, ``SIDE`` x ``SIDE``, on white.

    Raises:
      LookupError: the font has no single glyph for the sequence, or the glyph
        is blank or larger than the picture.
    """
    name = "-".join(f"{point:04X}" for point in sequence)
    character = self.characters.get(tuple(sequence)) or self.characters.get(
      tuple(point for point in sequence if point != _VARIATION)
    )
    if character is None:
      raise LookupError(f"{name}: the font has no single glyph for it")
    canvas = Image.new("RGB", (2 * SIDE, 2 * SIDE), "white")
    ImageDraw.Draw(canvas).text(
      (SIDE, SIDE),
      character,
      fill="black",
      font=self.font,
      anchor="mm",
      embedded_color=True,
    )
    ink = ImageChops.invert(canvas).getbbox()
    if ink is None:
      raise LookupError(f"{name}: its glyph is blank")
    if max(ink[2] - ink[0], ink[3] - ink[1]) > SIDE:
      raise LookupError(f"{name}: its glyph is larger than {SIDE} pixels")
    left = _window(ink[0], ink[2])
    top = _window(ink[1], ink[3])
    return canvas.crop((left, top, left + SIDE, top + SIDE))


def _window(start: int, stop: int) -> int:
  """Start of the picture: the centred one, moved if ink reaches beyond it."""
  return min(max(SIDE // 2, stop - SIDE), start)


def read_glyphs(
  path: pathlib.Path, sequences: Iterable[tuple[int, ...]]
) -> Glyphs:
  """The glyphs of ``sequences`` that the COLRv0 font at ``path`` has."""
  from fontTools.ttLib import TTFont

  with TTFont(path, lazy=True) as font:
    cmap = font.getBestCmap() or {}
    ligatures = _ligatures(font)
    colored = font["COLR"].ColorLayers
    characters, private = {}, {}
    wanted = {tuple(p for p in s if p != _VARIATION) for s in sequences} | set(
      sequences
    )
    for sequence in sorted(wanted):
      names = tuple(cmap.get(point, "") for point in sequence)
      glyph = names[0] if len(names) == 1 else ligatures.get(names)
      if glyph in colored:
        code = _PRIVATE + len(private)
        private[code] = glyph
        characters[sequence] = chr(code)
    for table in font["cmap"].tables:
      if table.format == 12:
        table.cmap.update(private)
    file = io.BytesIO()
    font.save(file, reorderTables=None)
  file.seek(0)
  pillow_font = ImageFont.truetype(
    file,
    size=(SIDE - 2) / _ADVANCE_EM,
    layout_engine=ImageFont.Layout.BASIC,
  )
  return Glyphs(pillow_font, characters)


def _ligatures(font) -> dict[tuple[str, ...], str]:
  """{glyph names of a sequence: name of its ligature glyph}."""
  found = {}
  for lookup in font["GSUB"].table.LookupList.Lookup:
    for table in lookup.SubTable:
      for first, ligatures in getattr(table, "ligatures", {}).items():
        for ligature in ligatures:
          found[(first, *ligature.Component)] = ligature.LigGlyph
  return found
