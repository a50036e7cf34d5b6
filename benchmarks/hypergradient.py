"""Cost of Hessian-vector products and hypergradients, in gradients."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from benchmarks import cases, measure
from dmg_jax.bilevel import ConjugateGradient, Neumann, hypergradient, loops
from dmg_jax.bilevel.solvers import Solver

NAME = "hypergradient"
BASE = "gradient"
TERM = "one more term"
_STEP = 0.05  # Arbitrary: the cost of a term does not depend on it.
_LOOPS = {True: "unrolled", False: "loop"}


class Variant(NamedTuple):
  """A solver, its kind of matrix product, and whether its loop is unrolled."""

  solver: Solver
  matvec: str = "linearize"
  unroll: bool | None = None

  @property
  def name(self) -> str:
    """Name in the results; default options are left out."""
    if isinstance(self.solver, Neumann):
      words = [f"neumann K={self.solver.terms}"]
      words += ["step given"] if self.solver.step_size == _STEP else []
    else:
      words = [f"cg K={cast(ConjugateGradient, self.solver).iterations}"]
    words += ["jvp"] if self.matvec == "jvp" else []
    words += [] if self.unroll is None else [_LOOPS[self.unroll]]
    return ", ".join(words)

  @property
  def loops(self) -> bool:
    """Whether the compiled program has a loop over the products."""
    if self.unroll is None and self.matvec == "jvp":
      return True
    return not loops.unrolled(5, self.unroll)


def variants(quick: bool) -> list[Variant]:
  """The variants that are measured."""
  if quick:
    return [Variant(Neumann(1)), Variant(Neumann(2))]
  series = [
    Variant(Neumann(k, step)) for step in ("auto", _STEP) for k in (1, 3, 5, 10)
  ]
  other = loops.unrolled(5, None)  # True on a CPU, where the other is a loop.
  return [
    *series,
    Variant(Neumann(5), unroll=not other),
    Variant(Neumann(5), "jvp"),
    Variant(Neumann(5), "jvp", unroll=True),
    Variant(ConjugateGradient(5)),
  ]


def programs(
  case: cases.Case, size: int, wanted: list[Variant]
) -> dict[str, Callable]:
  """{name: function of (params, α, direction)} for one batch size."""
  inner, outer = case.objectives(size)

  def gradient(params, alpha, _):
    return jax.grad(inner)(params, alpha)

  def product(params, alpha, direction):
    def slope(p):
      return jax.grad(inner)(p, alpha)

    return jax.jvp(slope, (params,), (direction,))[1]

  def learned(variant: Variant, params, alpha, _):
    value, info = hypergradient(
      inner, outer, params, alpha, **variant._asdict()
    )
    return value, info.replace(q=())  # Not needed, so its memory is freed.

  made = {BASE: gradient, "hvp": product}
  return made | {v.name: functools.partial(learned, v) for v in wanted}


def measure_case(name: str, quick: bool, rounds: int) -> list[measure.Entry]:
  """Time, FLOPs and memory of all variants on one model."""
  case = cases.make(name)
  wanted = variants(quick)
  looped = {v.name: v.loops for v in wanted}
  size = 16 if quick else case.batch_size
  direction = jax.tree.map(jnp.ones_like, case.params)
  arguments = case.params, jnp.float32(0.5), direction
  calls, costs = {}, {}
  for label, function in programs(case, size, wanted).items():
    program = measure.compiled(function, *arguments)
    costs[label] = measure.cost(program, looped.get(label, False))
    calls[label] = functools.partial(program, *arguments)
  samples = measure.interleaved(calls, rounds)
  made = measure.entries(NAME, name, BASE, samples, costs)
  return [*made, _slope(name, wanted, samples, costs)]


def _slope(name, wanted, samples, costs) -> measure.Entry:
  """Cost of one more term, from the shortest and the longest series."""
  series = [
    v
    for v in wanted
    if isinstance(v.solver, Neumann)
    and v.solver.step_size == "auto"
    and v.matvec == "linearize"
    and v.unroll is None
  ]
  low = min(series, key=lambda v: v.solver.terms)
  high = max(series, key=lambda v: v.solver.terms)
  terms = high.solver.terms - low.solver.terms
  short, long = costs[low.name], costs[high.name]
  flops = {k: (long[k] - short[k]) / terms for k in short if k == "flops"}
  seconds = [
    (b - a) / terms
    for a, b in zip(samples[low.name], samples[high.name], strict=True)
  ]
  found = measure.entries(
    NAME,
    name,
    BASE,
    {BASE: samples[BASE], TERM: seconds},
    {BASE: costs[BASE], TERM: flops},
  )
  return next(e for e in found if e.name == TERM)


def run(quick: bool, models: list[str]) -> list[measure.Entry]:
  """Runs this benchmark and returns its entries."""
  rounds = 3 if quick else 15
  return [e for m in models for e in measure_case(m, quick, rounds)]
