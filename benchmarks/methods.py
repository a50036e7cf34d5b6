"""The table of all methods, made from the code: ``docs/methods.md``.

python benchmarks/methods.py [RECIPE ...]

compiles a training step of every recipe on OpenMoji's model, or of those named
and those that the page lacks, and writes the page. The site adds a section for
each recipe below the tables.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "methods.md"
SECTIONS = "<!-- methods: sections -->"  # Where the site puts them.
BASE, CASE, BATCH = "concat", "openmoji", 64
_HEADER = (
  "recipe", "category", "in one line", "step", "update of α", "M", "source",
)  # fmt: skip

# Recipe -> FLOPs of a step, and of an update of α, in steps of concat.
Flops = dict[str, tuple[float, float | None]]


class Row(NamedTuple):
  """A recipe and its aliases with the card that speaks for them."""

  names: tuple[str, ...]
  card: tuple[str, ...]
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


def by_fusion(row: Row) -> bool:
  """Whether it is joint training, so that the fusion is what is new."""
  return row.method == "joint" and row.fusion != BASE


def set_options(row: Row) -> dict[str, Any]:
  """The options of the method that the recipe sets itself."""
  from dmg_jax.config.recipes import RECIPES

  return dict(RECIPES[row.names[0]].options)


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


@functools.cache
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


def cost(flops: tuple[float, float | None]) -> tuple[str, str]:
  """``("1.02", "")``, or ``("1.00", "10.7")`` where α is learned."""
  step, update = flops
  return f"{step:.2f}", "" if update is None else f"{update:.1f}"


def table(flops: Flops) -> str:
  """All recipes with equation and cost, as Markdown."""
  lines = ["| " + " | ".join(_HEADER) + " |", "|---" * len(_HEADER) + "|"]
  for row in rows():
    category, equation, source, modalities = row.card
    first = row.names[0]
    names = ", ".join(
      [f"[`{first}`](#{first})", *(f"`{n}`" for n in row.names[1:])]
    )
    cells = (
      names, category, equation.replace("|", "\\|"), *cost(flops[first]),
      modalities, source,
    )  # fmt: skip
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines)


_INTRODUCTION = f"""\
A *recipe* is a name for a fusion, a training method and its options: a row of a
table. Choose one with `dmg_jax.fit(..., recipe="lb")` or
`--config=configs/openmoji.py:lb`; `dmg_jax.recipes()` returns this table as
data. A method works with any fusion that provides what it needs
(`lb,fusion=own_heads`) and refuses the others by name.

The columns *step* and *update of α* are costs: FLOPs of the compiled program
on OpenMoji's model at batch {BATCH}, divided by those of a training step of
`{BASE}`. α is updated once an epoch by default, so an update that costs 10.7
steps adds little to an epoch. It uses `train.inner_batch_size` samples of the
training batch (64) and `train.outer_batch_size` held-out samples (256, or all
if there are fewer). Passes over the data between epochs, teachers and probes
are not counted. M is the number of modalities.

`lb`, `lb_forward`, `auto` and `h_heads` train a head for each modality, predict
by the mean of the heads, and set w = 1 (`auto` learns it from there). The other
recipes for α follow the paper's objective: w = 0 on `concat` (`lb_concat`,
`h`). `faithful=true` is the official code where a method differs from it.

Made by `python benchmarks/methods.py` from the code; do not edit."""


def page(flops: Flops) -> str:
  """All of ``docs/methods.md``."""
  parts = [
    "# Methods",
    _INTRODUCTION,
    table(flops),
    "## Fusion, method and defaults of each recipe",
    "\n".join(_details()),
    "## Each recipe",
    "The site shows here, for each recipe, the equation, the options with "
    "their defaults and the numbered deviations from the source, as they stand "
    "in the docstrings of `dmg_jax/methods/` and `dmg_jax/model/fusion/`.",
    SECTIONS,
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
    name = re.match(r"\[`(\w+)`\]", cells[1]) if len(cells) == 9 else None
    if name:
      update = float(cells[5]) if cells[5] else None
      found[name[1]] = float(cells[4]), update
  return found


def main(chosen: list[str]) -> int:
  """Measures the chosen recipes, or all of them, and writes the page."""
  names = [row.names[0] for row in rows()]
  unknown = sorted(set(chosen) - set(names))
  if unknown:
    sys.stderr.write(f"no recipe {unknown[0]!r}: choose from {names}\n")
    return 1
  known = recorded(DOCS.read_text(encoding="utf-8")) if chosen else {}
  flops = {n: known[n] for n in names if n in known and n not in chosen}
  rest = [n for n in names if n not in flops]
  flops |= measure(rest, lambda text: sys.stderr.write(f"{text} ...\n"))
  DOCS.write_text(page(flops), encoding="utf-8")
  return 0


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  sys.exit(main(sys.argv[1:]))
