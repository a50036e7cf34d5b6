"""Ours and PyTorch's in turns: training steps by model and cores, and loaders.

Each side is a process of its own, on the same cores, compiled and warm before
the first turn; while one works, the other waits. Ratios are of turns of the
same round. CPU time counts the process with its threads, so that other load on
the machine matters less than for seconds; threads of torch that wait for one
another count as busy.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.beside import models

NAME = "compare"
OURS, THEIRS = "ours", "torch"
_SIDES = {OURS: "ours", THEIRS: "theirs"}
_SECONDS = 1.0  # Of a turn, at least.


def run(quick: bool, models_: list[str], data: Path) -> list[measure.Entry]:
  """Runs this benchmark; without torch it has no entries."""
  del models_, data
  if importlib.util.find_spec("torch") is None:
    sys.stderr.write("torch is not installed: nothing to compare with\n")
    return []
  made = []
  names = ["arrays"] if quick else list(models.MODELS)
  for cores in _cores():
    for name in names:
      made += _entries(name, cores, rounds=2 if quick else 5)
  return made


def _cores() -> list[str]:
  """One core, and two if there are."""
  if not hasattr(os, "sched_getaffinity"):  # Not Linux: nothing is pinned.
    return ["0"]
  usable = sorted(os.sched_getaffinity(0))
  one, two = str(usable[0]), ",".join(map(str, usable[:2]))
  return [one] if len(usable) == 1 else [one, two]


def _entries(name: str, cores: str, rounds: int) -> list[measure.Entry]:
  """Steps of one model: seconds, and seconds of the processor."""
  with contextlib.ExitStack() as stack:
    sides = {
      side: stack.enter_context(_started(file, name, cores))
      for side, file in _SIDES.items()
    }
    first = {side: process(1)["wall"] for side, process in sides.items()}
    count = max(1, round(_SECONDS / max(first.values())))
    wall: dict[str, list[float]] = {side: [] for side in sides}
    used: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
      for side in list(sides) if turn % 2 == 0 else reversed(sides):
        took = sides[side](count)
        wall[side].append(took["wall"] / count)
        used[side].append(took["cpu"] / count)
  number = cores.count(",") + 1
  case = f"{name}, {number} core{'s' * (number > 1)}"
  samples = wall | {f"{side}, processor": used[side] for side in sides}
  bases = {f"{OURS}, processor": f"{THEIRS}, processor"}
  bases[f"{THEIRS}, processor"] = f"{THEIRS}, processor"
  made = measure.entries(NAME, case, THEIRS, samples, bases=bases)
  for entry in made:
    seconds = entry.values["seconds"]["median"]
    entry.values["samples_per_second"] = models.MODELS[name].size / seconds
  return made


@contextlib.contextmanager
def _started(side: str, model: str, cores: str) -> Iterator[Any]:
  """A function that lets a process of its own take so many steps."""
  file = Path(__file__).with_name("side.py")
  command = [sys.executable, str(file), side, model, cores]
  count = str(cores.count(",") + 1)
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": count}
  process = subprocess.Popen(
    command,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
    env=environment,
  )
  assert process.stdin is not None and process.stdout is not None
  given, told = process.stdin, process.stdout
  late = threading.Timer(300, process.kill)
  late.start()
  try:
    _line(told, command)

    def take(count: int) -> dict[str, float]:
      given.write(f"{count}\n")
      given.flush()
      return json.loads(_line(told, command))

    yield take
  finally:
    late.cancel()
    given.close()
    process.wait(timeout=60)
    told.close()


def _line(stream: Any, command: list[str]) -> str:
  line = stream.readline()
  if not line:
    raise RuntimeError(f"ended before its time: {' '.join(command)}")
  return line
