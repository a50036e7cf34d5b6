"""A run that is stopped and goes on, beside one that is not: the same bits?

python -m benchmarks.accelerator.resume FOLDER DETERMINISTIC|USUAL [--quick]

``lb`` on OpenMoji, twice at once: straight, and stopped by SIGTERM after its
first logged steps, then started again. Compared are every logged line, the
results but for their timing, and every array of the last checkpoint. Nothing
that was compiled is kept, so that the three processes choose for themselves;
with ``--quick`` it is, to save time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accelerator.says import say

ROOT = Path(__file__).resolve().parents[2]
# What XLA needs for the same bits in every process, see docs/howto/gpu.md.
FLAGS = {"deterministic": "--xla_gpu_deterministic_ops=true", "usual": ""}
# {quick: (recipe, epochs)}.
_RUNS = {False: ("lb", 12), True: ("lb,iterations=1", 2)}


def main(argv: list[str]) -> int:
  """Runs both and tells what differs; 1 if bits had to be equal and are not."""
  folder, kind = Path(argv[0]), argv[1]
  recipe, epochs = run = _RUNS["--quick" in argv]
  straight, resumed = folder / f"{kind}-straight", folder / f"{kind}-resumed"
  side = _start(folder, straight, kind, *run)
  try:
    stopped = _stop_early(_start(folder, resumed, kind, *run), resumed)
    code = _start(folder, resumed, kind, *run).wait()
  finally:
    code_straight = side.wait()
  if code or code_straight:
    sys.stderr.write(f"a run ended with {code or code_straight}\n")
    return 1
  os.environ["JAX_PLATFORMS"] = "cpu"  # Arrays are only compared.
  found = differences(straight, resumed)
  say(
    kind, flags=FLAGS[kind], recipe=recipe, epochs=epochs, stopped=stopped,
    equal=not found, differences=found[:20],
  )  # fmt: skip
  if not stopped:
    sys.stderr.write("the run had ended before it was stopped\n")
  elif found and kind == "deterministic":
    sys.stderr.write(f"not the same bits: {found[0]}\n")
  return int(not stopped or bool(found and kind == "deterministic"))


def _start(folder: Path, work: Path, kind: str, recipe: str, epochs: int):
  flags = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS[kind]}".strip()
  environment = {
    **os.environ,
    "XLA_FLAGS": flags,
    "JAX_ENABLE_COMPILATION_CACHE": str(recipe != _RUNS[False][0]).lower(),
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # Two share the device.
  }
  command = [
    sys.executable, "launch.py",
    f"--config=configs/openmoji.py:{recipe},epochs={epochs}",
    f"--workdir={work}", f"--config.data.dir={folder / 'data'}",
    "--config.report=off",
  ]  # fmt: skip
  return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)


def _stop_early(process: subprocess.Popen, work: Path) -> bool:
  """Stops a run that has logged a step; whether it stopped before its end."""
  lines = work / "metrics.jsonl"
  while process.poll() is None:
    if lines.exists() and lines.stat().st_size:
      process.send_signal(signal.SIGTERM)
      process.wait()
    time.sleep(0.005)
  return not (work / "results.json").exists()


def differences(one: Path, other: Path) -> list[str]:
  """What is not the same in two work directories, a line each."""
  found = []
  lines = [_lines(work) for work in (one, other)]
  if len(lines[0]) != len(lines[1]):
    found.append(f"{len(lines[0])} lines of metrics, and {len(lines[1])}")
  for a, b in zip(*lines, strict=False):
    for key in sorted({*a, *b}):
      if a.get(key) != b.get(key):
        where = f"step {a.get('step')}, {key}"
        found.append(f"{where}: {a.get(key)}, and {b.get(key)}")
  results = [_untimed(json.loads((w / "results.json").read_text()))
             for w in (one, other)]  # fmt: skip
  if results[0] != results[1]:
    found.append("results.json")
  return found + _arrays_differ(one, other)


def _lines(work: Path) -> list[dict[str, Any]]:
  text = (work / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def _untimed(results: dict[str, Any]) -> dict[str, Any]:
  return {k: v for k, v in results.items() if k != "timing"}


def _arrays_differ(one: Path, other: Path) -> list[str]:
  """Arrays of the last checkpoints whose bytes differ."""
  import jax

  from dmg_jax.training import checkpoint

  last = [max(checkpoint.saved(w)) for w in (one, other)]
  if last[0] != last[1]:
    return [f"last checkpoint: {last[0]}, and {last[1]}"]
  trees = [
    checkpoint.arrays(w / checkpoint.FOLDER / str(last[0]) / "default")
    for w in (one, other)
  ]
  rows = [jax.tree_util.tree_leaves_with_path(t) for t in trees]
  found = []
  for (path, x), (_, y) in zip(*rows, strict=True):
    a, b = np.asarray(x), np.asarray(y)
    if a.tobytes() != b.tobytes():
      most = np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))
      name = jax.tree_util.keystr(path)
      found.append(f"checkpoint {last[0]}, {name}: by {most:.2g} at most")
  return found


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
