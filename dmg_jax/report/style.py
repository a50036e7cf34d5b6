"""Colours and markers of all plots, sized for the column of a paper.

The colours are those of Okabe and Ito, which colour-blind readers can
distinguish; each modality has its own marker, too.
"""

from __future__ import annotations

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
  """Draws and saves ``<name>.png`` and ``.pdf`` for each maker.

  If a maker returns ``None``, files from an earlier call are removed.

  Returns:
    {name: path of the PNG} of the plots that were drawn.
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
      save(figure, path)
      paths[name] = path
  return paths


def modality_colours(modalities: Sequence[str]) -> dict[str, str]:
  """{modality: colour}, the same in every plot."""
  return {m: COLOURS[i % len(COLOURS)] for i, m in enumerate(modalities)}


def modality_markers(modalities: Sequence[str]) -> dict[str, str]:
  """{modality: marker}, the same in every plot."""
  return {m: MARKERS[i % len(MARKERS)] for i, m in enumerate(modalities)}
