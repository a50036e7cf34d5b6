"""Spoken and handwritten digits: a folder of PNGs, WAVs and a manifest.

  python -m data_pipelines.tools.digits --sounds=FOLDER_OR_ZIP --out=data/digits

Sounds are the Free Spoken Digit Dataset (github.com/Jakobovski/
free-spoken-digit-dataset, CC BY-SA 4.0), its folder ``recordings`` or a zip of
it: ``{digit}_{speaker}_{index}.wav``, 3,000 recordings by 6 speakers. Pictures
are scikit-learn's ``load_digits`` (1,797 of 8x8 pixels, nothing to download),
or ``--images=FILE.npz`` with ``x`` [n h w] uint8 and ``y`` [n], e.g. of MNIST.

Both sources are split first and paired afterwards, within split and digit, so
no file occurs in two splits. Each recording occurs once. Pictures are divided
among the splits in proportion to the recordings and dealt in turn: where they
are fewer, they occur several times in their split.

A pair shares its label and nothing else: which picture goes with which
recording is chance, and carries no information about the instance. A model
cannot learn more from pairs than from labels; what it can show is how two
modalities of one label train together.

Splits, by ``--split``:

==========  ===================================================================
official    test is what the authors name: indices 0 to 4. ``--held_out`` of
            each digit's other recordings are outer, and as many val.
speakers    harder: one speaker each for test, val and outer, chosen by the
            seed; the others are train. No voice occurs in two splits.
==========  ===================================================================

Harder pairs, after AV-MNIST (Vielzeuf et al., CentralNet, 2018), with MNIST:

  python -m data_pipelines.tools.digits --sounds=FOLDER_OR_ZIP \
    --images=mnist.npz --energy=0.75 --per_digit=60 --repeat_test=10 \
    --out=data/digits75

``--energy`` removes that share of the training pictures' variance, by their
principal components; what is left of a picture is an array, ``picture:array``.
``--per_digit`` trains on so many recordings of a digit only. ``--repeat_test``
takes each test recording so many times, each time with another picture while
there are others.
"""

from __future__ import annotations

import collections
import os
import pathlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_pipelines import core
from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import DataError, InputError, unknown
from data_pipelines.tools import _folder, _residual
from data_pipelines.tools._digits_sources import (
  Recording,
  read_images,
  read_sounds,
)
from data_pipelines.transforms import image

HEADER = ("id", "split", "label", "picture:image", "sound:audio")
RESIDUAL = ("id", "split", "label", "picture:array", "sound:audio")
SPLITS = ("official", "speakers")
TEST_INDICES = 5  # the authors': 0 to 4 are test


class Pair(NamedTuple):
  """A sample: a recording, and the number of a picture of its digit."""

  split: str
  recording: Recording
  picture: int


def write(
  sounds: str | os.PathLike,
  out: str | os.PathLike,
  images: str | os.PathLike | None = None,
  split: str = "official",
  seed: int = 0,
  held_out: float = 0.1,
  energy: float = 0.0,
  per_digit: int = 0,
  repeat_test: int = 1,
) -> PreparedSummary:
  """Writes ``out`` with ``manifest.csv``, ``pictures``, ``sounds``.

  Args:
    sounds: folder, with folders in it or without, or zip of recordings.
    out: a new or empty folder; it appears when all is in it.
    images: ``.npz`` of pictures; ``None`` takes scikit-learn's.
    split: ``official`` or ``speakers``.
    seed: of the splits and the pairs; the same seed gives the same files.
    held_out: share of each digit of the official training recordings that outer
      and val get, each.
    energy: share of the pictures' variance to remove; 0 leaves pictures.
    per_digit: training recordings of a digit; 0 takes all.
    repeat_test: pairs of each test recording.

  Raises:
    ValueError: an option out of its range.
    DataError: sources that are absent, damaged or too few; or ``out`` is not
      empty.
  """
  _check(split, held_out, seed, energy, per_digit, repeat_test)
  out = pathlib.Path(out).expanduser()
  _folder.check_empty(out)
  recordings = read_sounds(pathlib.Path(sounds).expanduser())
  x, y = read_images(images)
  if split == "official":
    parts = _official(recordings, held_out, seed)
  else:
    parts = _by_speaker(recordings, seed)
  if per_digit:
    parts["train"] = _some(parts["train"], per_digit, seed)
  parts["test"] = parts["test"] * repeat_test
  pairs = pair(parts, y, seed)
  source = "scikit-learn, load_digits (UCI, CC BY 4.0)"
  if images is not None:
    source = pathlib.Path(images).name
  said = [
    "sounds: Free Spoken Digit Dataset, CC BY-SA 4.0",
    f"pictures: {source}",
    f"split={split} seed={seed} held_out={held_out}",
    f"energy={energy} per_digit={per_digit} repeat_test={repeat_test}",
    "pairs share their label only",
  ]
  _write(out, pairs, x, energy, said)
  return _report(out, pairs)


