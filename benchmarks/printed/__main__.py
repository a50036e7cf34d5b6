"""Printed numbers of TMC and ETMC, made again.

python -m benchmarks.printed --data=FOLDER [--seeds=5] [--only=SET,...]
  [--splits=SPLIT,...] [--scale=apart|train] [--rate=R] [--every=N]
  [--checkout=CLONE] [--epochs=500] [--out=FILE.json]

The folder has ``mfeat`` (CSV files of six views) and
``multiview_mat/scene-15.mat``. Three splits: ``one``, the split of seed 0 for
all runs, which differ in weights and order; ``each``, a split for each seed;
and, with a clone of hanmenghan/TMC, ``released``, the split of its file. Then
the authors' model is trained on the same arrays, too. ``--every=N`` also looks
at test after every N epochs and gives the best score, which chooses by test. A
table goes to the terminal, all numbers to the file.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import run as environment
from benchmarks.printed import ours, sets, theirs
from data_pipelines.errors import DataError

SPLITS = ("one", "each", "released")
Make = Callable[[int], tuple[sets.Part, sets.Part]]
Run = Callable[..., tuple[float, float]]


def main(argv: list[str] | None = None) -> int:
  """Runs everything; returns 1 after an error of the data."""
  options = parse(argv)
  begin = time.monotonic()
  rows: list[dict[str, Any]] = []
  try:
    for name in options.only:
      rows += list(_rows(name, options))
  except DataError as error:
    sys.stderr.write(f"error: {error}\n")
    return 1
  result = {
    "environment": environment.environment(),
    "options": {k: str(v) for k, v in vars(options).items()},
    "seconds": time.monotonic() - begin,
    "rows": rows,
  }
  if options.out:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
  print(table(rows))
  return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
  """The command line; exits with the choices after an unknown name."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.printed",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  split = lambda text: text.split(",")  # noqa: E731
  parser.add_argument("--data", type=Path, required=True)
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--only", type=split, default=list(sets.SETS))
  parser.add_argument("--splits", type=split, default=list(SPLITS))
  parser.add_argument("--every", type=int, default=0)
  parser.add_argument("--scale", choices=sets.SCALES, default="apart")
  parser.add_argument("--rate", type=float, help="in place of the set's own")
  parser.add_argument("--checkout", type=Path, help="clone of hanmenghan/TMC")
  parser.add_argument("--epochs", type=int, default=ours.EPOCHS)
  parser.add_argument("--out", type=Path, help="file for the JSON")
  options = parser.parse_args(argv)
  for given, known in ((options.only, sets.SETS), (options.splits, SPLITS)):
    for name in given:
      if name not in known:
        parser.error(f"unknown name {name!r} (choose from {', '.join(known)})")
  for name in ("seeds", "epochs"):
    if getattr(options, name) < 1:
      parser.error(f"--{name} must be at least 1")
  return options


def _rows(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """The rows of a set: split × method × whose code."""
  whole = sets.read(name, options.data)
  makes = _splits(name, whole, options)
  for method, printed in sets.SETS[name].printed.items():
    rate, tried = options.rate or sets.SETS[name].rate, {}
    if rate is None:
      held = sets.divide(whole.labels, 0)
      rate, tried = ours.chosen_rate(
        method, whole.rows(~held), options.scale, options.epochs
      )
    for split, make in makes.items():
      for code, run in _codes(method, rate, options).items():
        both = [run(*make(s), seed=s) for s in range(options.seeds)]
        found, best = (list(scores) for scores in zip(*both, strict=True))
        sys.stderr.write(f"{name} {method} {split} {code} {found}\n")
        yield {
          "set": name,
          "method": method,
          "split": split,
          "code": code,
          "rate": rate,
          "tried": {f"{r:g}": a for r, a in tried.items()},
          "printed": printed,
          "accuracy": found,
          "best on test": best if options.every else [],
        }


def _splits(
  name: str, whole: sets.Part, options: argparse.Namespace
) -> dict[str, Make]:
  """{split: its scaled train and test of a seed}."""

  def drawn(seed: int):
    test = sets.divide(whole.labels, seed)
    return sets.scaled(whole.rows(~test), whole.rows(test), options.scale)

  makes: dict[str, Make] = {"one": lambda seed: drawn(0), "each": drawn}
  if options.checkout and name == "handwritten":
    parts = sets.scaled(*sets.released(options.checkout), options.scale)
    makes["released"] = lambda seed: parts
  return {name: make for name, make in makes.items() if name in options.splits}


def _codes(
  method: str, rate: float, options: argparse.Namespace
) -> dict[str, Run]:
  """{whose code: accuracy of a run}; theirs has no ETMC for arrays."""
  more = {"epochs": options.epochs, "every": options.every}

  def mine(train, test, seed):
    return ours.accuracy(method, train, test, rate=rate, seed=seed, **more)

  codes: dict[str, Run] = {"ours": mine}
  if options.checkout and method == "tmc":
    module = theirs.load(options.checkout)

    def other(train, test, seed):
      return theirs.accuracy(
        module,
        train,
        test,
        rate=rate,
        seed=seed,
        batch=ours.BATCH,
        anneal=ours.ANNEAL,
        **more,
      )

    codes["theirs"] = other
  return codes


def table(rows: list[dict[str, Any]]) -> str:
  """The rows as Markdown: mean ± standard deviation over seeds, in %."""
  lines = [
    "| set | method | split | code | rate | accuracy | printed "
    "| best epoch on test |",
    "|---|---|---|---|---:|---:|---:|---:|",
  ]
  for row in rows:
    best = row["best on test"]
    cells = [
      *(row["set"], row["method"].upper(), row["split"], row["code"]),
      f"{row['rate']:g}",
      shown(row["accuracy"]),
      "{:.2f} ± {:.2f}".format(*row["printed"]),
      shown(best) if best else "–",
    ]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def shown(values: list[float]) -> str:
  """Mean ± standard deviation."""
  spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
  return f"{np.mean(values):.2f} ± {spread:.2f}"


if __name__ == "__main__":
  sys.exit(main())
