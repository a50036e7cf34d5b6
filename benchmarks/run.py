"""Runs the benchmarks; prints tables and writes JSON.

python benchmarks/run.py [--only=NAME,...] [--models=NAME,...] [--quick]
  [--out=FILE.json] [--data=DIR]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

SCHEMA = 1
NAMES = (
  "hypergradient", "training", "loading", "throughput", "startup", "opening",
  "freezing", "missing", "ragged", "compare", "small",
)  # fmt: skip
_ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("dmg_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def main(argv: list[str] | None = None) -> int:
  """Runs the benchmarks that the command line selects."""
  sys.path.insert(0, str(_ROOT))
  options = parse(argv)
  begin, before = time.monotonic(), _load()
  entries = []
  for name in options.only:
    sys.stderr.write(f"{name} ...\n")
    entries += _run(name, options)
  from benchmarks import goals

  met = goals.judge(entries, environment()["platform"])
  result = {
    "schema": SCHEMA,
    "quick": options.quick,
    "models": options.models,
    "environment": environment(),
    "load_average": {"before": before, "after": _load()},
    "seconds": time.monotonic() - begin,
    "entries": [entry.json() for entry in entries],
    "goals": met,
  }
  if options.out:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
  show(result)
  return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
  """Parses the command line; exits with the choices after an unknown name."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  split = lambda text: text.split(",")  # noqa: E731
  parser.add_argument("--only", type=split, default=list(NAMES))
  parser.add_argument("--models", type=split, help="default: by the device")
  parser.add_argument("--quick", action="store_true", help="a smoke test")
  parser.add_argument("--out", type=Path, help="file for the JSON")
  parser.add_argument("--data", type=Path, default=_ROOT / "data")
  options = parser.parse_args(argv)
  from benchmarks import cases

  options.models = options.models or _models(options.quick)
  for given, known in ((options.only, NAMES), (options.models, cases.CASES)):
    for name in given:
      if name not in known:
        parser.error(f"unknown name {name!r} (choose from {', '.join(known)})")
  return options


def _models(quick: bool) -> list[str]:
  import jax

  if quick:
    return ["openmoji"]
  on_cpu = jax.default_backend() == "cpu"
  return ["openmoji", "resnet" if on_cpu else "resnet-18"]


def _run(name: str, options: argparse.Namespace) -> list:
  file = {"compare": "beside.run"}.get(name, name)
  module = importlib.import_module(f"benchmarks.{file}")
  data = {} if name in NAMES[:2] else {"data": options.data}
  return module.run(options.quick, options.models, **data)


def _load() -> list[float] | None:
  return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def environment() -> dict[str, Any]:
  """Device, versions and revision of this run."""
  import jax

  from dmg_jax.training import run_folder

  device = jax.devices()[0]
  return {
    "platform": device.platform,
    "device": device.device_kind,
    "devices": jax.device_count(),
    "cpus": os.cpu_count(),
    "machine": platform.platform(),
    "python": platform.python_version(),
    "versions": {p: importlib.metadata.version(p) for p in _PACKAGES},
    "git": run_folder.revision(),
    "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
  }


def show(result: dict[str, Any]) -> None:
  """Prints the results as tables."""
  from rich.console import Console
  from rich.table import Table

  wide = None if sys.stdout.isatty() else 110
  console = Console(width=wide)
  groups: dict[tuple[str, str], list] = {}
  for entry in result["entries"]:
    groups.setdefault((entry["benchmark"], entry["case"]), []).append(entry)
  for title, entries in groups.items():
    rows = [_row(entry) for entry in entries]
    table = Table(title=": ".join(title))
    shown = [k for k in rows[0] if any(row[k] for row in rows)]
    for name in shown:
      table.add_column(name, no_wrap=True)
    for row in rows:
      table.add_row(*(row[name] for name in shown))
    console.print(table)
  _show_goals(result, console)
  where, load = result["environment"], result["load_average"]
  console.print(
    f"{where['devices']} × {where['device']}, {where['cpus']} CPUs, "
    f"load {load['before']}, revision {where['git']}"
  )


def _row(entry: dict[str, Any]) -> dict[str, str]:
  values, ratios = entry["values"], entry["ratios"]
  seconds = values.get("seconds", {}).get("median")
  spread = ratios.get("seconds", {})
  limits = [f"{spread[k]:.3g}" for k in ("min", "max") if k in spread]
  return {
    "": entry["name"],
    "seconds": _short(seconds),
    "× time": _short(spread.get("median")),
    "min–max": "–".join(limits),
    "× FLOPs": _short(ratios.get("flops")),
    "× memory": _short(ratios.get("temp_bytes")),
    "samples/s": _short(values.get("samples_per_second")),
  }


def _short(number: float | None) -> str:
  return "" if number is None else f"{number:.3g}"


def _show_goals(result: dict[str, Any], console: Any) -> None:
  from rich.table import Table

  table = Table("goal", "", "ratio of", "value", "bound", "", title="goals")
  for line in result["goals"]:
    table.add_row(
      str(line["goal"]),
      f"{line['case']}: {line['name']}",
      line["ratio"],
      _short(line["value"]),
      _short(line["bound"]),
      "met" if line["met"] else "MISSED",
    )
  if result["goals"]:
    console.print(table)


if __name__ == "__main__":
  sys.exit(main())
