"""``test_examples.npz``: example samples with the prediction of each modality.

Examples are chosen by rules from the probabilities on test (``RULES``), not by
hand. Each sample is shown once, under the first rule that selects it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from dmg_jax.report import arrays
from dmg_jax.report.predictions import FUSED, by_head, predicted
from dmg_jax.report.skeleton import Html, note, shown, source

FILE = "test_examples.npz"
RULES = {
  "sure and wrong": (
    "Confident and wrong",
    "The wrong fused predictions with the largest probabilities.",
  ),
  "disagreement": (
    "Modalities disagree",
    "Samples whose least confident modality is most confident.",
  ),
  "right, barely": (
    "Barely right",
    "The correct fused predictions with the smallest probabilities.",
  ),
  "sure and right": (
    "Confident and right",
    "The correct fused predictions with the largest probabilities.",
  ),
}
EACH = 4  # The largest number of samples per rule.
_SMALL = 72  # Pixels: smaller pictures are enlarged without smoothing.


def choose(
  probabilities: Mapping[str, np.ndarray], labels: np.ndarray
) -> list[tuple[int, str]]:
  """``[(row, rule)]`` of the chosen samples, in order of the rules.

  Args:
    probabilities: {"fused" or modality: [n k]}.
    labels: int [n].
  """
  fused = predicted(probabilities[FUSED])
  sure = _confidence(probabilities[FUSED])
  own = {m: p for m, p in probabilities.items() if m != FUSED}
  said = np.stack([predicted(p) for p in own.values()])
  least = np.min([_confidence(p) for p in own.values()], axis=0)
  wrong, right = fused != labels, fused == labels
  ranked = {
    "sure and wrong": (wrong, -sure),
    "disagreement": (
      (said != said[:1]).any(axis=0) & (said >= 0).all(axis=0),
      -least,
    ),
    "right, barely": (right, sure),
    "sure and right": (right, -sure),
  }
  found: dict[int, str] = {}
  for rule, (allowed, rank) in ranked.items():
    order = [int(i) for i in np.argsort(rank, kind="stable") if allowed[i]]
    new = [i for i in order if i not in found][:EACH]
    found |= dict.fromkeys(new, rule)
  return list(found.items())


def _confidence(p: np.ndarray) -> np.ndarray:
  """The largest probability of each row; 0 if the row has a NaN."""
  return np.nan_to_num(p.max(axis=-1), nan=0.0)


def load_examples(workdir: str | Path) -> dict[str, np.ndarray] | None:
  """The arrays of ``evaluation.artefacts.save_test``; ``None`` without a file.

  Raises:
    ValueError: the file is damaged.
  """
  return arrays.load(Path(workdir) / FILE)


def grid(
  stored: Mapping[str, np.ndarray], predictions: Mapping[str, np.ndarray]
) -> Html:
  """The examples as cards, rule by rule."""
  where = {int(i): row for row, i in enumerate(predictions["index"])}
  parts = []
  for rule, (name, text) in RULES.items():
    cards = [
      _card(stored, place, predictions, where[int(stored["index"][place])])
      for place in map(int, np.flatnonzero(stored["rules"] == rule))
    ]
    if cards:
      inside = "\n".join(cards)
      parts.append(
        f"<h3>{shown(name)}</h3>\n{note(text)}\n"
        f'<div class="cards">\n{inside}\n</div>'
      )
  return Html("\n".join(parts))


def _card(stored, place: int, predictions, row: int) -> str:
  classes = [str(c) for c in predictions["classes"]]
  label = int(predictions["labels"][row])
  media, lines = [], []
  kinds = zip(stored["modalities"], stored["kinds"], strict=True)
  known = stored.get("missing")  # Older runs have none.
  missing = [] if known is None else stored["modalities"][known[place] > 0]
  for i, (name, kind) in enumerate(kinds):
    if name in missing:
      media.append(f"<q>{shown(str(name))}: missing</q>")
      continue
    media.append(_medium(stored[f"shown_{i}"][place], str(name), str(kind)))
  heads = by_head(predictions)
  for head in (*(h for h in heads if h != FUSED), FUSED):
    if head in missing:
      lines.append(f"<dt>{shown(head)}</dt><dd>missing</dd>\n")
      continue
    lines.append(_said(head, heads[head][row], label, classes))
  right = int(predicted(heads[FUSED][row])) == label
  inside = "\n".join(media)
  return (
    f'<article class="card {"right" if right else "wrong"}">\n'
    f'<div class="media">\n{inside}\n</div>\n'
    f"<p>Label: <strong>{shown(classes[label])}</strong></p>\n"
    f'<dl class="said">\n{"".join(lines)}</dl>\n</article>'
  )


def _medium(value: Any, name: str, kind: str) -> str:
  """HTML of a picture or of a text."""
  if kind == "text":
    return f"<q>{shown(str(value))}</q>"
  small = ' class="small"' if min(value.shape[:2]) < _SMALL else ""
  return (
    f'<img{small} alt="{escape(name)}" title="{escape(name)}" '
    f'src="{source(_png(value))}">'
  )


def _png(value: np.ndarray) -> bytes:
  """PNG of a picture [h w 3], or [h w] in a perceptually uniform colour map."""
  if value.ndim == 2:
    value = matplotlib.colormaps["cividis"](value, bytes=True)[..., :3]
  file = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(value)).save(file, "PNG", optimize=True)
  return file.getvalue()


def _said(head: str, p: np.ndarray, label: int, classes: list[str]) -> str:
  """HTML of one prediction: class, right or wrong, probability as a bar."""
  best = int(predicted(p))
  name = classes[best] if best >= 0 else "nothing (NaN)"
  share = 100 * float(p[best]) if best >= 0 else 0.0
  kind, mark, word = (
    ("yes", "✓", "right") if best == label else ("no", "✗", "wrong")
  )
  return (
    f'<dt>{shown(head)}</dt><dd class="{kind}"><span><b aria-hidden="true">'
    f'{mark}</b><span class="unseen">{word}: </span> {shown(name)}</span>'
    f"<span>{share:.0f}&nbsp;%</span></dd>\n"
    f'<dd class="bar {kind}"><span style="width:{share:.1f}%"></span></dd>\n'
  )
