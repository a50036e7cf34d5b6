"""A peer's own code on our tensors, beside ours.

python -m benchmarks.peers --export=CONFIG --arrays=FILE.npz [--FIELD=VALUE ...]
python -m benchmarks.peers --peer=lfm|ogm_ge|balancebenchmark --checkout=CLONE
  --arrays=FILE.npz [--seeds=5] [--epochs=10] [--rows=NAME,...] [--side=both]
  [--cores=N] [--out=FILE.json]

The first command writes prepared data, as evaluation sees them, to a file of
plain arrays; fields are those of the config, ``--config.data.image_size=16``.
The second trains a peer's functions, imported from a clone that the user has,
with encoders of our architecture in torch, and then ours: same arrays, split,
epochs, batches of 64, Adam at 1e-3 with a cosine. Test is read once, with the
weights after the last epoch. Both take epochs in turns; the first two are left
out of the times.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import arrays as of_arrays
from benchmarks.peers import checkout
from data_pipelines.errors import DataError, InputError

PEERS = ("lfm", "ogm_ge", "balancebenchmark")
SIDES = ("both", "theirs", "ours")
_SIDES = SIDES[1:]
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
  parser.add_argument("--cores", type=int, help="of the machine; default: all")
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
  for name in ("seeds", "epochs", "cores"):
    given = getattr(options, name)
    if given is not None and given < 1:
      parser.error(f"--{name} must be at least 1")
  return options, fields


def _value(text: str) -> Any:
  from dmg_jax.config import compose

  return compose.value(text)


def compare(options: argparse.Namespace) -> dict[str, Any]:
  """All rows of a peer, theirs and ours."""
  from benchmarks import run as environment
  from dmg_jax.cli import memory

  memory.keep()  # As the command line does; both sides are in this process.
  root = options.checkout.expanduser().resolve()
  peer: Any = importlib.import_module(f"benchmarks.peers.{options.peer}")
  checkout.check(root, peer.FILES)
  data = of_arrays.load(options.arrays)
  for name in options.rows or ():
    if name not in peer.ROWS:
      raise InputError(
        f"unknown row {name!r} (choose from {', '.join(peer.ROWS)})"
      )
  if options.cores:
    limit(options.cores)
  rows, stubbed = [], set()
  for name in options.rows or peer.ROWS:
    found, own = turns(peer, root, name, data, options)
    rows.append({"row": name, "ours as": peer.ROWS[name][2], **found})
    stubbed |= own
    sys.stderr.write(f"{json.dumps(rows[-1])}\n")
  import torch

  return {
    "peer": peer.SOURCE,
    "arrays": options.arrays.stem,
    "epochs": options.epochs,
    "seeds": options.seeds,
    "batch_size": BATCH,
    "cores": options.cores,
    "stubbed packages": sorted(stubbed),
    "stubbed modules": list(peer.STUBBED),
    "torch": torch.__version__,
    "environment": environment.environment(),
    "rows": rows,
  }


def limit(cores: int) -> None:
  """Keeps both sides on so many cores; before JAX is first used."""
  import torch

  if hasattr(os, "sched_setaffinity"):
    known = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, known[:cores])
  torch.set_num_threads(cores)


def turns(
  peer: Any, root: Path, name: str, data: Any, options: argparse.Namespace
) -> tuple[dict[str, Any], set[str]]:
  """A row: both sides take epochs in turns, so that they share the machine.

  Returns:
    {side: {accuracy: a number a seed, seconds: a number an epoch but for the
    first two, in which programs are compiled}}, and packages that were stubbed.
  """
  from benchmarks.peers import ours, towers

  size = len(data.labels["train"]) // BATCH * options.epochs
  sides = _SIDES if options.side == "both" else (options.side,)
  made = {side: {"accuracy": [], "seconds": []} for side in sides}
  with checkout.opened(
    root, packages=getattr(peer, "PACKAGES", ()), empty=peer.STUBBED
  ) as stubbed:
    for seed in range(options.seeds):
      runs: dict[str, Any] = {}
      if "theirs" in sides:
        runs["theirs"] = towers.Run(
          lambda: peer.Peer(root, name, data, size), data, seed, BATCH
        )
      if "ours" in sides:
        runs["ours"] = ours.Run(
          peer.ROWS[name], data, seed=seed, epochs=options.epochs, size=BATCH
        )
      for epoch in range(options.epochs):
        for side, run in runs.items():
          took = run.epoch(epoch)
          if epoch >= min(2, options.epochs - 1):
            made[side]["seconds"].append(took)
      for side, run in runs.items():
        made[side]["accuracy"].append(run.accuracy("test"))
    found = set(stubbed)
  return made, found


def table(result: dict[str, Any]) -> str:
  """The rows as Markdown: mean ± standard deviation over seeds, in %."""
  lines = [
    f"| {result['peer']} | ours as | theirs, % | ours, % | theirs, s an epoch "
    "| ours, s an epoch | theirs / ours |",
    "|---|---|---:|---:|---:|---:|---:|",
  ]
  for row in result["rows"]:
    cells = [
      _shown(row[side]["accuracy"]) if side in row else "–" for side in _SIDES
    ]
    seconds = [row[side]["seconds"] if side in row else [] for side in _SIDES]
    cells += [f"{statistics.median(s):.2f}" if s else "–" for s in seconds]
    ratios = [a / b for a, b in zip(*seconds, strict=False)]
    cells.append(f"{statistics.median(ratios):.1f}" if ratios else "–")
    lines.append(f"| {row['row']} | `{row['ours as']}` | {' | '.join(cells)} |")
  return "\n".join(lines)


def _shown(values: list[float]) -> str:
  spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
  return f"{np.mean(values):.1f} ± {spread:.1f}"


if __name__ == "__main__":
  sys.exit(main())
