"""A run's page: pictures and a self-contained ``report.html``.

Needs the files of a work directory only: no model, no data.
"""

from __future__ import annotations

from pathlib import Path

from dmg_jax.report import figures, html, reading
from dmg_jax.report.features import save_features
from dmg_jax.report.predictions import save_predictions

__all__ = ["save_features", "save_predictions", "write_report"]


def write_report(workdir: str | Path) -> Path:
  """Draws what the run has logged so far; finished or not.

  Writes ``<workdir>/report/*.png`` and ``*.pdf`` and ``report.html`` there.

  Args:
    workdir: of one run, or of several seeds in ``seed_<i>`` below it.

  Returns:
    The path of ``report.html``.

  Raises:
    FileNotFoundError: no work directory, or no ``config.json`` in it.
    ValueError: a file in it is damaged.
  """
  found = reading.read(workdir)
  folder = found.path / "report"
  folder.mkdir(exist_ok=True)
  pictures = figures.draw_all(found, folder)
  page = folder / "report.html"
  page.write_text(html.page(found, pictures), encoding="utf-8")
  return page
