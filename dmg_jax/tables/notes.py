"""The notes below a table: conditions, tuned values, failures, statistics."""

from __future__ import annotations

from typing import Any

from dmg_jax.evaluation import selection, statistics
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.tables import summary
from dmg_jax.tables.summary import DONE, WAITING, Column, Row, Summary

OURS = "lb"
AGAINST = "Against the best other row: "


def conditions(found: Summary) -> list[str]:
  """How the numbers were obtained, and what to keep in mind."""
  total = [c for r in found.rows for c in r.cells]
  done = sum(c.status == DONE for c in total)
  seeds = [c.seed for c in found.rows[0].cells]
  several = (
    f"mean ± standard deviation (n - 1) of {len(seeds)} seeds, {_span(seeds)}"
  )
  notes = []
  if done < len(total):
    waiting = sum(c.status == WAITING for c in total)
    notes.append(
      f"{done} of {len(total)} runs are done"
      + (f", {waiting} are still to come." if waiting else ".")
    )
  by = _by(found, "best on val", "best on val by {}")
  notes.append(
    f"Test split, %, {several if len(seeds) > 1 else f'seed {seeds[0]}'}; the "
    f"state of each run that was {by}. Of ours, the best mean is bold "
    "and the second underlined, among rows that have all seeds of the others."
  )
  if any(found.has_reported(c) for c in found.columns):
    notes.append(f"paper: the paper's number, {_paper_name(found.name)}.")
  return [*notes, *_readouts(found), *found.notes]


def _by(found: Summary, usual: str, other: str) -> str:
  """``usual`` where val accuracy chooses, else ``other`` with the score."""
  if found.select_by == selection.DEFAULT:
    return usual
  return other.format(selection.NAMES[found.select_by])


def _span(seeds: list[int]) -> str:
  return f"{seeds[0]} to {seeds[-1]}"


def _paper_name(table: str) -> str:
  return f"Table {table.removeprefix('table')}"


def _readouts(found: Summary) -> list[str]:
  """The full names of the read-outs."""
  names = sorted({c.readout for r in found.rows for c in r.cells if c.readout})
  if not names:
    return []
  return [
    f"Read-out of single modalities: {'; '.join(names)}. Numbers from "
    "different read-outs cannot be compared."
  ]


def tuned(found: Summary) -> list[str]:
  """The values that each row's trials led to."""
  return [
    f"{r.label}: {_chosen(r)}" for r in found.rows if r.choice is not None
  ]


def tuning_rule(found: Summary) -> str:
  """How values were chosen."""
  best = _by(
    found,
    "The trial with the highest fused accuracy on val was chosen",
    "The trial that was best on val by the fused {} was chosen",
  )
  return (
    f"Each row had {found.trials} trials on one seed that is not among those "
    f"above, the first with the defaults. {best}, of equals the one with the "
    "lowest loss. No trial read the test split."
  )


def _chosen(row: Row) -> str:
  assert row.choice is not None
  values = ", ".join(f"{k} = {_short(v)}" for k, v in row.choice.values.items())
  entry = row.choice.tried[row.choice.trial]
  if all(x.get("status") == "unsuitable" for x in row.choice.tried):
    return "unsuitable, nothing to choose."
  failed = sum("accuracy" not in x for x in row.choice.tried)
  lost = (
    f"; {failed} of {len(row.choice.tried)} trials failed" if failed else ""
  )
  score = entry.get("accuracy")
  on_val = f" (val {100 * score:.1f})" if score is not None else ""
  return f"{values or 'the defaults'}{on_val}{lost}."


def _short(value: Any) -> str:
  return f"{value:g}" if isinstance(value, float) else str(value)


def failures(found: Summary) -> list[str]:
  """Each failed run with its reason."""
  return [
    f"{r.label}, seed {c.seed}: {c.status}: {c.reason}"
    for r in found.rows
    for c in r.cells
    if c.reason
  ]


def comparisons(found: Summary) -> dict[str, statistics.Comparison]:
  """{row: its comparison with the reference row} in the first column."""
  return {
    r.name: _compare(r, reference, found.columns[0])
    for part in found.parts
    if (reference := part.row(found.reference)) is not None
    for r in part.rows
    if r.name != reference.name
  }


def _compare(a: Row, b: Row, column: Column) -> statistics.Comparison:
  return statistics.compare(
    a.values(column),
    b.values(column),
    samples=(a.right(column), b.right(column)),
  )


def rival(found: Summary) -> Row | None:
  """The best other row of a group by its mean, among those with all seeds."""
  column, ours = found.columns[0], found.row(OURS)
  values = {r.name: r.values(column) for r in found.rows if r is not ours}
  most = max((len(v) for v in values.values()), default=0)
  full = [r for r in found.rows if len(values.get(r.name, {})) == most > 0]
  return max(
    full,
    key=lambda r: summary.mean(list(values[r.name].values())),
    default=None,
  )


def paired(found: Summary) -> list[str]:
  """Each row against the reference, and ours against the best other one.

  Group by group.
  """
  return [sentence for part in found.parts for sentence in _paired(part)]


def _paired(found: Summary) -> list[str]:
  column, reference = found.columns[0], found.row(found.reference)
  sentences, compared = [], comparisons(found)
  if reference is not None:
    sentences += [
      compared[row.name].sentence(row.label, reference.label)
      for row in found.rows
      if row.name in compared
    ]
  ours, other = found.row(OURS), rival(found)
  if ours and other and other is not reference:
    c = _compare(ours, other, column)
    sentences.append(AGAINST + c.sentence(ours.label, other.label))
  return sentences


def paired_rule(found: Summary) -> str:
  """How to read the sentences of ``paired``."""
  column = found.columns[0]
  name = f"fused {column.name}" if column.head == FUSED else column.name
  return (
    f"Paired over seeds, {name} in points: the mean difference and its 95 % "
    "bootstrap interval; better or worse where the interval excludes 0. The "
    "interval that allows for other test samples covers both sources of "
    "chance. Nothing is corrected for the number of rows, and the best other "
    "row is chosen by the same numbers."
  )


def sections(found: Summary) -> list[tuple[str, list[str]]]:
  """Headings and their sentences; the first has none."""
  parts = [("", conditions(found))]
  if found.trials > 1:
    parts.append(("Tuned values", [tuning_rule(found), *tuned(found)]))
  if failed := failures(found):
    parts.append(("Failures", failed))
  if sentences := paired(found):
    parts.append(("Statistics", [paired_rule(found), *sentences]))
  return parts
