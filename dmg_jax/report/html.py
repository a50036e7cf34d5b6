"""``report.html``: one file, pictures inside, nothing from elsewhere."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dmg_jax.logging import mean_std
from dmg_jax.report import features
from dmg_jax.report.reading import Workdir

_COLUMNS = {"accuracy": "accuracy", "map": "mAP", "macro_f1": "macro-F1"}
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff;
  --soft: #595959; --rule: #d4d4d4; --code: #f3f3f3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8;
  --paper: #16181b; --soft: #a9adb2; --rule: #3d4146; --code: #22262b; } }
body { background: var(--paper); color: var(--ink); max-width: 58rem;
  margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
  font-family: system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: .3rem; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
.lead { font-size: 1.1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: right;
  border-bottom: 1px solid var(--rule); }
th:first-child { text-align: left; font-weight: 600; }
caption, figcaption, .note { color: var(--soft); font-size: .9rem;
  text-align: left; }
caption { caption-side: bottom; padding-top: .4rem; }
.pictures { display: grid; gap: 1.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
figure { margin: 0; }
img { width: 100%; height: auto; background: #fff; border-radius: 4px; }
pre { background: var(--code); padding: .8rem; border-radius: 4px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
summary { cursor: pointer; }
"""


def page(found: Workdir, pictures: Mapping[str, Path]) -> str:
  """The whole page as HTML5; every value escaped."""
  title = f"{found.recipe} on {found.dataset}"
  return "\n".join(
    [
      "<!DOCTYPE html>",
      '<html lang="en">',
      "<head>",
      '<meta charset="utf-8">',
      '<meta name="viewport" content="width=device-width, initial-scale=1">',
      f"<title>{escape(title)}</title>",
      f"<style>{_STYLE}</style>",
      "</head>",
      "<body>",
      "<main>",
      f"<h1>{escape(title)}</h1>",
      f'<p class="lead">{escape(headline(found)).replace(" %", "&nbsp;%")}</p>',
      _table(found),
      _figures(found, pictures),
      _reproduce(found),
      _configuration(found),
      "</main>",
      "</body>",
      "</html>",
      "",
    ]
  )


def headline(found: Workdir) -> str:
  """The result in a sentence, or how far the run is."""
  planned = f" of {found.epochs}" if found.epochs else ""
  if not found.tests:
    last = _last_validation(found)
    if found.results is not None:
      return f"This run ended on val. Validation accuracy: {last}."
    text = f"This run is unfinished: {found.epochs_done}{planned} epochs done."
    return f"{text} Validation accuracy so far: {last}." if last else text
  seeds = f", {len(found.tests)} seeds" if len(found.tests) > 1 else ""
  scores = ", ".join(
    f"{m} {_over(found, m, 'accuracy')} %"
    for m in ("fused", *found.modalities)
    if m in found.tests[0]
  )
  text = f"Test accuracy{seeds}: {scores}."
  if len(found.modalities) > 1:
    between = _over(found, "gap", "accuracy")
    text += f" Gap between the modalities: {between} points."
  if found.results is None:
    text += f" Unfinished: {len(found.tests)} of the seeds are done."
  return text


def _last_validation(found: Workdir) -> str:
  parts = []
  for m in ("fused", *found.modalities):
    series = [r.series("val", f"{m}/accuracy")[1] for r in found.runs]
    values = [y[-1] for y in series if y.size]
    if values:
      parts.append(f"{m} {mean_std(values)} %")
  return ", ".join(parts)


def _over(found: Workdir, head: str, name: str) -> str:
  values = [t[head][name] for t in found.tests if name in t.get(head, {})]
  return mean_std(values) if values else "–"


def _table(found: Workdir) -> str:
  if not found.tests:
    return (
      '<p class="note">No test results: the test split is read once, when '
      "training is done.</p>"
    )
  head = "".join(f'<th scope="col">{c}</th>' for c in _COLUMNS.values())
  rows = [f'<tr><th scope="col">read-out</th>{head}</tr>']
  for m in ("fused", *found.modalities):
    cells = "".join(f"<td>{_over(found, m, c)}</td>" for c in _COLUMNS)
    rows.append(f'<tr><th scope="row">{escape(m)}</th>{cells}</tr>')
  if len(found.modalities) > 1:
    cell = f"<td>{_over(found, 'gap', 'accuracy')}</td><td></td><td></td>"
    rows.append(f'<tr><th scope="row">gap</th>{cell}</tr>')
  parts = ["Test split, %."]
  if len(found.tests) > 1:
    parts.append(f"Mean ± standard deviation of {len(found.tests)} seeds.")
  if found.readout:
    parts.append(f"Unimodal read-out: {found.readout}.")
  if len(found.modalities) > 1:
    parts.append("Gap: best minus weakest modality.")
  body = "\n".join(rows[1:])
  return (
    f"<h2>Test</h2>\n<table>\n<caption>{escape(' '.join(parts))}</caption>\n"
    f"<thead>{rows[0]}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
  )


