"""What each modality contributes, for the rows of a table.

It stands in ``table.md``, ``.html``, ``.json`` and ``contributions.csv``.
``evaluation/contributions.py`` defines the measures.
"""

from __future__ import annotations

import csv
import io

from dmg_jax.report.tables import contributions as shown
from dmg_jax.tables.summary import Row, Summary, mean, std

CSV = "contributions.csv"
CAPTION = "Contributions of the modalities on test, %"


def _found(row: Row) -> list[dict]:
  """The measures of each seed that has them, of several modalities."""
  own = [c.contributions for c in row.cells if c.contributions]
  return [x for x in own if len(x["shapley"]) > 1]


def grid(found: Summary) -> tuple[list[str], list[list[str]]]:
  """Head and body with mean ± standard deviation; no body without measures."""
  head = ["method", "modality", *shown.COLUMNS.values()]
  body = []
  for row in found.rows:
    own = _found(row)
    for line in shown.lines(own) if own else ():
      seeds = len(own), len(row.cells)
      more = "" if seeds[0] == seeds[1] else f" ({seeds[0]} of {seeds[1]})"
      body.append([f"{row.label}{more}", *line])
  return head, body


def as_csv(found: Summary) -> str:
  """CSV with one line per row, modality and measure, in %."""
  file = io.StringIO()
  rows = csv.writer(file, lineterminator="\n")
  rows.writerow(["row", "label", "modality", "measure", "seeds", "mean", "std"])
  for row in found.rows:
    own = _found(row)
    for m in own[0]["shapley"] if own else ():
      for name in shown.COLUMNS:
        values = [float(x[name][m]) for x in own]
        texts = [
          "" if x is None else f"{100 * x:.4f}"
          for x in (mean(values), std(values))
        ]
        rows.writerow([row.name, row.label, m, name, len(values), *texts])
  return file.getvalue()
