"""Labels: one form for each class, and classes that look like one.

A label is a text. It is brought to Unicode's composed form (NFC), and a whole
number with zeros behind its point loses them: ``1.0`` is ``1``, in each format.
"""

from __future__ import annotations

import collections
import decimal
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

from data_pipelines.manifest.faults import cut

_WHOLE = re.compile(r"([+-]?(?:0|[1-9][0-9]*))\.0+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,4})?")
_BETWEEN_LETTERS = re.compile(r"(?<=[^\W\d])[-_]+(?=[^\W\d])")
_SHOWN = 5  # groups, and classes of one
_LONGEST = 60  # characters of a class in a note


def label_of(cell: str) -> str:
  """The class that a cell names."""
  label = cell if cell.isascii() else unicodedata.normalize("NFC", cell)
  if label.endswith("0") and (found := _WHOLE.fullmatch(label)):
    whole = found[1]
    return "0" if whole in ("-0", "+0") else whole
  return label


def rewritten(pairs: Iterable[tuple[str, str]]) -> list[str]:
  """Notes on cells that name a class in another form: (cell, its class)."""
  counts = collections.Counter(p for p in pairs if p[0] != p[1])
  numbers = [p for p in counts if p[1].isascii()]
  texts = [p for p in counts if not p[1].isascii()]
  notes = []
  for found, how in (
    (numbers, "are whole numbers"),
    (texts, "are brought to Unicode's composed form (NFC)"),
  ):
    if found:
      total = sum(counts[p] for p in found)
      cell, label = found[0]
      example = f", as {_shown(cell)}: class {label!r}" if cell != label else ""
      example = example if label.isascii() else f", as {label!r}"
      notes.append(f"column 'label': {total} labels {how}{example}")
  return notes


def alike(counts: Mapping[str, int]) -> list[str]:
  """Notes on classes that may be one.

  Args:
    counts: {class: its rows}.
  """
  groups = collections.defaultdict(list)
  for label in counts:
    groups[_folded(label)].append(label)
  found = [sorted(g) for g in groups.values() if len(g) > 1]
  found.sort(key=lambda g: -sum(counts[c] for c in g))
  notes = []
  for group in found[:_SHOWN]:
    shown = [f"{_shown(c)} ({counts[c]} rows)" for c in group[:_SHOWN]]
    if len(group) > _SHOWN:
      shown.append(f"{len(group) - _SHOWN} more")
    notes.append(
      f"column 'label': {', '.join(shown[:-1])} and {shown[-1]} are "
      f"{len(group)} classes that differ only in {_difference(group)}"
    )
  if len(found) > _SHOWN:
    notes.append(
      f"column 'label': {len(found) - _SHOWN} more groups of classes differ as "
      "little"
    )
  return notes


def _shown(label: str) -> str:
  return repr(cut(label, _LONGEST))


def _compatible(label: str) -> str:
  """Without what cannot be seen, and with plain forms of letters and digits."""
  label = unicodedata.normalize("NFKC", label)
  return "".join(c for c in label if unicodedata.category(c) != "Cf")


def _joined(label: str) -> str:
  """Without spaces, and without ``-`` and ``_`` between letters."""
  return "".join(_BETWEEN_LETTERS.sub("", label).split())


def _number(label: str) -> str:
  """A number in one form; other texts as they are."""
  if not _NUMBER.fullmatch(label.lower()):
    return label
  value = decimal.Decimal(label).normalize()
  return str(value) if value else "0"


_STEPS: Sequence[tuple[str, Callable[[str], str]]] = (
  ("number format", _number),
  ("Unicode form or signs that cannot be seen", _compatible),
  ("case", str.casefold),
  ("spaces, - or _", _joined),
)


def _folded(label: str) -> str:
  """Equal for classes that look like one."""
  label = _compatible(_compatible(label).casefold())
  return _number(_joined(label))


def _difference(group: Sequence[str]) -> str:
  """What classes of one group differ in."""
  for name, step in _STEPS:
    if len(set(map(step, group))) == 1:
      return name
  needed = [
    name for name, step in _STEPS if len(set(map(step, group))) < len(group)
  ]
  return " and ".join(needed) or "case, spaces and Unicode form"