def _check(
  split: str,
  held_out: float,
  seed: int,
  energy: float,
  per_digit: int,
  repeat_test: int,
) -> None:
  if split not in SPLITS:
    raise unknown("split", split, SPLITS)
  if not 0 < held_out <= 0.4:
    raise InputError(f"held_out must lie in (0, 0.4], got {held_out!r}")
  if seed < 0:
    raise InputError(f"seed must be a whole number >= 0, got {seed!r}")
  if per_digit < 0 or repeat_test < 1:
    raise InputError(
      "per_digit must be a whole number >= 0 and repeat_test >= 1, got "
      f"per_digit={per_digit!r}, repeat_test={repeat_test!r}"
    )
  _residual.check(energy)


def _rng(seed: int, *what: int) -> np.random.Generator:
  return np.random.default_rng([seed, *what])


def _by_digit(
  recordings: Iterable[Recording],
) -> dict[int, list[Recording]]:
  found = collections.defaultdict(list)
  for r in recordings:
    found[r.digit].append(r)
  return dict(sorted(found.items()))


def _official(
  recordings: Sequence[Recording], share: float, seed: int
) -> dict[str, list[Recording]]:
  parts: dict[str, list[Recording]] = {s: [] for s in core.SPLITS}
  for digit, members in _by_digit(recordings).items():
    rest = [r for r in members if r.index >= TEST_INDICES]
    parts["test"] += [r for r in members if r.index < TEST_INDICES]
    order = [rest[i] for i in _rng(seed, digit, 0).permutation(len(rest))]
    size = max(1, round(share * len(rest)))
    parts["outer"] += order[:size]
    parts["val"] += order[size : 2 * size]
    parts["train"] += order[2 * size :]
  return parts


def _some(
  recordings: Sequence[Recording], number: int, seed: int
) -> list[Recording]:
  """So many recordings of each digit."""
  kept = []
  for digit, own in _by_digit(recordings).items():
    order = _rng(seed, digit, 2).permutation(len(own))[:number]
    kept += [own[i] for i in sorted(order)]
  return kept


def _by_speaker(
  recordings: Sequence[Recording], seed: int
) -> dict[str, list[Recording]]:
  names = sorted({r.speaker for r in recordings})
  if len(names) < len(core.SPLITS):
    raise DataError(
      f"split 'speakers' needs {len(core.SPLITS)} speakers, there "
      f"are {len(names)} ({', '.join(names)}): take --split=official"
    )
  order = [names[i] for i in _rng(seed).permutation(len(names))]
  split = dict.fromkeys(order, "train")
  split |= zip(order, ("test", "val", "outer"), strict=False)
  parts: dict[str, list[Recording]] = {s: [] for s in core.SPLITS}
  for r in recordings:
    parts[split[r.speaker]].append(r)
  return parts


