"""What a method needs from the fusion, refused by name where it is missing."""

from __future__ import annotations

from dmg_jax.errors import InputError
from dmg_jax.types import Problem


def extra(problem: Problem, name: str, method: str, fusion: str) -> None:
  """Raises ``ValueError`` unless the fusion gives the extra output ``name``."""
  if name not in problem.outputs.extra:
    raise InputError(
      f"{method} needs a fusion that gives {name!r}, which this one does not: "
      f"use fusion={fusion}"
    )


def independent_readout(problem: Problem, method: str) -> None:
  """Raises unless each unimodal loss reaches its own encoder only."""
  if "exchanges" in problem.outputs.extra:
    raise InputError(
      f"{method} needs encoders that do not exchange anything, so that a "
      "modality's own loss trains its own encoder only: use fusion=own_heads, "
      "concat or sum"
    )
