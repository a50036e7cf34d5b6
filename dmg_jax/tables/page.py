"""``table.html``: the table as one page, with plots and links to its runs.

Links are relative, so the folder can be moved or zipped. The page itself needs
no other file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from data_pipelines.disk.faults import replace, writing
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.report import skeleton
from dmg_jax.report.skeleton import Html, Section, shown
from dmg_jax.report.tables import contributions
from dmg_jax.tables import (
  contribution_rows,
  cost,
  notes,
  pictures,
  readout_rows,
  writers,
)
from dmg_jax.tables.summary import DONE, Row, Summary
from dmg_jax.tables.writers import Entry
from dmg_jax.training import run_folder

FILE = "table.html"
_CAPTIONS = {
  "fused": "Small points are seeds; the large point and its bar are their mean "
  "± standard deviation. Bold: the best mean.",
  "groups": "Mean over seeds. Each row is trained and tested at each rate, on "
  "the same samples as the others.",
  "modalities": "Scores of each modality alone, as means over seeds; a grey "
  "bar is the gap between modalities. Rows with different read-outs cannot be "
  "compared.",
}
_ALT = {
  "fused": "Fused score of each row, with its seeds",
  "groups": "Fused score of each method over the rate of missing modalities",
  "modalities": "Scores of single modalities for each row",
}


def write(found: Summary, workdir: Path) -> None:
  """Writes ``table.html``, and its plots into ``report/`` next to it."""
  folder = workdir / "report"
  with writing(workdir, "the table's pictures", "--workdir"):
    folder.mkdir(parents=True, exist_ok=True)
  drawn = pictures.draw_all(found, folder)
  replace(workdir / FILE, page(found, drawn, workdir).encode())


def page(found: Summary, drawn: Mapping[str, Path], workdir: Path) -> str:
  """The page as HTML5, with every value escaped."""
  below = dict(notes.sections(found))
  table = f"{_table(found, workdir)}\n{skeleton.bullets(below.pop('', []))}"
  sections = [
    Section("table", "Results", table),
    Section("pictures", "Pictures", _pictures(found, drawn)),
    *_contributions(found),
    *_readouts(found),
    *(
      Section(name.lower().replace(" ", "-"), name, skeleton.bullets(texts))
      for name, texts in sorted(below.items(), key=_statistics_first)
    ),
    Section("reproduce", "Reproduce", _reproduce(found, workdir)),
  ]
  return skeleton.page(writers.title(found), claim(found), sections)


def _contributions(found: Summary) -> list[Section]:
  """The section of contributions; empty if no run has any."""
  head, body = contribution_rows.grid(found)
  if not body:
    return []
  table = skeleton.table(head, body, f"{contribution_rows.CAPTION}.")
  below = skeleton.bullets(list(contributions.MEANINGS))
  made = Html(f"{table}\n{below}")
  return [Section("contributions", "Contributions", made)]


def _readouts(found: Summary) -> list[Section]:
  """The section of read-outs; empty if no run has any."""
  head, body = readout_rows.grid(found)
  if not body:
    return []
  table = skeleton.table(head, body, f"{readout_rows.CAPTION}.")
  below = skeleton.bullets(readout_rows.notes(found))
  return [Section("readouts", "Read-outs", Html(f"{table}\n{below}"))]


def _statistics_first(section: tuple[str, list[str]]) -> bool:
  return section[0] != "Statistics"


def claim(found: Summary) -> str:
  """What imbalance costs, and the result of each group of rows."""
  done = sum(c.status == DONE for r in found.rows for c in r.cells)
  total = sum(len(r.cells) for r in found.rows)
  so_far = f"{done} of {total} runs are done"
  claims = [*filter(None, map(_claim, found.parts))]
  if not claims:
    return f"{so_far}; there is nothing to compare yet."
  first = [c.sentence() for c in cost.costs(found)]
  return " ".join([*first, *([] if done == total else [f"{so_far}."]), *claims])


def _claim(found: Summary) -> str:
  column = found.columns[0]
  marks = found.marks(column)
  best = [r for r in found.rows if marks.get(r.name) == "best"]
  if not best:
    return ""
  values = writers.percent(list(best[0].values(column).values()))
  name = f"fused {column.name}" if column.head == FUSED else column.name
  names = " and ".join(r.label for r in best)
  has = "has" if len(best) == 1 else "have"
  first = f"{names} {has} the highest mean {name}, {values} %."
  return " ".join([first, *_paired(found, best)])


def _paired(found: Summary, best: list[Row]) -> list[str]:
  """Sentences that compare our row, or else the best row, with others."""
  against = found.row(found.reference)
  compared = notes.comparisons(found)
  ours = found.row(notes.OURS)
  row = ours if ours is not None and ours.name in compared else best[0]
  sentences = []
  if against is not None and row.name in compared:
    sentences.append(compared[row.name].sentence(row.label, against.label))
  last = notes.paired(found)[-1:]
  return sentences + [s for s in last if s.startswith(notes.AGAINST)]


def _table(found: Summary, workdir: Path) -> Html:
  head, body = writers.grid(found)
  rows = [
    [*map(_marked, line), _links(row, workdir)]
    for line, row in zip(body, found.rows, strict=True)
  ]
  caption = "Bold: the best mean; underlined: the second."
  if any(found.has_reported(c) for c in found.columns):
    caption += " Paper: as reported there, with its own data and encoders."
  return skeleton.table([*head, "reports"], rows, caption)


def _marked(entry: Entry) -> Html:
  text = shown(entry.text)
  return Html(
    f'<span class="{entry.mark}">{text}</span>' if entry.mark else text
  )


def _links(row: Row, workdir: Path) -> Html:
  """A link to the report of each seed that has one."""
  links = []
  for cell in row.cells:
    path = f"{cell.folder}/report/report.html"
    if (workdir / path).exists():
      title = shown(f"{row.label}, seed {cell.seed}")
      links.append(f'<a href="{quote(path)}" title="{title}">{cell.seed}</a>')
  return Html(" ".join(links) or "–")


def _pictures(found: Summary, drawn: Mapping[str, Path]) -> Html:
  captions = dict(_CAPTIONS)
  if found.has_reported(found.columns[0]):
    captions["fused"] += " Diamonds: the numbers of the paper."
  return skeleton.gallery(
    [skeleton.figure(p, _ALT[k], captions[k]) for k, p in drawn.items()]
  )


def _reproduce(found: Summary, workdir: Path) -> Html:
  stored = _stored(found, workdir)
  name, dataset = found.name, found.dataset
  command = stored.get("command") or (
    f"python launch.py --config=configs/tables.py:{name},dataset={dataset}"
  )
  versions = stored.get("versions") or {}
  listed = ", ".join(f"{k} {v}" for k, v in versions.items()) or "unknown"
  said = (
    f"Git revision {stored.get('git') or 'unknown'}. Versions: {listed}. Both "
    "are those of the first finished run; the report of each run has its own "
    "configuration. Running the same command again completes what is missing."
  )
  return Html(f"{skeleton.code(str(command))}\n{skeleton.note(said)}")


def _stored(found: Summary, workdir: Path) -> dict[str, Any]:
  """The contents of ``config.json`` of the first finished run."""
  for cell in (c for r in found.rows for c in r.cells if c.status == DONE):
    path = workdir / cell.folder / run_folder.FILE
    if path.exists():
      return json.loads(path.read_text(encoding="utf-8"))
  return {}
