"""All stages within ten minutes; a JSON file and a page.

bash benchmarks/accelerator.sh [--quick] [--wheels=FOLDER] [--out=FOLDER]
  [--peak=TFLOPS] [--seconds=600]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.accelerator import needs, page, plan, stages

SCHEMA = 1
_OUT = stages.ROOT / "benchmarks" / "out" / "accelerator"
_WRITING = 10.0  # Seconds that are kept for the end.


def main(argv: list[str] | None = None) -> int:
  """Runs the stages; 1 if one failed or ran out of time."""
  options = parse(argv)
  out = options.out.resolve()
  out.mkdir(parents=True, exist_ok=True)
  begin = time.monotonic() - options.spent
  # Figures are of one device: batches need not be shared, and MFU is its own.
  os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
  missing = needs.line()
  if missing:
    sys.stderr.write(f"{missing}\n")
  end = begin + options.seconds - _WRITING
  found = _run(options, out, end)
  result = {
    "schema": SCHEMA,
    "quick": options.quick,
    "missing": missing,
    "seconds": round(time.monotonic() - begin, 1),
    "stages": found,
  }
  _write(out / "accelerator.json", json.dumps(result, indent=1) + "\n")
  _write(out / "accelerator.md", page.page(result))
  sys.stderr.write(f"{out / 'accelerator.json'}\n{out / 'accelerator.md'}\n")
  bad = [s for s in found if s["status"] in (stages.FAILED, stages.LATE)]
  for stage in bad:
    sys.stderr.write(f"{stage['stage']}: {stage['status']}: {stage['why']}\n")
  return int(bool(bad))


def _run(options, out: Path, end: float) -> list[dict[str, Any]]:
  """The device first: what comes after depends on it."""
  first, logs = plan.facts(options.quick), out / "logs"
  found = [stages.run(first, logs, min(60.0, end - time.monotonic()))]
  entries = {e["name"]: e for e in found[0]["entries"]}
  platform = entries.get("device", {}).get("platform", "")
  rest = plan.stages(platform, options.quick, options.peak, out)
  return found + stages.run_all(rest, logs, end - time.monotonic())


def parse(argv: list[str] | None) -> argparse.Namespace:
  """Parses the command line."""
  parser = argparse.ArgumentParser(
    prog="accelerator.sh", description=__doc__.split("\n")[0]
  )
  parser.add_argument("--quick", action="store_true", help="tiny sizes")
  parser.add_argument("--out", type=Path, default=_OUT)
  parser.add_argument(
    "--peak", type=float, help="the device's TFLOP/s in bf16, dense"
  )
  parser.add_argument("--seconds", type=float, default=600.0)
  parser.add_argument("--spent", type=float, default=0.0, help="of them")
  return parser.parse_args(argv)


def _write(path: Path, text: str) -> None:
  """Whole or not at all."""
  part = path.with_name(f"{path.name}.part")
  part.write_text(text, encoding="utf-8")
  part.replace(path)


if __name__ == "__main__":
  sys.exit(main())
