"""``readouts.json`` of one or several seeds as tables.

``--mode=readouts`` writes it; ``dmg_jax/evaluation/readouts.py`` says what the
read-outs are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dmg_jax.report import skeleton
from dmg_jax.report.skeleton import Html
from dmg_jax.tracking.logging import mean_std

FILE = "readouts.json"
FUSED = "fused"
NAMES = {
  "own": "",  # The fusion's name of it.
  "feature_ablation": "R3 feature ablation",
  "input_ablation": "R4 input ablation",
  "linear_probe": "linear probe",
}
MEANINGS = (
  "R1, R2 or R5: the fusion's own head for one modality. R3: the other "
  "features at zero before the fusion, which leaves the head's bias. R4: the "
  "other inputs at zero, whose encoders still add a constant.",
  "Linear probe: a new linear classifier on frozen features, fitted on train, "
  "its penalty chosen on val. It tells what the features hold, not what the "
  "fused model makes of them.",
)
Found = Sequence[Mapping[str, Any]]


def table(found: Found) -> Any:
  """For a terminal: read-outs of a run, or mean ± std of several seeds."""
  from rich.table import Column, Table

  first, several = found[0], len(found) > 1
  names = first["names"]
  title = (
    f"{first['recipe']} on {first['dataset']}, test, accuracy / macro-F1, %"
  )
  if several:
    title += f" (mean ± standard deviation of {len(found)} seeds)"
  columns = [Column(names[k], justify="right") for k in NAMES]
  made = Table("features of", *columns, title=title, title_justify="left")
  for head in _heads(first):
    made.add_row(row_name(head), *(cell(found, head, k) for k in NAMES))
  made.add_section()
  made.add_row("chance", both([one["chance"] for one in found]))
  return made


def cell(found: Found, head: str, name: str) -> str:
  """Accuracy / macro-F1 over the seeds that have both; a dash for none."""
  own = [one["scores"].get(head, {}).get(name) for one in found]
  return both([x for x in own if x is not None])


def both(scores: Sequence[Mapping[str, Any]]) -> str:
  """Accuracy / macro-F1 of several scores; a dash for none."""
  if not scores:
    return "–"
  return " / ".join(
    mean_std([x[s] for x in scores]) for s in ("accuracy", "macro_f1")
  )


def remarks(found: Found) -> list[str]:
  """Why cells are empty, and what else is to be known."""
  said = [
    f"{head}, {one['names'][name]}: {why}"
    for one in found
    for head, reasons in one["absent"].items()
    for name, why in reasons.items()
  ]
  return list(
    dict.fromkeys([*said, *(n for one in found for n in one["notes"])])
  )


def table_html(found: Found) -> Html:
  """The same for a page, with what is to be known below it."""
  first, several = found[0], len(found) > 1
  names = first["names"]
  body = [
    [row_name(head), *(cell(found, head, k) for k in NAMES)]
    for head in _heads(first)
  ]
  chance = both([one["chance"] for one in found])
  body.append(["chance", chance, *[""] * (len(NAMES) - 1)])
  caption = "Test split, accuracy / macro-F1, %."
  if several:
    caption += f" Mean ± standard deviation of {len(found)} seeds."
  caption += (
    " A row: features of one modality, or of all: there, the fused prediction "
    "and a probe on all features side by side. Chance: the most frequent class."
  )
  head = ["features of", *(names[k] for k in NAMES)]
  said = [*MEANINGS, *remarks(found)]
  return Html(
    f"{skeleton.table(head, body, caption)}\n{skeleton.bullets(said)}"
  )


def _heads(first: Mapping[str, Any]) -> list[str]:
  return [*(h for h in first["scores"] if h != FUSED), FUSED]


def row_name(head: str) -> str:
  """Of the features that a line is about."""
  return "all (fused)" if head == FUSED else head