def _figures(found: Workdir, pictures: Mapping[str, Path]) -> str:
  captions: dict[str, Callable[[Workdir], str]] = {
    "accuracy": _accuracy_caption,
    "alpha": _alpha_caption,
    "loss": _loss_caption,
    "gap": _gap_caption,
  }
  drawn, missing = [], []
  for name, caption in captions.items():
    if name not in pictures:
      missing.append(f'<p class="note">{_MISSING[name]}</p>')
      continue
    data = base64.b64encode(pictures[name].read_bytes()).decode("ascii")
    text = escape(caption(found))
    drawn.append(
      f'<figure>\n<img alt="{_ALT[name]}" src="data:image/png;base64,{data}">'
      f"\n<figcaption>{text}</figcaption>\n</figure>"
    )
  parts = ["<h2>Training</h2>"]
  if drawn:
    parts += ['<div class="pictures">', *drawn, "</div>"]
  return "\n".join(parts + missing)


_ALT = {
  "accuracy": "Validation accuracy over epochs",
  "alpha": "The weight α over epochs",
  "loss": "Loss terms over epochs",
  "gap": "Features of the modalities in two dimensions",
}
_MISSING = {
  "accuracy": "No accuracies yet: no epoch is complete.",
  "alpha": "No picture of α: this method has none, or no step is logged yet.",
  "loss": "No losses yet: no step is logged.",
  "gap": "No picture of the features: they are saved when training is done.",
}


def _seeds(found: Workdir) -> str:
  return " Thin: each seed; thick: their mean." if len(found.runs) > 1 else ""


def _accuracy_caption(found: Workdir) -> str:
  if len(found.modalities) < 2:
    return f"Accuracy on the validation split.{_seeds(found)}"
  return (
    "Accuracy on the validation split. The distance between the coloured lines "
    "is the gap between modalities; one that lies far below the others is "
    "trained too little inside the fused model, or under-rated by its read-out"
    f"{f' ({found.readout})' if found.readout else ''}.{_seeds(found)}"
  )


def _alpha_caption(found: Workdir) -> str:
  ends = [(y[0], y[-1]) for _, y in (r.alpha() for r in found.runs) if y.size]
  first, last = (sum(x) / len(x) for x in zip(*ends, strict=True))
  return (
    f"α, the weight of modality matching against classification, goes from "
    f"{first:.2f} to {last:.2f}. Dashed: the heuristic 1 − exp(−1/t) for "
    f"comparison.{_seeds(found)}"
  )


def _loss_caption(found: Workdir) -> str:
  text = "Loss terms in training, means over each epoch"
  if len(found.runs) == 1:
    text += " (faint: single steps)"
  return (
    f"{text}; dashed: fused cross-entropy on the validation split. It rises "
    f"while the training loss falls where the model over-fits.{_seeds(found)}"
  )


def _gap_caption(found: Workdir) -> str:
  run = next(r for r in found.runs if r.features)
  data = run.features or {}
  which = f" ({run.name})" if len(found.runs) > 1 else ""
  text = f"Test features of unit length{which}, first two components. "
  distances = features.pairs(data)
  if distances:
    lengths = ", ".join(f"{a}–{b} {d:.2f}" for (a, b), d in distances.items())
    text += (
      "Grey lines join the modalities of a sample, large marks are centroids. "
      f"Distance of the centroids before the projection: {lengths}."
    )
  if data["left_out"].size:
    names = ", ".join(map(str, data["left_out"]))
    text += f" Left out, for features of another size: {names}."
  return text


def _reproduce(found: Workdir) -> str:
  versions = found.stored.get("versions") or {}
  listed = ", ".join(f"{k} {v}" for k, v in versions.items()) or "unknown"
  revision = found.stored.get("git") or "unknown"
  text = f"Git revision {revision}. Versions: {listed}."
  if not found.stored.get("command"):
    text += " What flags have changed beside it is in the configuration below."
  return (
    f"<h2>Reproduce</h2>\n<pre>{escape(command(found))}</pre>\n"
    f'<p class="note">{escape(text)}</p>'
  )


def command(found: Workdir) -> str:
  """The command line of the run; from the config if it was not stored."""
  stored = found.stored.get("command")
  if isinstance(stored, Sequence) and not isinstance(stored, str):
    return shlex.join(map(str, stored))
  if stored:
    return str(stored)
  variant = found.get("variant", default="") or found.recipe
  data = found.get("data", "name", default="") or found.dataset
  words = ["python", "launch.py", f"--config=configs/{data}.py:{variant}"]
  if manifest := found.get("data", "manifest", default=""):
    words.append(f"--config.data.manifest={manifest}")
  return shlex.join(words)


def _configuration(found: Workdir) -> str:
  text = json.dumps(found.config, indent=2, ensure_ascii=False, default=_plain)
  return (
    "<h2>Configuration</h2>\n<details>\n<summary>All fields, resolved "
    f"</summary>\n<pre>{escape(text)}</pre>\n</details>"
  )


def _plain(value: Any) -> str:
  return str(value)
