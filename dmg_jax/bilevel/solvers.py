"""What a solver is, and how to name one."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import PyTree

from dmg_jax.bilevel.curvature import Operator
from dmg_jax.bilevel.info import HypergradientInfo
from dmg_jax.bilevel.krylov import GMRES, ConjugateGradient
from dmg_jax.bilevel.lowrank import Dense, Nystrom
from dmg_jax.bilevel.neumann import Identity, Neumann
from dmg_jax.errors import unknown


@runtime_checkable
class Solver(Protocol):
  """Solves ``H q = v`` from products with ``H``.

  Attributes:
    fresh: whether product ``i`` may use a batch of its own. Otherwise the
      operator it is given is the mean over all batches.
  """

  fresh: ClassVar[bool]

  def solve(
    self, operator: Operator, v: PyTree, q0: PyTree | None = None
  ) -> HypergradientInfo:
    """The solution (``info.q``) and how well it solves."""
    ...


SOLVERS: dict[str, type] = {
  "identity": Identity,
  "neumann": Neumann,
  "cg": ConjugateGradient,
  "gmres": GMRES,
  "nystrom": Nystrom,
  "dense": Dense,
}


def solver_by_name(name: str, **kwargs: Any) -> Solver:
  """A solver from its name and keyword arguments, as a config gives them.

  Args:
    name: one of ``identity``, ``neumann``, ``cg``, ``gmres``, ``nystrom``,
      ``dense``.
    **kwargs: fields of that solver.

  Raises:
    ValueError: the name or a keyword is not known; the message lists the valid
      ones and the closest.
  """
  if name not in SOLVERS:
    raise unknown("solver", name, list(SOLVERS))
  kind = SOLVERS[name]
  fields = [field.name for field in dataclasses.fields(kind)]
  for keyword in kwargs:
    if keyword not in fields:
      raise unknown(f"keyword of solver {name!r}:", keyword, fields)
  return kind(**kwargs)
