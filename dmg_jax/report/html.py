"""``report.html``: one file that embeds its plots and loads nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from dmg_jax.report import (
  captions,
  diagrams,
  examples,
  measures,
  skeleton,
)
from dmg_jax.report.reading import Workdir
from dmg_jax.report.skeleton import Html, Section
from dmg_jax.report.tables import contributions, readouts
from dmg_jax.tracking.logging import mean_std

# As in ``evaluation.metrics``.
MISSING, NONE = "missing", "none"
_COLUMNS = {
  "accuracy": "accuracy",
  "balanced_accuracy": "balanced accuracy",
  "map": "mAP",
  "macro_f1": "macro-F1",
}


def page(found: Workdir, pictures: Mapping[str, Path]) -> str:
  """The whole page as HTML5, with every value escaped."""
  sections = [
    Section("test", "Test", Html(f"{_table(found)}\n{_by_pattern(found)}")),
    Section("contributions", "Contributions", _contributions(found)),
    Section("readouts", "Read-outs", _readouts(found)),
    Section(
      "training",
      "Training",
      captions.pictures(found, pictures, captions.TRAINING),
    ),
    Section("predictions", "Predictions", _predictions(found, pictures)),
    Section("examples", "Examples", _examples(found)),
    Section("reproduce", "Reproduce", _reproduce(found)),
    Section(
      "configuration",
      "Configuration",
      skeleton.fields("All fields, resolved", found.config),
    ),
  ]
  title = f"{found.recipe} on {found.dataset}"
  return skeleton.page(title, headline(found), sections)


def headline(found: Workdir) -> str:
  """The result in one to three sentences, or the progress of the run."""
  planned = f" of {found.epochs}" if found.epochs else ""
  if not found.tests:
    last = _last_validation(found)
    if found.results is not None:
      return (
        "This run was not evaluated on test (eval.test=false). Validation "
        f"accuracy: {last}."
      )
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
    text += _lead_over_best(found)
  if found.results is None:
    text += f" Unfinished: {len(found.tests)} of the seeds are done."
  return text


def _lead_over_best(found: Workdir) -> str:
  """A sentence on the lead of fusion over the best modality, over seeds."""
  mean = {
    h: sum(float(t[h]["accuracy"]) for t in found.tests) / len(found.tests)
    for h in ("fused", *found.modalities)
  }
  fused = mean.pop("fused")
  best = max(mean, key=lambda m: mean[m])
  lead = 100 * (fused - mean[best])
  if not abs(lead) >= 0.05:
    return f" Fusion is as good as {best} alone."
  word = "better" if lead > 0 else "worse"
  return f" Fusion is {abs(lead):.1f} points {word} than {best} alone."


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


def _table(found: Workdir) -> Html:
  if not found.tests:
    return skeleton.note(
      "No test results yet: the test split is used once, after training."
    )
  errors = diagrams.errors(found)
  heads = ("fused", *found.modalities)
  body = [
    [
      m,
      *(_over(found, m, c) for c in _COLUMNS),
      *([mean_std(errors[m])] if m in errors else []),
    ]
    for m in heads
  ]
  if len(found.modalities) > 1:
    gap = _over(found, "gap", "accuracy")
    body.append(["gap", gap, *[""] * (len(body[0]) - 2)])
  parts = ["Test split, %."]
  if len(found.tests) > 1:
    parts.append(f"Mean ± standard deviation of {len(found.tests)} seeds.")
  if found.selected_by:
    parts.append(_state(found.selected_by))
  if found.readout:
    parts.append(f"Unimodal read-out: {found.readout}.")
  if len(found.modalities) > 1:
    parts.append("Gap: best minus weakest modality.")
  if errors:
    parts.append("ECE: expected calibration error; lower is better.")
  head = ["read-out", *_COLUMNS.values(), *(["ECE"] if errors else [])]
  return skeleton.table(head, body, " ".join(parts))


def _by_pattern(found: Workdir) -> Html:
  """The fused prediction by what samples lack, if they lack anything."""
  patterns = dict.fromkeys(p for t in found.tests for p in t.get(MISSING, {}))
  if not patterns:
    return Html("")
  body = []
  for pattern in patterns:
    tests = [t[MISSING][pattern] for t in found.tests if pattern in t[MISSING]]
    scores = [mean_std([t[c] for t in tests]) for c in _COLUMNS]
    name = "nothing" if pattern == NONE else pattern.replace("+", " and ")
    body.append([name, f"{tests[0]['samples']}", *scores])
  caption = (
    "Test split by missing modalities: the fused prediction, %. Scores of a "
    "single modality, above, count the samples that have it."
  )
  return skeleton.table(
    ["missing", "samples", *_COLUMNS.values()], body, caption
  )


def _state(score: str) -> str:
  """Which state of the run the scores are of."""
  if score == "last":
    return "State: the last."
  return f"State: the best on val by {_COLUMNS.get(score, score)}."


def _contributions(found: Workdir) -> Html:
  """What each modality contributes, where that was measured."""
  own = [
    contributions.of_results(r.results, "test") for r in found.runs if r.results
  ]
  made = [x for x in own if x]
  if not made or len(found.modalities) < 2:
    return Html("")
  return contributions.table_html(made)


def _readouts(found: Workdir) -> Html:
  made = [r.readouts for r in found.runs if r.readouts]
  if made:
    return readouts.table_html(made)
  if not found.tests:
    return Html("")
  return skeleton.note(
    "A single read-out can underrate a modality. Run the same command with "
    "--mode=readouts to add all read-outs and a linear probe here."
  )


def _predictions(found: Workdir, pictures: Mapping[str, Path]) -> Html:
  counts, tables = diagrams.matrix(found), []
  if counts is not None:
    names = diagrams.class_names(found)
    body = [
      [c.label, c.predicted, f"{c.count}", f"{100 * c.count / c.total:.0f}"]
      for c in measures.most_confused(counts, names)
    ]
    head = ["true class", "predicted", "samples", "% of class"]
    seeds = ", over all seeds" if len(found.runs) > 1 else ""
    caption = f"The most frequent mistakes of the fused prediction{seeds}."
    tables = [skeleton.table(head, body, caption)] if body else []
  return captions.pictures(found, pictures, captions.PREDICTIONS, tables)


def _examples(found: Workdir) -> Html:
  run = next((r for r in found.runs if r.examples and r.predictions), None)
  if run is None or run.examples is None or run.predictions is None:
    return Html("")
  which = f" ({run.name})" if len(found.runs) > 1 else ""
  said = skeleton.note(
    f"Test samples, chosen by rules{which}, with the prediction of each "
    "read-out and its probability. ✓ and a plain bar: right; ✗ and a hatched "
    "bar: wrong. Dashed edge: the fused prediction is wrong. A ? in a text "
    "stands for a word that is not in the vocabulary."
  )
  return Html(f"{said}\n{examples.grid(run.examples, run.predictions)}")


def _reproduce(found: Workdir) -> Html:
  versions = found.stored.get("versions") or {}
  listed = ", ".join(f"{k} {v}" for k, v in versions.items()) or "unknown"
  revision = found.stored.get("git") or "unknown"
  text = f"Git revision {revision}. Versions: {listed}."
  if not found.stored.get("command"):
    text += " Fields that flags have changed are in the configuration below."
  return Html(f"{skeleton.code(command(found))}\n{skeleton.note(text)}")


def command(found: Workdir) -> str:
  """The command line of the run, reconstructed if it was not stored."""
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
