"""Runs stages one after another, each in a process and under a time limit.

This file and those that it imports need nothing but Python: whatever is broken
on a machine, the page says so. It never asks JAX for the device, whose memory
belongs to the stage that runs.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.accelerator import says

ROOT = Path(__file__).resolve().parents[2]
OK, FAILED, LATE, SKIPPED = "ok", "failed", "out of time", "not run"
_GRACE = 3.0  # Seconds between the polite signal and the other one.


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of the whole.

  Attributes:
    name: of it, and of its log.
    command: arguments of Python.
    weight: its share of the time. What earlier ones leave over is shared, too.
    environment: variables for it.
    reason: why it is not run; empty if it is.
  """

  name: str
  command: Sequence[str]
  weight: float
  environment: dict[str, str] = dataclasses.field(default_factory=dict)
  reason: str = ""


def run_all(
  stages: Sequence[Stage], logs: Path, seconds: float
) -> list[dict[str, Any]]:
  """Runs every stage; none ends the others, and all end in time.

  Args:
    stages: in their order.
    logs: folder for what they print.
    seconds: that they have together.
  """
  end = time.monotonic() + seconds
  made = []
  for i, stage in enumerate(stages):
    if stage.reason:
      made.append(_result(stage, SKIPPED, 0.0, 0.0, stage.reason, []))
      continue
    left = end - time.monotonic()
    share = sum(s.weight for s in stages[i:] if not s.reason)
    limit = max(left * stage.weight / share - _GRACE, 0.0)
    sys.stderr.write(f"{stage.name}: at most {limit:.0f} s ... ")
    sys.stderr.flush()
    result = run(stage, logs, limit)
    made.append(result)
    sys.stderr.write(f"{result['status']}, {result['seconds']:.0f} s\n")
  return made


def run(stage: Stage, logs: Path, limit: float) -> dict[str, Any]:
  """Runs a stage and returns what it said, also if it did not end well."""
  logs.mkdir(parents=True, exist_ok=True)
  log = logs / f"{stage.name.replace(' ', '-')}.txt"
  begin = time.monotonic()
  with log.open("w") as out:
    process = subprocess.Popen(
      [sys.executable, *stage.command],
      cwd=ROOT,
      env=_environment(stage),
      stdout=out,
      stderr=subprocess.STDOUT,
      stdin=subprocess.DEVNULL,
      start_new_session=True,
    )
    try:
      code = process.wait(timeout=limit)
      status = FAILED if code else OK
    except subprocess.TimeoutExpired:
      status = LATE
    finally:
      _end(process)
  took = time.monotonic() - begin
  text = log.read_text(errors="replace")
  why = f"stopped after {limit:.0f} s" if status == LATE else ""
  if status == FAILED:
    why = _last_line(text) or f"exit code {process.returncode}"
  found = says.heard(text.splitlines(keepends=True))
  return _result(stage, status, took, limit, why, found)


def _environment(stage: Stage) -> dict[str, str]:
  path = os.pathsep.join(
    p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p
  )
  given = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **stage.environment}
  return {**os.environ, **given}


def _end(process: subprocess.Popen) -> None:
  """Ends a stage and all that it started: its process group."""
  for number in (signal.SIGTERM, signal.SIGKILL):
    try:
      os.killpg(process.pid, number)
    except ProcessLookupError:  # Nothing is left.
      break
    try:
      process.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
      continue
  process.wait()


def _last_line(text: str) -> str:
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  told = [line for line in lines if not line.startswith("#result")]
  return told[-1][:300] if told else ""


def _result(stage, status, took, limit, why, entries) -> dict[str, Any]:
  return {
    "stage": stage.name,
    "status": status,
    "seconds": round(took, 1),
    "limit": round(limit, 1),
    "why": why,
    "entries": entries,
  }
