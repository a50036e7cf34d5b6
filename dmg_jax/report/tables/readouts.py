"""Tables from ``readouts.json`` of one or several seeds.

``--mode=readouts`` writes that file; ``dmg_jax/evaluation/readouts.py`` defines
the read-outs.
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
  "own": "",  # Named by the fusion.
  "feature_ablation": "R3 feature ablation",
  "input_ablation": "R4 input ablation",
  "linear_probe": "linear probe",
}
MEANINGS = (
  "R1, R2 or R5: the fusion's own head for one modality. R3: the other "
  "features are zero before the fusion; the bias of the head remains. R4: the "
  "other inputs are zero; their encoders still add a constant.",
  "Linear probe: a new linear classifier on frozen features, fitted on train, "
  "with its penalty chosen on val. It shows what the features hold, not how "
  "the fused model uses them.",
)
Found = Sequence[Mapping[str, Any]]


def table(found: Found) -> Any:
  """Terminal table of the read-outs of a run, or mean ± std over seeds."""
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
  """Accuracy / macro-F1 over the seeds that have them; a dash if none do."""
  own = [one["scores"].get(head, {}).get(name) for one in found]
  return both([x for x in own if x is not None])


def both(scores: Sequence[Mapping[str, Any]]) -> str:
  """Accuracy / macro-F1 over several scores; a dash without scores."""
  if not scores:
    return "–"
  return " / ".join(
    mean_std([x[s] for x in scores]) for s in ("accuracy", "macro_f1")
  )


def remarks(found: Found) -> list[str]:
  """Reasons for empty cells, and other notes."""
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
  """HTML table of the read-outs, followed by notes."""
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
    " Each row uses the features of one modality; the row of all features has "
    "the fused prediction and a probe on the concatenated features. Chance: "
    "the most frequent class."
  )
  head = ["features of", *(names[k] for k in NAMES)]
  said = [*MEANINGS, *remarks(found)]
  return Html(
    f"{skeleton.table(head, body, caption)}\n{skeleton.bullets(said)}"
  )


def _heads(first: Mapping[str, Any]) -> list[str]:
  return [*(h for h in first["scores"] if h != FUSED), FUSED]


def row_name(head: str) -> str:
  """Label of a row for a head."""
  return "all (fused)" if head == FUSED else head
