"""Writes a summary as Markdown, LaTeX, CSV and JSON, each file atomically."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from data_pipelines.disk.faults import replace, writing
from dmg_jax.report.tables import contributions
from dmg_jax.tables import (
  contribution_rows,
  cost,
  notes,
  readout_rows,
  summary,
)
from dmg_jax.tables.summary import DONE, WAITING, Column, Row, Summary
from dmg_jax.tracking.logging import to_json

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|#~])")
_LATEX = {
  "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
  "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
  "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
  "|": r"\textbar{}", "[": "{[}", "]": "{]}", "±": r"$\pm$", "−": "$-$",
  "–": "--", "…": r"\dots{}", "α": r"$\alpha$", "×": r"$\times$",
}  # fmt: skip


class Entry(NamedTuple):
  """Text and mark of a cell; the mark is ``best``, ``second`` or empty."""

  text: str
  mark: str = ""


def write(found: Summary, workdir: Path) -> None:
  """Writes ``table.md``, ``.tex``, ``.csv`` and ``.json`` into ``workdir``.

  ``contributions.csv`` and ``readouts.csv`` are written, too, if a run has any.
  """
  with writing(workdir, "the table", "--workdir"):
    workdir.mkdir(parents=True, exist_ok=True)
  content = json.dumps(to_json(as_json(found)), indent=2, allow_nan=False)
  for ending, text in (
    ("md", markdown(found)),
    ("tex", latex(found)),
    ("csv", as_csv(found)),
    ("json", f"{content}\n"),
  ):
    replace(workdir / f"table.{ending}", text.encode())
  if contribution_rows.grid(found)[1]:
    text = contribution_rows.as_csv(found)
    replace(workdir / contribution_rows.CSV, text.encode())
  if readout_rows.notes(found):
    replace(workdir / readout_rows.CSV, readout_rows.as_csv(found).encode())


def grid(found: Summary) -> tuple[list[str], list[list[Entry]]]:
  """Head and body of the table, before any markup."""
  head, marks = ["method"], [found.marks(c) for c in found.columns]
  beside = [found.has_reported(c) for c in found.columns]
  for column, paper in zip(found.columns, beside, strict=True):
    head += [column.name, *(["paper"] if paper else [])]
  body = []
  for row in found.rows:
    line = [Entry(row.label)]
    for i, column in enumerate(found.columns):
      line.append(_entry(row, column, i == 0, marks[i].get(row.name, "")))
      if beside[i]:
        figure = found.reported(row, column)
        line.append(
          Entry(figure.printed.replace("±", " ± ") if figure else "–")
        )
    body.append([*line, Entry(row.readout)])
  return [*head, "read-out"], body


def _entry(row: Row, column: Column, first: bool, mark: str) -> Entry:
  """``61.9 ± 3.0`` with the number of seeds if not all, or a status."""
  values = list(row.values(column).values())
  failed = [c.status for c in row.cells if c.status not in (DONE, WAITING)]
  lost = ", ".join(f"{failed.count(s)} {s}" for s in sorted(set(failed)))
  if not values:
    done = any(c.status == DONE for c in row.cells)
    why = failed[0] if failed else "…"
    return Entry("–" if done else why)
  text = percent(values)
  if len(values) < len(row.cells):
    more = f"; {lost}" if first and lost else ""
    text += f" ({len(values)} of {len(row.cells)}{more})"
  return Entry(text, mark)


def percent(values: list[float]) -> str:
  """Mean ± standard deviation of values in [0, 1], in % with one decimal."""
  found, spread = summary.mean(values), summary.std(values)
  text = f"{100 * found:.1f}"
  return text if spread is None else f"{text} ± {100 * spread:.1f}"


def title(found: Summary) -> str:
  """The title of the table, as plain text."""
  of_paper = found.name.startswith("table")
  name = f"Table {found.name.removeprefix('table')}. " if of_paper else ""
  return f"{name}{found.title}: {found.shown}"


def plain(found: Summary) -> str:
  """The table for a terminal; ``*`` marks the best, ``'`` the second."""
  marks = {"best": "{}*", "second": "{}'", "": "{}"}
  return _aligned(found, str, marks, title(found), "", "- ")


