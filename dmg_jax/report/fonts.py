"""Fonts for plots: class names are data and may use any script."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator

import matplotlib
from matplotlib import font_manager

FIRST = "DejaVu Sans"  # Part of Matplotlib: Latin, Greek, Cyrillic, Arabic.
# Fonts that Linux, macOS or Windows may have, or that a user installs.
OTHERS = (
  *(f"Noto Sans CJK {region}" for region in ("SC", "TC", "HK", "JP", "KR")),
  *(f"Noto Sans {region}" for region in ("SC", "TC", "HK", "JP", "KR")),
  *(f"Source Han Sans {region}" for region in ("SC", "TC", "HC", "K")),
  "Source Han Sans",
  "WenQuanYi Micro Hei",
  "WenQuanYi Zen Hei",
  "Droid Sans Fallback",
  "PingFang SC",
  "PingFang HK",
  "Hiragino Sans GB",
  "Hiragino Sans",
  "Heiti TC",
  "Apple SD Gothic Neo",
  "Arial Unicode MS",
  "Microsoft YaHei",
  "SimHei",
  "Yu Gothic",
  "Malgun Gothic",
  "Nirmala UI",
  "Leelawadee UI",
  *(f"Noto Sans {script}" for script in ("Devanagari", "Bengali", "Tamil")),
  "Noto Sans Thai",
)
_MISSING = r"Glyph (\d+) .*missing from (current )?font"


def families() -> list[str]:
  """``FIRST`` and those of ``OTHERS`` that are installed, in their order."""
  installed = {font.name for font in font_manager.fontManager.ttflist}
  return [FIRST, *(name for name in OTHERS if name in installed)]


@contextlib.contextmanager
def one_warning() -> Iterator[None]:
  """Collects warnings of missing characters into one, after drawing."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.filterwarnings("always", _MISSING)
    yield
  missing = dict.fromkeys(_character(w) for w in caught)
  for w in caught:
    if not _character(w):
      warnings.warn_explicit(w.message, w.category, w.filename, w.lineno)
  if characters := "".join(missing):
    warnings.warn(
      f"no installed font has {characters}: drawn as boxes. Install one that "
      "does, e.g. Noto Sans CJK SC, remove fontlist-*.json in "
      f"{matplotlib.get_cachedir()}, and draw again with --mode=report",
      stacklevel=3,
    )


def _character(warning: warnings.WarningMessage) -> str:
  """The missing character; empty for any other warning."""
  match = re.match(_MISSING, str(warning.message))
  return chr(int(match[1])) if match else ""
