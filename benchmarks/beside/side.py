"""A process of one side: takes steps as it is told, on cores of its own.

``python benchmarks/beside/side.py SIDE MODEL CORES`` prints ``ready``, then
for each number that it reads takes so many steps and prints
``{"wall": seconds, "cpu": seconds of the process, "loss": last}``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
  """Serves until its input ends."""
  side, model, cores = sys.argv[1:]
  chosen = [int(c) for c in cores.split(",")]
  if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, chosen)
  sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
  if side == "theirs":
    import torch

    torch.set_num_threads(len(chosen))
  else:
    from dmg_jax.cli import memory

    memory.keep()  # As the command line does.
  take = importlib.import_module(f"benchmarks.beside.{side}").make(model)
  take(2)
  sys.stdout.write("ready\n")
  sys.stdout.flush()
  for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    loss = take(int(line))
    took = {
      "wall": time.perf_counter() - wall,
      "cpu": time.process_time() - cpu,
      "loss": loss,
    }
    sys.stdout.write(json.dumps(took) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
  main()
