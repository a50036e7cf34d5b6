"""Notes on cells that are used, but perhaps not as their owner thinks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from data_pipelines.manifest.rows import Row
from data_pipelines.manifest.table import Column
from data_pipelines.transforms import text
from data_pipelines.transforms.files.remarks import Damaged, Remark, Shallow

_EXAMPLE = 40  # characters
_PLURAL = {
  "audio": "sounds",
  "waveform": "sounds",
  "video": "videos",
  "image": "pictures",
}


def of_files(
  name: str, kind: str, rows: Sequence[Row], said: Mapping[int, Remark]
) -> list[str]:
  """Notes on damaged sounds and videos, and on pictures of 16 bits.

  Args:
    name: of the modality.
    kind: its kind.
    rows: those that are kept.
    said: {number of a row: remark on its file}.
  """
  damaged = {r: x for r, x in said.items() if isinstance(x, Damaged)}
  shallow = {r: x for r, x in said.items() if isinstance(x, Shallow)}
  cells = {row.number: row.cells[name] for row in rows}
  total, notes = f"{len(cells)} {_PLURAL.get(kind, kind)}", []
  if damaged:
    first = min(damaged)
    share = damaged[first].share
    part = "" if share is None else f", {share:.0%} of its length"
    notes.append(
      f"{name}: {len(damaged)} of {total} are damaged or cut off, and what can "
      f"be read of them is used (the first in row {first}: {cells[first]}"
      f"{part})"
    )
  if shallow:
    first = min(shallow)
    low = min(x.low for x in shallow.values())
    high = max(x.high for x in shallow.values())
    notes.append(
      f"{name}: {len(shallow)} of {total} have 16 bits and use little of their "
      f"range, values {low} to {high} of 0 to 65535 (the first in row {first}: "
      f"{cells[first]}): as 8 bits they are {low // 257} to {high // 257}; "
      "stretch the values before, or save them as .npy for a column of arrays"
    )
  return notes


def of_missing(
  columns: Sequence[Column], splits: Mapping[str, Sequence[Row]]
) -> list[str]:
  """A note for each modality that rows lack: how many of each split."""
  notes = []
  for column in columns:
    counts = {
      split: sum(not row.cells[column.name] for row in members)
      for split, members in splits.items()
    }
    said = ", ".join(
      f"{n} of {len(splits[split])} rows of {split}"
      for split, n in counts.items()
      if n
    )
    if said:
      notes.append(f"{column.name} is missing in {said}")
  return notes


def of_texts(name: str, rows: Sequence[Row]) -> list[str]:
  """A note on texts without a word."""
  bare = [r for r in rows if not text.words(str(r.cells[name]))]
  if not bare:
    return []
  return [
    f"{name}: {len(bare)} of {len(rows)} texts have no word, as "
    f"{quoted(str(bare[0].cells[name]))} in row {bare[0].number}: read as "
    "words they are empty; write signs and emoji as words, or use a tokenizer "
    "that knows them"
  ]


def quoted(words: str) -> str:
  """The beginning of a text, in quotation marks."""
  words = " ".join(words.split())
  cut = words if len(words) <= _EXAMPLE else f"{words[:_EXAMPLE]}…"
  return repr(cut)
