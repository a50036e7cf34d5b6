"""A peer's own code on our tensors, beside ours.

python -m benchmarks.peers --export=CONFIG --arrays=FILE.npz [--FIELD=VALUE ...]
python -m benchmarks.peers --peer=lfm|ogm_ge|balancebenchmark --checkout=CLONE
  --arrays=FILE.npz [--seeds=5] [--epochs=10] [--rows=NAME,...] [--side=both]
  [--out=FILE.json]

The first command writes prepared data, as evaluation sees them, to a file of
plain arrays; fields are those of the config, ``--config.data.image_size=16``.
The second trains a peer's functions, imported from a clone that the user has,
with encoders of our architecture in torch, and then ours: same arrays, split,
epochs, batches of 64, Adam at 1e-3 with a cosine. Test is read once, with the
weights after the last epoch. Accuracy over seeds and the median time of an
epoch, the first left out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import arrays as of_arrays
from benchmarks.peers import checkout
from data_pipelines.errors import DataError, InputError

PEERS = ("lfm", "ogm_ge", "balancebenchmark")
SIDES = ("both", "theirs", "ours")
BATCH = 64


def main(argv: list[str] | None = None) -> int:
  """Exports or compares; an error of the input is one line and exit code 1."""
  options, fields = parse(argv)
  try:
    if options.export:
      made = of_arrays.of_config(options.export, fields)
      of_arrays.save(options.arrays, made)
      return 0
    result = compare(options)
  except (DataError, InputError, ValueError) as error:
    sys.stderr.write(f"error: {error}\n")
    return 1
  if options.out:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
  print(table(result))
  return 0


def parse(
  argv: list[str] | None,
) -> tuple[argparse.Namespace, dict[str, Any]]:
  """The options, and {path: value} of the config's fields."""
  parser = argparse.ArgumentParser(
    prog="python -m benchmarks.peers",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument("--export", help="a config, configs/openmoji.py:joint")
  parser.add_argument("--arrays", type=Path, required=True, help=".npz")
  parser.add_argument("--peer", choices=PEERS)
  parser.add_argument("--checkout", type=Path, help="clone of the peer")
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--epochs", type=int, default=10)
  parser.add_argument("--rows", type=lambda text: text.split(","))
  parser.add_argument("--side", choices=SIDES, default="both")
  parser.add_argument("--out", type=Path, help="file for the JSON")
  options, rest = parser.parse_known_args(argv)
  fields = {}
  for word in rest:
    path, equals, value = word.removeprefix("--config.").partition("=")
    if not (options.export and equals and word.startswith("--config.")):
      parser.error(f"unknown argument {word!r}")
    fields[path] = _value(value)
  if not options.export and not (options.peer and options.checkout):
    parser.error("name --peer and --checkout, or --export")
  for name in ("seeds", "epochs"):
    if getattr(options, name) < 1:
      parser.error(f"--{name} must be at least 1")
  return options, fields


def _value(text: str) -> Any:
  from dmg_jax.config import compose

  return compose.value(text)


def compare(options: argparse.Namespace) -> dict[str, Any]:
  """All rows of a peer, theirs and ours."""
  from benchmarks import run as environment

  root = options.checkout.expanduser().resolve()
  peer: Any = importlib.import_module(f"benchmarks.peers.{options.peer}")
  checkout.check(root, peer.FILES)
  data = of_arrays.load(options.arrays)
  for name in options.rows or ():
    if name not in peer.ROWS:
      raise InputError(
        f"unknown row {name!r} (choose from {', '.join(peer.ROWS)})"
      )
  rows, stubbed = [], set()
  for name in options.rows or peer.ROWS:
    row: dict[str, Any] = {"row": name, "ours as": peer.ROWS[name][2]}
    if options.side != "ours":
      row["theirs"], own = theirs(peer, root, name, data, options)
      stubbed |= own
    if options.side != "theirs":
      row["ours"] = ours(peer.ROWS[name], data, options)
    sys.stderr.write(f"{json.dumps(row)}\n")
    rows.append(row)
  import torch

  return {
    "peer": peer.SOURCE,
    "arrays": options.arrays.stem,
    "epochs": options.epochs,
    "seeds": options.seeds,
    "batch_size": BATCH,
    "stubbed packages": sorted(stubbed),
    "stubbed modules": list(peer.STUBBED),
    "torch": torch.__version__,
    "environment": environment.environment(),
    "rows": rows,
  }


def theirs(
  peer: Any, root: Path, name: str, data: Any, options: argparse.Namespace
) -> tuple[dict[str, list[float]], set[str]]:
  """{accuracy, seconds} of the peer's code, and packages that were stubbed."""
  import torch

  from benchmarks.peers import towers

  train, test = (towers.tensors(data, s) for s in ("train", "test"))
  accuracy, seconds = [], []
  with checkout.opened(
    root, packages=getattr(peer, "PACKAGES", ()), empty=peer.STUBBED
  ) as stubbed:
    for seed in range(options.seeds):
      torch.manual_seed(seed)
      batches = towers.Batches(train, BATCH, seed)
      own = peer.Peer(root, name, data, len(batches) * options.epochs)
      for epoch in range(options.epochs):
        start = time.perf_counter()
        own.model.train()
        own.epoch(epoch, batches)
        if epoch or options.epochs == 1:
          seconds.append(time.perf_counter() - start)
      right = (own.predict(test) == test["label"]).numpy()
      accuracy.append(100 * float(right.mean()))
    found = set(stubbed)
  return {"accuracy": accuracy, "seconds": seconds}, found


def ours(row: Any, data: Any, options: argparse.Namespace) -> dict[str, Any]:
  """{accuracy, seconds} of this project's row."""
  from benchmarks.peers import ours as own

  accuracy, seconds = [], []
  for seed in range(options.seeds):
    run = own.Run(row, data, seed=seed, epochs=options.epochs, size=BATCH)
    took = [run.epoch(epoch) for epoch in range(options.epochs)]
    seconds += took[1:] or took
    accuracy.append(run.accuracy("test"))
  return {"accuracy": accuracy, "seconds": seconds}


def table(result: dict[str, Any]) -> str:
  """The rows as Markdown: mean ± standard deviation over seeds, in %."""
  lines = [
    f"| {result['peer']} | ours as | theirs, % | ours, % | theirs, s an epoch "
    "| ours, s an epoch |",
    "|---|---|---:|---:|---:|---:|",
  ]
  for row in result["rows"]:
    cells = [
      _shown(row[side]["accuracy"]) if side in row else "–"
      for side in ("theirs", "ours")
    ]
    cells += [
      f"{statistics.median(row[side]['seconds']):.2f}" if side in row else "–"
      for side in ("theirs", "ours")
    ]
    lines.append(f"| {row['row']} | `{row['ours as']}` | {' | '.join(cells)} |")
  return "\n".join(lines)


def _shown(values: list[float]) -> str:
  spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
  return f"{np.mean(values):.1f} ± {spread:.1f}"


if __name__ == "__main__":
  sys.exit(main())
