"""Notes on prepared texts of which a tokenizer knows nothing."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence

from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.manifest.findings.notes import quoted
from data_pipelines.manifest.prepared import FILE
from data_pipelines.transforms import text


def noted(
  made: core.PreparedSummary, tokens: text.Tokens | None
) -> core.PreparedSummary:
  """The summary with a note for each modality with such texts."""
  if tokens is None:
    return made
  folder = pathlib.Path(made.folder)
  stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
  as_stored = [f"input_{m}" for m in stored]
  found: list[str] = []
  for m in (m for m, its in stored.items() if its["kind"] == "text"):
    texts = [
      record[f"input_{m}"].decode()
      for split in made.counts
      for record in storage.read(folder, split, as_stored)
    ]
    found += _note(m, [t for t in texts if t], tokens)
  return dataclasses.replace(made, notes=(*made.notes, *found))


def _note(name: str, texts: Sequence[str], tokens: text.Tokens) -> list[str]:
  bare = [t for t in texts if not tokens.knows_any(t)]
  if not bare:
    return []
  return [
    f"{name}: tokenizer {tokens.name!r} knows no part of {len(bare)} of "
    f"{len(texts)} texts, as {quoted(bare[0])}: all their tokens are unknown "
    "ones; use a tokenizer of that language, or write signs as words"
  ]
