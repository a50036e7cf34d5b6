"""What the tools share: a new folder with a manifest, splits, the command."""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from data_pipelines import core
from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import DataError, InputError

MANIFEST, SOURCES = "manifest.csv", "SOURCES.txt"


@contextlib.contextmanager
def new_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder beside ``out`` to write to; at the end it becomes ``out``.

  Raises:
    DataError: ``out`` is there and not empty.
  """
  check_empty(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  part = pathlib.Path(tempfile.mkdtemp(prefix=".part-", dir=out.parent))
  made = part / "made"  # a temporary folder itself is closed to others
  made.mkdir()
  try:
    yield made
    if out.exists():
      out.rmdir()
    made.replace(out)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def check_empty(out: pathlib.Path) -> None:
  """Refuses a folder with anything in it, by a ``DataError``."""
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise DataError(
      f"{out} is there and not empty: name another folder with --out"
    )


def write_manifest(
  folder: pathlib.Path,
  header: Sequence[str],
  rows: Iterable[Sequence[object]],
  said: Iterable[str],
) -> None:
  """``manifest.csv``, and ``SOURCES.txt`` with a line for each of ``said``."""
  with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as file:
    table = csv.writer(file)
    table.writerow(header)
    table.writerows(rows)
  text = "".join(f"{line}\n" for line in said)
  (folder / SOURCES).write_text(text, encoding="utf-8")


def draw_splits(
  labels: Sequence[str], test: float, held_out: float, seed: int
) -> list[str]:
  """A split for each row, drawn class by class.

  Args:
    labels: a row's class.
    test: share of each class that is test.
    held_out: share that outer and val get, each.
    seed: the same seed gives the same splits.

  Raises:
    ValueError: a share out of its range, or a negative seed.
    DataError: a class too small to be in all four splits.
  """
  if not (test > 0 and held_out > 0 and test + 2 * held_out < 1):
    raise InputError(
      "test and held_out must be positive and test + 2 held_out below 1, got "
      f"test={test!r}, held_out={held_out!r}"
    )
  if seed < 0:
    raise InputError(f"seed must be a whole number >= 0, got {seed!r}")
  members = collections.defaultdict(list)
  for i, label in enumerate(labels):
    members[label].append(i)
  splits = ["train"] * len(labels)
  for k, (label, own) in enumerate(sorted(members.items())):
    if len(own) < len(core.SPLITS):
      raise DataError(
        f"class {label!r} has {len(own)} rows: {len(core.SPLITS)} at least, "
        "one for each split"
      )
    order = np.random.default_rng([seed, k]).permutation(own)
    shares = {"test": test, "outer": held_out, "val": held_out}
    for split, share in shares.items():
      size = max(1, round(share * len(own)))
      for i in order[:size]:
        splits[i] = split
      order = order[size:]
    if not len(order):
      raise DataError(
        f"class {label!r} has {len(own)} rows, too few for test={test:g} and "
        f"held_out={held_out:g}: none is left for train"
      )
  return splits


def count(rows: Iterable[tuple[str, str]]) -> dict[str, dict[str, int]]:
  """{split: {class: rows}} of the rows' (split, class)."""
  found: dict[str, collections.Counter[str]] = {
    split: collections.Counter() for split in core.SPLITS
  }
  for split, label in rows:
    found[split][label] += 1
  return {split: dict(counts) for split, counts in found.items()}


def parser(
  module: str, description: str | None, seeded: bool = True
) -> argparse.ArgumentParser:
  """The parser of ``python -m data_pipelines.tools.<module>``, with --out.

  ``seeded``: and with --seed.
  """
  made = argparse.ArgumentParser(
    prog=f"python -m data_pipelines.tools.{module}",
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  made.add_argument("--out", required=True, help="a new folder")
  if seeded:
    made.add_argument("--seed", type=int, default=0, help="of the splits")
  return made


def add_shares(made: argparse.ArgumentParser) -> None:
  """The options of ``draw_splits``."""
  made.add_argument("--test", type=float, default=0.2, help="share of test")
  made.add_argument(
    "--held_out", type=float, default=0.1, help="share of outer, and of val"
  )


def run(
  write: Callable[..., PreparedSummary],
  made: argparse.ArgumentParser,
  arguments: Sequence[str] | None,
) -> int:
  """The command; an error is one line and exit code 1."""
  options = made.parse_args(arguments)
  try:
    report = write(**vars(options))
  except (ValueError, OSError, DataError) as error:
    sys.stderr.write(f"error: {error}\n")
    return 1
  manifest = os.path.join(report.folder, MANIFEST)
  sys.stdout.write(
    f"{report.summary()}\n\npython launch.py --config=configs/manifest.py:lb "
    f"--config.data.manifest={manifest}\n"
  )
  return 0
