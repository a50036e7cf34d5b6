"""Report of a run: plots and a self-contained ``report.html``.

It is made from the files of a work directory alone, without model or data.
"""

from __future__ import annotations

from pathlib import Path

from dmg_jax.report.features import save_features
from dmg_jax.report.predictions import save_predictions
from dmg_jax.tracking.logging import replace, writing

__all__ = ["save_features", "save_predictions", "write_report"]


def write_report(workdir: str | Path) -> Path:
  """Writes the report of a run, finished or not, and returns its path.

  It writes ``<workdir>/report/report.html`` and the plots next to it, as
  ``*.png`` and ``*.pdf``.

  Args:
    workdir: folder of one run, or of several seeds in ``seed_<i>``.

  Returns:
    The path of ``report.html``.

  Raises:
    FileNotFoundError: there is no work directory, or it has no ``config.json``.
    ValueError: a file in it is damaged.
    WriteError: the report cannot be written.
  """
  from dmg_jax.report import figures, html, reading  # They load Matplotlib.

  found = reading.read(workdir)
  folder = found.path / "report"
  with writing(folder, "the report", "--workdir"):
    folder.mkdir(exist_ok=True)
  pictures = figures.draw_all(found, folder)
  page = folder / "report.html"
  replace(page, html.page(found, pictures).encode(), "--workdir")
  return page