def pair(
  parts: dict[str, list[Recording]], y: np.ndarray, seed: int
) -> list[Pair]:
  """Each recording with a picture of its digit and split.

  Args:
    parts: {split: recordings}.
    y: digits of the pictures [n].
    seed: of the division of the pictures, and of the pairs.

  Raises:
    DataError: a digit that lacks recordings or pictures in a split.
  """
  spoken = {split: _by_digit(members) for split, members in parts.items()}
  pairs = []
  for digit in sorted(set().union(*spoken.values())):
    sizes = {split: len(spoken[split].get(digit, ())) for split in parts}
    pictures = _rng(seed, digit, 1).permutation(np.flatnonzero(y == digit))
    ends = np.cumsum(list(sizes.values())) / sum(sizes.values())
    cuts = np.round(ends * len(pictures)).astype(int)[:-1]
    for split, own in zip(parts, np.split(pictures, cuts), strict=True):
      for what, n in (("recordings", sizes[split]), ("pictures", len(own))):
        if not n:
          raise DataError(
            f"too few {what} of digit {digit}: split {split!r} has none"
          )
      dealt = np.resize(own, sizes[split])
      pairs += map(Pair, [split] * len(dealt), spoken[split][digit], dealt)
  return pairs


def _write(
  out: pathlib.Path,
  pairs: Sequence[Pair],
  x: np.ndarray,
  energy: float,
  said: Sequence[str],
) -> None:
  with _folder.new_folder(out) as made:
    for folder in ("pictures", "sounds"):
      (made / folder).mkdir()
    suffix = _write_pictures(made, pairs, x, energy)
    rows = []
    for split, recording, number in pairs:
      sound = f"sounds/{recording.name}"
      (made / sound).write_bytes(recording.content)
      key = recording.name.removesuffix(".wav")
      rows.append([key, split, recording.digit, _file(number, suffix), sound])
    header = RESIDUAL if energy else HEADER
    _folder.write_manifest(made, header, _numbered(rows), said)


def _write_pictures(
  folder: pathlib.Path, pairs: Sequence[Pair], x: np.ndarray, energy: float
) -> str:
  """Writes pictures, or what is left of them; gives the files' suffix."""
  numbers = sorted({p.picture for p in pairs})
  if not energy:
    for number in numbers:
      content = image.encode(Image.fromarray(x[number]))
      (folder / _file(number, "png")).write_bytes(content)
    return "png"
  train = np.unique([p.picture for p in pairs if p.split == "train"])
  left, _ = _residual.without_components(x, train, energy)
  for number in numbers:
    np.save(folder / _file(number, "npy"), left[number])
  return "npy"


def _file(number: int, suffix: str) -> str:
  return f"pictures/{number:05d}.{suffix}"


def _numbered(rows: Iterable[list]) -> Iterator[list]:
  """The rows, with a number behind an id that has been there before."""
  seen: collections.Counter[str] = collections.Counter()
  for key, *rest in rows:
    seen[key] += 1
    yield [key if seen[key] == 1 else f"{key}-{seen[key]}", *rest]


def _report(out: pathlib.Path, pairs: Sequence[Pair]) -> PreparedSummary:
  counts = _folder.count((p.split, str(p.recording.digit)) for p in pairs)
  notes = []
  for split in core.SPLITS:
    members = [p for p in pairs if p.split == split]
    speakers = sorted({p.recording.speaker for p in members})
    pictures = len({p.picture for p in members})
    notes.append(f"{split}: {pictures} pictures, voices {', '.join(speakers)}")
  return PreparedSummary("digits", str(out), counts, notes=tuple(notes))


def main(arguments: Sequence[str] | None = None) -> int:
  """The command; an error is one line and exit code 1."""
  made = _folder.parser("digits", __doc__)
  made.add_argument(
    "--sounds", required=True, help="folder or zip of recordings"
  )
  made.add_argument("--images", help=".npz; default: scikit-learn's digits")
  made.add_argument("--split", choices=SPLITS, default="official")
  made.add_argument("--held_out", type=float, default=0.1)
  made.add_argument(
    "--energy", type=float, default=0.0, help="share of variance to remove"
  )
  made.add_argument(
    "--per_digit", type=int, default=0, help="training recordings of a digit"
  )
  made.add_argument(
    "--repeat_test", type=int, default=1, help="pairs of a test recording"
  )
  return _folder.run(write, made, arguments)


if __name__ == "__main__":
  sys.exit(main())