def markdown(found: Summary) -> str:
  """The table in GitHub's Markdown, with every value escaped."""
  marks = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
  head = f"# {_markdown(title(found))}"
  text = _aligned(found, _markdown, marks, head, "## ", "- ") + "\n"
  return text + _contributions(found) + _readouts(found)


def _contributions(found: Summary) -> str:
  """The section of contributions; empty if no run has any."""
  names, body = contribution_rows.grid(found)
  title = "Contributions of the modalities"
  said = [f"{contribution_rows.CAPTION}.", *contributions.MEANINGS]
  return _section(title, names, body, said)


def _readouts(found: Summary) -> str:
  """The section of read-outs; empty if no run has any."""
  names, body = readout_rows.grid(found)
  said = readout_rows.notes(found)
  return _section("Read-outs and linear probes", names, body, said)


def _section(
  title: str, names: list[str], body: list[list[str]], notes: list[str]
) -> str:
  """A table below a title, with notes; empty without a body."""
  if not body:
    return ""
  lines = [[_markdown(x) for x in line] for line in (names, *body)]
  below = [f"- {_markdown(s)}" for s in notes]
  text = ["", f"## {title}", "", *_bars(lines, 2), "", *below]
  return "\n".join(text) + "\n"


def _markdown(text: str) -> str:
  return _MARKDOWN.sub(r"\\\1", text)


def _aligned(
  found: Summary,
  escape: Callable[[str], str],
  marks: dict[str, str],
  head: str,
  heading: str,
  bullet: str,
) -> str:
  """Head, Markdown table and notes as lists."""
  names, body = grid(found)
  costs = [x for c in cost.costs(found) for x in ("", escape(c.sentence()))]
  lines = [[escape(x) for x in names]]
  lines += [[marks[x.mark].format(escape(x.text)) for x in r] for r in body]
  text = [head, *costs, "", *_bars(lines)]
  for name, sentences in notes.sections(found):
    text += ["", *([f"{heading}{name}", ""] if name else [])]
    text += [f"{bullet}{escape(s)}" for s in sentences]
  return "\n".join(text)


def _bars(lines: list[list[str]], words: int = 1) -> list[str]:
  """Aligned Markdown rows; the first ``words`` columns are left-aligned."""
  widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
  rule = [
    "-" * w if i < words else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)
  ]
  padded = [
    [
      x.ljust(w) if i < words else x.rjust(w)
      for i, (x, w) in enumerate(zip(line, widths, strict=True))
    ]
    for line in (lines[0], rule, *lines[1:])
  ]
  return [f"| {' | '.join(line)} |" for line in padded]


def latex(found: Summary) -> str:
  """A LaTeX float for ``booktabs``; the statistics follow as comments."""
  names, body = grid(found)
  marks = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
  rows = [[marks[x.mark] % _latex(x.text) for x in r] for r in body]
  label = re.sub(r"[^A-Za-z0-9-]+", "-", f"{found.name}-{found.shown}")
  below = [
    *(("", [c.sentence()]) for c in cost.costs(found)),
    *((n, s) for n, s in notes.sections(found) if n != "Statistics"),
  ]
  text = [
    r"% Needs \usepackage{booktabs}.",
    r"\begin{table}",
    r"\centering\small\setlength{\tabcolsep}{4pt}",
    rf"\caption{{{_latex(title(found))}}}",
    rf"\label{{tab:{label}}}",
    rf"\begin{{tabular}}{{l{'r' * (len(names) - 2)}l}}",
    r"\toprule",
    " & ".join(map(_latex, names)) + r" \\",
    r"\midrule",
    *(" & ".join(r) + r" \\" for r in rows),
    r"\bottomrule",
    r"\end{tabular}",
    "",
    r"\raggedright\footnotesize",
    *_paragraphs(below),
    r"\end{table}",
  ]
  statistics = [s for n, s in notes.sections(found) if n == "Statistics"]
  text += [f"% {s}" for sentences in statistics for s in sentences]
  return "\n".join(text) + "\n"


