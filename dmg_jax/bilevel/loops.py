"""Repeat a body a fixed number of times, unrolled or as one compiled loop.

In an unrolled loop the compiler sees that all products share one forward and
backward pass and computes it once; convolutions also stay out of loop bodies,
where the CPU backend is slow. The price is compile time. So only short loops
are unrolled, and only on CPU, unless the caller decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

Carry = TypeVar("Carry")

FEW = 10

LARGE = 10**7  # weights


def separate(weights: int) -> bool:
  """Whether products over so many weights are compiled one by one.

  So it is for many weights on CPU, whose compiler takes time that grows faster
  than the program.
  """
  return jax.default_backend() == "cpu" and weights > LARGE


def unrolled(length: int, unroll: bool | None) -> bool:
  """``unroll`` itself, or by default: at most ``FEW`` rounds, on CPU."""
  if unroll is None:
    return length <= FEW and jax.default_backend() == "cpu"
  return unroll


def repeat(
  body: Callable[..., Carry],
  carry: Carry,
  length: int,
  unroll: bool | None = None,
) -> Carry:
  """``carry = body(carry, i)`` for ``i`` in ``0 .. length - 1``."""
  if unrolled(length, unroll):
    for i in range(length):
      carry = body(carry, i)
    return carry
  return jax.lax.fori_loop(0, length, lambda i, c: body(c, i), carry)


def repeat_while(
  condition: Callable[..., jax.Array],
  body: Callable[..., Carry],
  carry: Carry,
  length: int,
  unroll: bool | None = None,
) -> Carry:
  """At most ``length`` rounds, while ``condition(carry)`` holds.

  ``body(carry)`` must leave its carry alone once the condition fails: an
  unrolled loop runs every round.
  """
  if unrolled(length, unroll):
    for _ in range(length):
      carry = body(carry)
    return carry

  def keep_on(state):
    i, inner = state
    return (i < length) & condition(inner)

  def round_(state):
    i, inner = state
    return i + 1, body(inner)

  return jax.lax.while_loop(keep_on, round_, (0, carry))[1]
