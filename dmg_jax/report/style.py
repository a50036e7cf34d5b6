"""How all pictures look: as in a paper's column, in colours for all readers.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; a
modality has its own marker, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dmg_jax.report.curves import look, save

BLACK, GREY = "#000000", "#6b6b6b"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "o^sDvP"


def save_all(
  makers: Mapping[str, Callable[[], Figure | None]], folder: Path
) -> dict[str, Path]:
  """Draws and saves ``<name>.png`` and ``.pdf``; without a figure, they go.

  Returns:
    {name: path of the PNG} of those that were drawn.
  """
  paths = {}
  with look():
    for name, make in makers.items():
      path = folder / f"{name}.png"
      figure = make()
      if figure is None:
        path.unlink(missing_ok=True)
        path.with_suffix(".pdf").unlink(missing_ok=True)
        continue
      # A reader sees the old picture or the new one, whole.
      part = folder / f"{name}.{os.getpid()}.part.png"
      save(figure, part)
      os.replace(part, path)
      os.replace(part.with_suffix(".pdf"), path.with_suffix(".pdf"))
      paths[name] = path
  return paths


def modality_colours(modalities: Sequence[str]) -> dict[str, str]:
  """The same colour for a modality in every picture."""
  return {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(modalities)}


def modality_markers(modalities: Sequence[str]) -> dict[str, str]:
  """The same marker."""
  return {m: MARKERS[i % len(MARKERS)] for i, m in enumerate(modalities)}