def _paragraphs(sections: list[tuple[str, list[str]]]) -> list[str]:
  lines = []
  for name, sentences in sections:
    start = rf"\textit{{{_latex(name)}.}} " if name else ""
    lines += [start + " ".join(map(_latex, sentences)) + r"\par"]
  return lines


def _latex(text: str) -> str:
  return "".join(_LATEX.get(c, c) for c in text)


def as_csv(found: Summary) -> str:
  """CSV with one line per row, in %; missing values are empty."""
  file = io.StringIO()
  rows = csv.writer(file, lineterminator="\n")
  names = [f"{c.head} {c.score}" for c in found.columns]
  kinds = ("mean", "std", "paper", "paper std")
  head = ["row", "label", "recipe", "seeds", "done", "failed", "read-out"]
  rows.writerow([*head, *(f"{n} {k}" for n in names for k in kinds)])
  for row in found.rows:
    states = [c.status for c in row.cells]
    done, waiting = states.count(DONE), states.count(WAITING)
    counts = [len(states), done, len(states) - done - waiting]
    line: list[Any] = [row.name, row.label, row.recipe, *counts, row.readout]
    for column in found.columns:
      line += _figures(found, row, column)
    rows.writerow(line)
  return file.getvalue()


def _figures(found: Summary, row: Row, column: Column) -> list[str]:
  values, figure = (
    list(row.values(column).values()),
    found.reported(row, column),
  )
  own = [summary.mean(values) if values else None, summary.std(values)]
  ours = ["" if x is None else f"{100 * x:.4f}" for x in own]
  theirs = [figure.mean, figure.std] if figure else [None, None]
  return [*ours, *("" if x is None else f"{x:.2f}" for x in theirs)]


def as_json(found: Summary) -> dict[str, Any]:
  """All contents; our scores are in [0, 1], those of the paper in %."""
  compared = notes.comparisons(found)
  return {
    "table": found.name,
    "title": title(found),
    "dataset": found.shown,
    "seeds": [c.seed for c in found.rows[0].cells],
    "trials": found.trials,
    "reference": found.reference,
    "cost": [c.as_json() for c in cost.costs(found)],
    "complete": all(c.status != WAITING for r in found.rows for c in r.cells),
    "rows": [
      _json_row(part, row, compared.get(row.name))
      for part in found.parts
      for row in part.rows
    ],
    "notes": {name or "conditions": s for name, s in notes.sections(found)},
  }


def _json_row(part: Summary, row: Row, compared) -> dict[str, Any]:
  columns = []
  for column in part.columns:
    values, figure = row.values(column), part.reported(row, column)
    columns.append(
      {
        "head": column.head,
        "score": column.score,
        "values": values,
        "mean": summary.mean(list(values.values())) if values else None,
        "std": summary.std(list(values.values())),
        "mark": part.marks(column).get(row.name),
        "paper": figure and {"mean": figure.mean, "std": figure.std},
      }
    )
  compare = None
  reference = part.row(part.reference)
  if compared is not None and reference is not None:
    ends = {k: _number(v) for k, v in dataclasses.asdict(compared).items()}
    compare = {"with": reference.name, **ends}
  return {
    "row": row.name,
    "label": row.label,
    "recipe": row.recipe,
    "chosen": row.choice and row.choice.values,
    "trials": row.choice and row.choice.tried,
    "runs": [dataclasses.asdict(c) for c in row.cells],
    "columns": columns,
    "comparison": compare,
  }


def _number(x: Any) -> Any:
  return None if isinstance(x, float) and math.isnan(x) else x
