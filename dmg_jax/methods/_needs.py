"""Checks that a fusion provides what a method needs."""

from __future__ import annotations

import jax

from dmg_jax.errors import InputError, UnsuitableError
from dmg_jax.types import SHARED, Problem


def extra(problem: Problem, name: str, method: str, fusion: str) -> None:
  """Raises ``ValueError`` unless the fusion has the extra output ``name``."""
  if name not in problem.outputs.extra:
    raise InputError(
      f"{method} needs a fusion with the extra output {name!r}, which this one "
      f"lacks: use fusion={fusion}"
    )


def independent_readout(problem: Problem, method: str) -> None:
  """Raises ``ValueError`` if a unimodal loss reaches another encoder."""
  if "exchanges" in problem.outputs.extra:
    raise InputError(
      f"{method} needs encoders that do not exchange information, so that the "
      "loss of a modality trains only its own encoder: use fusion=own_heads, "
      "concat or sum"
    )


def nothing_shared(problem: Problem, method: str) -> None:
  """Raises ``InputError`` if modalities have weights in common."""
  shared = SHARED in jax.tree.leaves(problem.owner)
  if len(problem.modalities) > 1 and shared:
    raise InputError(
      f"{method} needs a separate head for each modality: use fusion=sum"
    )


def trained(problem: Problem, method: str, why: str, *modalities: str) -> None:
  """Raises ``UnsuitableError`` if an encoder is frozen that must be trained.

  Args:
    problem: the model.
    method: its name.
    why: what it does with the weights of the encoder, as "resets".
    modalities: of the encoders that it needs; all of them by default.
  """
  for m in modalities or problem.modalities:
    if m in problem.frozen:
      raise UnsuitableError(
        f"{method} {why} the encoder of {m!r}, which is frozen: set its frozen "
        "to false, or choose another recipe"
      )
