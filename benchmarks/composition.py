"""What works with what, found by trying: ``docs/composition.md``.

python benchmarks/composition.py [--all]

traces a step of every method on a toy problem with every fusion and under every
condition, and writes which of them are refused: those that the page lacks, or
all. The contract tests try refusals and the usual fusions again, and check the
numbers of those that work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "composition.md"
WORKS, REFUSED = "✓", "–"
Marks = Mapping[str, Mapping[str, bool]]


def fits(rule: str, fusion: str, modalities: int = 2, **options: Any) -> bool:
  """Whether a method traces with a fusion; False if it refuses by name."""
  import jax

  import toys
  from dmg_jax.errors import InputError

  try:
    run = toys.Run(toys.make_method(rule), modalities, fusion, **options)
    state = jax.eval_shape(run.fresh)
  except InputError:
    return False
  batch = toys.batch(modalities)
  jax.eval_shape(run.step, state, batch)
  if run.outer is not None:
    jax.eval_shape(run.outer, state, batch, batch)
  return True


def _own(rule: str, modalities: int = 2, **options: Any) -> bool:
  import toys

  fusion = toys.fusion_of(rule)
  return fits(rule, fusion.pop("fusion"), modalities, **fusion, **options)


def _missing(rule: str) -> bool:
  import jax.numpy as jnp

  there = jnp.array([1, 1, 0, 1, 1, 1, 0, 1], jnp.float32)
  return _step(rule, lambda batch: batch.replace(present={"text": there}))


def _devices(rule: str) -> bool:
  from dmg_jax.training import sharding

  mesh = sharding.make_mesh(2)
  return _step(rule, sharding.make_place(mesh))


def _seeds(rule: str) -> bool:
  import jax
  import jax.numpy as jnp

  import toys
  from dmg_jax.training import steps

  run = toys.Run(toys.make_method(rule), 2, **toys.fusion_of(rule))
  step = steps.make_train_step(run.problem, run.method, run.apply, True)
  state, batch = jax.eval_shape(
    lambda: jax.tree.map(
      lambda x: jnp.stack([x, x]), (run.fresh(), toys.batch(2))
    )
  )
  jax.eval_shape(step, state, batch, jnp.arange(2, dtype=jnp.int32))
  return True


def _step(rule: str, change: Callable[[Any], Any]) -> bool:
  import jax

  import toys

  run = toys.Run(toys.make_method(rule), 2, **toys.fusion_of(rule))
  state, batch = jax.eval_shape(run.fresh), change(toys.batch(2))
  jax.eval_shape(run.step, state, batch)
  return True


# What the contract tests try again for every method, by tracing it.
REFUSABLE = ("one modality", "three", "seeds at once", "frozen encoder")
# {condition: (its trial, the contract tests that check its numbers)}
CONDITIONS: dict[str, tuple[Callable[[str], bool], str]] = {
  "one modality": (lambda r: _own(r, 1), "test_methods"),
  "three": (lambda r: _own(r, 3), "test_methods"),
  "missing modalities": (_missing, "test_missing"),
  "several devices": (_devices, "test_divided"),
  "seeds at once": (_seeds, "test_composition"),
  "frozen encoder": (lambda r: _own(r, frozen=("text",)), "test_frozen"),
}


def by_fusion(rules: Iterable[str], fusions: list[str], known: Marks) -> Marks:
  """{method: {fusion: whether they work together}}; the known are not tried."""
  return {
    r: {f: known.get(r, {}).get(f) or fits(r, f) for f in fusions}
    for r in rules
  }


def by_condition(rules: Iterable[str], known: Marks) -> Marks:
  """{method: {condition: whether it works with the method's own fusion}}."""
  return {
    r: {
      name: known.get(r, {}).get(name) or trial(r)
      for name, (trial, _) in CONDITIONS.items()
    }
    for r in rules
  }


def by_encoder() -> dict[str, str]:
  """{encoder: the kinds of input that it reads}."""
  from dmg_jax.model import registry

  return {
    name: ", ".join(registry.encoder_class(name).kinds)
    for name in registry.encoders()
  }


def table(first: str, marks: Marks) -> str:
  """The marks as Markdown."""
  columns = list(next(iter(marks.values())))
  lines = [f"| {first} | {' | '.join(columns)} |"]
  lines.append("|---" * (len(columns) + 1) + "|")
  lines += [
    f"| `{name}` | "
    + " | ".join(WORKS if row[c] else REFUSED for c in columns)
    + " |"
    for name, row in marks.items()
  ]
  return "\n".join(lines)


def recorded(text: str) -> dict[str, dict[str, bool]]:
  """{method: {fusion or condition: mark}} of a page."""
  found: dict[str, dict[str, bool]] = {}
  head: list[str] = []
  for line in text.splitlines():
    cells = [c.strip() for c in line.strip("|").split("|")]
    if cells[0] == "method":
      head = cells[1:]
    elif not line.startswith("|"):
      head = []
    elif head and not cells[0].startswith("---"):
      row = dict(zip(head, cells[1:], strict=True))
      own = found.setdefault(cells[0].strip("`"), {})
      own.update({k: v == WORKS for k, v in row.items()})
  return found


_INTRODUCTION = f"""\
A method works with any fusion that gives it what it needs, and refuses the
others by name before training. {WORKS} works, {REFUSED} is refused. Choose a
fusion by `lb,fusion=own_heads`. Options of methods are their defaults.

Made by `python benchmarks/composition.py`, which tries each of them; do not
edit. The contract tests try refusals and the usual fusions again."""


def page(fusions: Marks, conditions: Marks) -> str:
  """All of ``docs/composition.md``."""
  names = sorted({test for _, test in CONDITIONS.values()})
  tests = ", ".join(f"`{name}`" for name in names)
  encoders = [f"| `{name}` | {own} |" for name, own in by_encoder().items()]
  parts = [
    "# What works with what",
    _INTRODUCTION,
    "## Methods and fusions",
    table("method", fusions),
    "## Methods and conditions",
    "With the fusion of the method's recipe. Numbers are checked by "
    f"`tests/contract/` ({tests}): a missing input has no influence, several "
    "devices give the numbers of one, a frozen encoder stays as it is.",
    table("method", conditions),
    "## Encoders",
    "Every fusion and method takes any encoder. What differs is the input:",
    "\n".join(["| encoder | inputs |", "|---|---|", *encoders]),
  ]
  return "\n\n".join(parts) + "\n"


def main(arguments: list[str]) -> int:
  """Tries what the page lacks, or everything, and writes the page."""
  from dmg_jax.model import registry

  known: Marks = {}
  if DOCS.exists() and "--all" not in arguments:
    known = recorded(DOCS.read_text(encoding="utf-8"))
  rules, fusions = registry.known("methods"), list(registry.known("fusion"))
  made = page(by_fusion(rules, fusions, known), by_condition(rules, known))
  DOCS.write_text(made, encoding="utf-8")
  return 0


if __name__ == "__main__":
  os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
  sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]
  sys.exit(main(sys.argv[1:]))
