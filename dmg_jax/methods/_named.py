"""Names and ranges of what the method ``auto`` can learn."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax

from dmg_jax.bilevel.vector import Range
from dmg_jax.errors import InputError, UnsuitableError, unknown
from dmg_jax.types import Problem

# What can be learned, and where.
RANGES = {
  "alpha": Range(0.0, 1.0),
  "unimodal": Range(0.01, 100.0, log=True),
  "temperature": Range(0.01, 1.0, log=True),
  "smoothing": Range(0.0, 0.5),
  "decay": Range(1e-7, 0.1, log=True),
}
WHOLE = ""  # The part of a kind that has one value.
# {kind: {part: value}}
Values = Mapping[str, Mapping[str, Any]]


def kinds_of(learn: str) -> tuple[str, ...]:
  """``alpha+decay`` as names, in the order of ``RANGES``.

  Raises:
    ValueError: an unknown name, one that comes twice, or none.
  """
  names = [x.strip() for x in learn.split("+")]
  for name in names:
    if name not in RANGES:
      raise unknown("name in learn", name, tuple(RANGES))
    if names.count(name) > 1:
      raise InputError(f"learn names {name!r} twice: {learn!r}")
  return tuple(k for k in RANGES if k in names)


def parts(problem: Problem) -> dict[str, tuple[str, ...]]:
  """{kind: its parts}, of each pair, modality or owner of weights."""
  names = problem.modalities
  pairs = tuple(f"{a}_{b}" for a, b in itertools.combinations(names, 2))
  return {
    "alpha": pairs,
    "unimodal": names,
    "temperature": (WHOLE,) if pairs else (),
    "smoothing": (WHOLE,),
    "decay": tuple(sorted(set(jax.tree.leaves(problem.owner)))),
  }


def chosen(
  problem: Problem, kinds: tuple[str, ...], start: Mapping[str, float]
) -> dict[str, dict[str, float]]:
  """{kind: {part: first value}} of what is learned.

  Raises:
    UnsuitableError: this model has no such weight.
  """
  there = parts(problem)
  found = {k: dict.fromkeys(there[k], start[k]) for k in kinds if there[k]}
  if not found:
    raise UnsuitableError(
      f"learn={'+'.join(kinds)} needs two modalities to match; with one, "
      "choose from unimodal, smoothing, decay"
    )
  return found


def named(values: Values) -> dict[str, Any]:
  """``{"alpha_image_text": value, "temperature": value, …}``."""
  return {
    f"{kind}_{part}" if part else kind: value
    for kind, own in values.items()
    for part, value in own.items()
  }


def names(values: Values) -> list[str]:
  """Those of ``named``, in the order of the leaves."""
  return [n for k in sorted(values) for n in sorted(named({k: values[k]}))]
