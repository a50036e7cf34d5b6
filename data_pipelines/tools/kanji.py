"""Kanji, drawn and as strokes: a manifest with a picture and counts of runs.

  pip install kanjivg 'dmg_jax[demo]'
  python -m data_pipelines.tools.kanji --out=data/kanji

KanjiVG (kanjivg.tagaini.net, CC BY-SA 3.0) draws characters stroke by stroke.
The label is the character's radical, the part by which dictionaries sort. A
character gives two modalities, both of itself:

=============  =================================================================
picture:image  the whole drawing, ``--size`` pixels each way
strokes:array  how often each run of one to ``--longest`` strokes occurs in the
               order of writing, by their types (dot, bar, hook, ...) and not
               their places; a run that begins the character counts as another
               one, too. Runs are those of the training characters.
=============  =================================================================

Radicals with fewer than ``--smallest`` characters are left out. Splits are
drawn radical by radical: ``--test`` of each are test, ``--held_out`` are outer,
as many val. Characters of one radical whose strokes are of the same types in
the same order, as those of one character's variants often are, stand in one
split.
"""

from __future__ import annotations

import collections
import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import DataError, InputError
from data_pipelines.tools import _folder
from data_pipelines.tools._kanji_sources import Character, draw, read
from data_pipelines.transforms import image

HEADER = ("id", "split", "label", "picture:image", "strokes:array")


def write(
  out: str | os.PathLike,
  source: str | os.PathLike | None = None,
  size: int = 32,
  longest: int = 4,
  smallest: int = 25,
  test: float = 0.6,
  held_out: float = 0.1,
  seed: int = 0,
) -> PreparedSummary:
  """Writes ``out`` with ``manifest.csv``, ``pictures`` and ``strokes``.

  Args:
    out: a new or empty folder; it appears when all is in it.
    source: folder of KanjiVG's files; ``None`` is the package's.
    size: pixels of a picture, each way.
    longest: strokes of the longest run that is counted.
    smallest: characters that a radical must have.
    test, held_out, seed: of the splits, ``_folder.draw_splits``.

  Raises:
    ValueError: an option out of its range.
    DataError: no such source, no radical of that size; ``out`` is not empty.
  """
  for name, value in {"size": size, "longest": longest}.items():
    if value < 1:
      raise InputError(f"{name} must be a whole number >= 1, got {value}")
  out = pathlib.Path(out).expanduser()
  _folder.check_empty(out)
  found = read(source)
  kept = _large(found, smallest)
  splits = _splits(kept, test, held_out, seed)
  with _folder.new_folder(out) as made:
    width = _write(made, kept, splits, size, longest)
    said = [
      "KanjiVG, Ulrich Apel and contributors, CC BY-SA 3.0",
      f"size={size} longest={longest} smallest={smallest} test={test} "
      f"held_out={held_out} seed={seed}",
    ]
    rows = [
      (c.name, split, c.radical, _picture(c), _strokes(c))
      for c, split in zip(kept, splits, strict=True)
    ]
    _folder.write_manifest(made, HEADER, rows, said)
  counts = _folder.count(
    (s, c.radical) for c, s in zip(kept, splits, strict=True)
  )
  notes = (
    f"{len(found) - len(kept)} characters of radicals with fewer than "
    f"{smallest} are left out",
    f"strokes: {width} runs",
  )
  return PreparedSummary("kanji", str(out), counts, notes=notes)


def _large(found: Sequence[Character], smallest: int) -> list[Character]:
  """The characters of radicals with as many characters."""
  sizes = collections.Counter(c.radical for c in found)
  kept = [c for c in found if sizes[c.radical] >= smallest]
  if not kept:
    raise DataError(
      f"no radical has {smallest} characters, the largest has "
      f"{max(sizes.values())}: lower --smallest"
    )
  return kept


def _splits(
  characters: Sequence[Character], test: float, held_out: float, seed: int
) -> list[str]:
  """A split for each character, the same for those of the same strokes."""
  twins = [(c.radical, c.types) for c in characters]
  groups = list(dict.fromkeys(twins))
  drawn = _folder.draw_splits([g[0] for g in groups], test, held_out, seed)
  split_of = dict(zip(groups, drawn, strict=True))
  return [split_of[t] for t in twins]


def runs(types: Sequence[str], longest: int) -> collections.Counter[str]:
  """How often each run of one to ``longest`` types occurs.

  The first run of each length counts as itself with ``^`` before it, too.
  """
  counts: collections.Counter[str] = collections.Counter()
  for n in range(1, min(longest, len(types)) + 1):
    own = ["".join(types[i : i + n]) for i in range(len(types) - n + 1)]
    counts.update([*own, f"^{own[0]}"])
  return counts


def _write(
  folder: pathlib.Path,
  characters: Sequence[Character],
  splits: Sequence[str],
  size: int,
  longest: int,
) -> int:
  """Writes pictures and counts; gives the number of runs."""
  counted = [runs(c.types, longest) for c in characters]
  train = [r for r, s in zip(counted, splits, strict=True) if s == "train"]
  known = sorted(set().union(*train))
  for name in ("pictures", "strokes"):
    (folder / name).mkdir()
  for character, counts in zip(characters, counted, strict=True):
    drawn = Image.fromarray(draw(character.paths, size))
    (folder / _picture(character)).write_bytes(image.encode(drawn))
    values = np.array([counts[run] for run in known], np.float32)
    np.save(folder / _strokes(character), values)
  return len(known)


def _picture(character: Character) -> str:
  return f"pictures/{ord(character.name):05x}.png"


def _strokes(character: Character) -> str:
  return f"strokes/{ord(character.name):05x}.npy"


def main(arguments: Sequence[str] | None = None) -> int:
  """The command; an error is one line and exit code 1."""
  made = _folder.parser("kanji", __doc__)
  made.add_argument("--source", help="folder; default: the package kanjivg's")
  made.add_argument("--size", type=int, default=32, help="pixels")
  made.add_argument("--longest", type=int, default=4, help="strokes of a run")
  made.add_argument(
    "--smallest", type=int, default=25, help="characters of a radical"
  )
  made.add_argument("--test", type=float, default=0.6, help="share of test")
  made.add_argument(
    "--held_out", type=float, default=0.1, help="share of outer, and of val"
  )
  return _folder.run(write, made, arguments)


if __name__ == "__main__":
  sys.exit(main())
