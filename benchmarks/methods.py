"""The table of all methods, made from the code: ``docs/methods.md``, README.

python benchmarks/methods.py

compiles a training step of every recipe on OpenMoji's model and writes both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).resolve().parent.parent
DOCS, README = _ROOT / "docs" / "methods.md", _ROOT / "README.md"
BEGIN, END = "<!-- methods: begin -->", "<!-- methods: end -->"
BASE, CASE, BATCH = "concat", "openmoji", 64
_HEADER = ("recipe", "category", "in one line", "FLOPs", "M", "source")

# Recipe -> FLOPs of a step, and of an update of α, in steps of concat.
Flops = dict[str, tuple[float, float | None]]


class Row(NamedTuple):
  """A recipe and its aliases with the card that speaks for them."""

  names: tuple[str, ...]
  card: tuple[str, str, str, str]
  fusion: str
  readout: str
  method: str
  defaults: str


def rows() -> list[Row]:
  """One for each different recipe, in their order."""
  import dmg_jax  # Late: a script sets the path first.

  return [
    Row(
      (r.name, *r.aliases),
      (r.category, r.equation, r.source, r.modalities),
      r.fusion,
      r.readout,
      r.method,
      r.defaults,
    )
    for r in dmg_jax.recipes()
  ]


def measure(names: Iterable[str], say: Callable = lambda text: None) -> Flops:
  """FLOPs of each recipe relative to ``BASE``, as compiled for this device."""
  base = _step(BASE)
  found: Flops = {}
  for name in names:
    say(name)
    update = _update(name)
    outer = None if update is None else update / base
    found[name] = _step(name) / base, outer
  return found


def _case(name: str):
  from benchmarks import cases

  return cases.make(CASE, "lb,iterations=5" if name == "lb" else name)


def _step(name: str) -> float:
  from benchmarks import measure as tools

  case = _case(name)
  args = case.state(), case.batch(BATCH)
  program = tools.compiled(case.train_step(), *args, analysis_only=True)
  return tools.cost(program)["flops"]


def _update(name: str) -> float | None:
  from benchmarks import measure as tools

  case = _case(name)
  if case.method.outer_step is None:
    return None
  batch = case.batch(BATCH)
  args = case.state(), batch, batch
  program = tools.compiled(case.outer_step(), *args, analysis_only=True)
  return tools.cost(program)["flops"]


def cost(flops: tuple[float, float | None]) -> str:
  """``1.02``, or ``1.00 + 4.30 an update``."""
  step, update = flops
  return f"{step:.2f}" + ("" if update is None else f" + {update:.1f}/α")


def table(flops: Flops) -> str:
  """The table of README, Markdown."""
  lines = ["| " + " | ".join(_HEADER) + " |", "|---" * len(_HEADER) + "|"]
  for row in rows():
    category, equation, source, modalities = row.card
    names = ", ".join(f"`{n}`" for n in row.names)
    cells = (
      names, category, equation.replace("|", "\\|"),
      cost(flops[row.names[0]]), modalities, source,
    )  # fmt: skip
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


def page(flops: Flops) -> str:
  """All of ``docs/methods.md``."""
  parts = [
    "# Methods",
    "Made by `python benchmarks/methods.py` from the code; do not edit.",
    f"FLOPs are those of a compiled training step on OpenMoji's model at batch "
    f"{BATCH}, in steps of `{BASE}` (CPU; what a compiler makes of programs "
    "without loops is the same on every machine); `+ x/α` is an update of α, "
    "made once an epoch by default. Passes over the data between epochs, "
    "teachers and probes come on top. M is the number of modalities.",
    table(flops),
    "## Fusion, method and defaults of each recipe",
    "\n".join(_details()),
  ]
  return "\n\n".join(parts) + "\n"


def _details() -> Iterable[str]:
  yield "| recipe | fusion (read-out) | method | defaults after |"
  yield "|---|---|---|---|"
  for row in rows():
    names = ", ".join(f"`{n}`" for n in row.names)
    fusion = f"`{row.fusion}` ({row.readout})"
    yield f"| {names} | {fusion} | `{row.method}` | {row.defaults} |"


def recorded(text: str) -> Flops:
  """The FLOPs that a table has, by the first name of each row."""
  found: Flops = {}
  for line in text.splitlines():
    cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)]
    name = re.match(r"`(\w+)`", cells[1]) if len(cells) == 8 else None
    if name:
      step, _, update = cells[4].removesuffix("/α").partition(" + ")
      found[name[1]] = float(step), float(update) if update else None
  return found


def with_table(readme: str, flops: Flops) -> str:
  """README's text with the table between its marks."""
  before, rest = readme.split(BEGIN)
  after = rest.split(END)[1]
  return f"{before}{BEGIN}\n{table(flops)}\n{END}{after}"


def main() -> int:
  """Measures everything and writes both files."""
  names = [row.names[0] for row in rows()]
  flops = measure(names, lambda text: sys.stderr.write(f"{text} ...\n"))
  DOCS.write_text(page(flops), encoding="utf-8")
  readme = README.read_text(encoding="utf-8")
  README.write_text(with_table(readme, flops), encoding="utf-8")
  return 0


if __name__ == "__main__":
  sys.path.insert(0, str(_ROOT))
  sys.exit(main())
