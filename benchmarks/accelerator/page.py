"""The results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.accelerator import plan, stages

_GIB = 2**30


def page(result: dict[str, Any]) -> str:
  """The whole page.

  Args:
    result: as the JSON file holds it.
  """
  found = {stage["stage"]: stage for stage in result["stages"]}
  parts = [
    _head(result, found),
    _stages(result["stages"]),
    _tests(found),
    _resumed(found),
    _main_job(found),
    _loaders(found),
    _training(found, result["quick"]),
    _hypergradients(found),
  ]
  return "\n\n".join(p for p in parts if p) + "\n"


def _head(result: dict[str, Any], found: dict[str, Any]) -> str:
  device = _entry(found, "device", "device")
  lines = [
    "# What this accelerator shows",
    "",
    "Made by `bash benchmarks/accelerator.sh"
    f"{' --quick' if result['quick'] else ''}` in {result['seconds']:.0f} s.",
    "",
    *(_about(found, device) if device else ["JAX could not tell the device."]),
  ]
  if device.get("platform") == "cpu":
    lines += ["", "**There was no accelerator.** No figure here is of one."]
  if result["quick"]:
    lines += ["", "**Tiny sizes (`--quick`).** Figures show that it works."]
  if result["missing"]:
    lines += ["", f"{result['missing']}."]
  return "\n".join(lines)


def _about(found: dict[str, Any], device: dict[str, Any]) -> list[str]:
  about = _entry(found, "device", "environment")
  versions = about.get("versions", {})
  packages = ", ".join(f"{k} {v}" for k, v in versions.items())
  product = {
    p: _entry(found, "device", f"matrix product {p}").get("tflops")
    for p in plan.PRECISIONS
  }
  lines = [
    f"- Device: {device['kind']} ({device['platform']}), memory "
    f"{_gib(device['memory'])}, driver {device['driver'] or 'not told'}.",
    f"- A product of large matrices: {_number(product['bf16'])} TFLOP/s in "
    f"bf16, {_number(product['float32'])} in float32 "
    f"(`jax_default_matmul_precision`: {device['matmul_precision']}).",
  ]
  if about:
    lines.append(
      f"- {packages}; Python {about['python']}; revision {about['git']}; "
      f"{about['time']}."
    )
  return lines


def _stages(found: Sequence[dict[str, Any]]) -> str:
  bad = [s for s in found if s["status"] in (stages.FAILED, stages.LATE)]
  if bad:
    told = "\n".join(
      f"- **{s['stage']}**: {s['status']}. {s['why']}" for s in bad
    )
  else:
    told = "Nothing failed."
  rows = [(s["stage"], s["status"], s["seconds"], s["limit"], _plain(s["why"]))
          for s in found]  # fmt: skip
  return f"## What failed\n\n{told}\n\n## Stages\n\n" + _table(
    ("stage", "", "s", "at most, s", "why"), rows
  )


def _tests(found: dict[str, Any]) -> str:
  rows, failures = [], []
  for name in ("tests, float32 products", "tests, TF32 products"):
    entry = _entry(found, name, "tests")
    if entry:
      rows.append((name, entry["passed"], entry["failed"], entry["skipped"]))
      failures += [
        f"- {name}: `{f['test']}`: {_plain(f['why'])}"
        for f in entry["failures"]
      ]
  if not rows:
    return ""
  text = (
    "## Parity and bilevel tests\n\nFloat64 keeps the tolerances of a CPU. "
    "Least tolerances of float32, of a number and of the largest of its "
    "array: 1e-4 with float32 products, 1e-2 with TF32 "
    "(`tests/support/device.py`).\n\n"
  )
  text += _table(("", "passed", "failed", "skipped"), rows)
  return text + ("\n\n" + "\n".join(failures) if failures else "")


def _resumed(found: dict[str, Any]) -> str:
  lines = []
  for kind in ("deterministic", "usual"):
    entry = _entry(found, f"resumed, {kind} flags", kind)
    if entry:
      flags = f"`{entry['flags']}`" if entry["flags"] else "no flags"
      same = "the same bits" if entry["equal"] else "other bits"
      lines.append(
        f"- With {flags}: {same} ({entry['recipe']}, {entry['epochs']} epochs)."
      )
      lines += [f"  - {line}" for line in entry["differences"]]
  if not lines:
    return ""
  return "## A run stopped and resumed, beside a straight one\n\n" + "\n".join(
    lines
  )


def _main_job(found: dict[str, Any]) -> str:
  stage = found.get("main job")
  if not stage or stage["status"] == stages.SKIPPED:
    return ""
  return (
    "## The main job\n\n`python launch.py --config=configs/openmoji.py:lb`: "
    f"{stage['status']}, {stage['seconds']} s from start to end."
  )


def _loaders(found: dict[str, Any]) -> str:
  entries = found.get("loaders", {}).get("entries", [])
  if not entries:
    return ""
  rows = [(e["name"], _number(e["samples_per_second"])) for e in entries]
  return "## Loaders\n\n" + _table(("way", "samples/s"), rows)


def _training(found: dict[str, Any], quick: bool) -> str:
  rows = []
  for name, precision in _models():
    e = _entry(found, f"training, {name}, {precision}", "training")
    if not e:
      continue
    beside = _entry(found, f"torch, {name}, {precision}", "torch")
    # Quickly, the models are not the same.
    fair = bool(beside) and not quick
    ratio = e["seconds"] / beside["seconds"] if fair else None
    rows.append((
      name, precision, e["batch"], _number(1e3 * e["seconds"]),
      _number(e["samples_per_second"]), _tera(e.get("flops")),
      _tera(e["claimed_flops"]), _number(e.get("tflops")),
      _percent(e.get("mfu")), _gib(e["peak_bytes"]),
      _gib(e.get("planned_bytes")), e["claimed_memory"],
      _number(ratio),
    ))  # fmt: skip
  if not rows:
    return ""
  head = (
    "config", "precision", "batch", "ms", "samples/s", "TFLOP",
    "config's claim", "TFLOP/s", "MFU", "peak memory", "as compiled",
    "config's claim", "ours / torch",
  )  # fmt: skip
  return (
    "## Training steps of `lb`\n\nRandom inputs and weights. MFU is by "
    "the lower of both counts of FLOPs, of the data sheet's dense peak: bf16, "
    "and TF32 for float32 (`benchmarks/accelerator/peaks.py`, or "
    "`--peak`). Peak memory is the device's own count; as "
    "compiled, what XLA planned with. torch's step is "
    "without the matching loss.\n\n" + _table(head, rows)
  )


def _hypergradients(found: dict[str, Any]) -> str:
  rows = []
  for name, precision in _models():
    stage = found.get(f"hypergradient, {name}, {precision}", {})
    for e in stage.get("entries", []):
      rows.append((
        name, precision, e["name"], e["batch"], _number(1e3 * e["seconds"]),
        _number(e.get("ratio")), _gib(e.get("planned_bytes")),
        _gib(e.get("peak_bytes")),
      ))  # fmt: skip
  if not rows:
    return ""
  head = (
    "config", "precision", "", "inner batch", "ms", "× gradient",
    "memory as compiled", "peak memory",
  )  # fmt: skip
  return "## Hypergradients\n\n" + _table(head, rows)


def _models() -> Iterable[tuple[str, str]]:
  return [(name, p) for name in plan.NAMES for p in plan.PRECISIONS]


def _entry(found: dict[str, Any], stage: str, name: str) -> dict[str, Any]:
  for entry in found.get(stage, {}).get("entries", []):
    if entry["name"] == name:
      return entry
  return {}


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(map(str, r)) + " |" for r in lines)


def _plain(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")


def _number(x: float | None) -> str:
  return "" if x is None else f"{x:.3g}" if abs(x) < 1e3 else f"{x:,.0f}"


def _tera(x: float | None) -> str:
  return "" if x is None else _number(x / 1e12)


def _percent(x: float | None) -> str:
  return "" if x is None else f"{100 * x:.1f} %"


def _gib(x: float | None) -> str:
  return "not told" if x is None else f"{x / _GIB:.3g} GiB"
