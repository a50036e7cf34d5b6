"""What JAX compiles, and how long it takes.

JAX tells listeners; ``news`` says it in a line, once.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"
_NAMED = 0.5  # Seconds; shorter ones are counted together.
_SAID = 1.0  # Seconds in all that are worth a line.


class Program(NamedTuple):
  """A program that was compiled, or read from the cache."""

  name: str
  seconds: float
  kept: bool


class _Record:
  """The programs since it was last read."""

  def __init__(self):
    self.programs: list[Program] = []
    self._hit = False
    jax.monitoring.register_event_listener(self._event)
    jax.monitoring.register_event_duration_secs_listener(self._duration)

  def _event(self, event: str, **_: Any) -> None:
    if event == _HIT:
      self._hit = True

  def _duration(self, event: str, duration_secs: float, **more: Any) -> None:
    if event == _COMPILED:
      name = str(more.get("fun_name", "a program"))
      name = name.removeprefix("jit(").removesuffix(")")
      self.programs.append(Program(name, duration_secs, self._hit))
      self._hit = False


@functools.cache
def _record() -> _Record:
  return _Record()


def watch() -> None:
  """Forgets what was compiled so far."""
  _record().programs.clear()


def news() -> str:
  """What was compiled since the last call, in a line; empty if it was little.

  For example ``compiled in 14.2 s: train_step 9.1 s, eval_step 3.0 s, 37
  smaller ones 2.1 s``.
  """
  record = _record()
  programs, record.programs = record.programs, []
  return said(programs)


def said(programs: list[Program]) -> str:
  """``news`` of these programs."""
  total = sum(p.seconds for p in programs)
  if total < _SAID:
    return ""
  made = sorted((p for p in programs if not p.kept), key=lambda p: -p.seconds)
  if not made:
    return (
      f"{len(programs)} compiled programs read from the cache in {total:.1f} s"
    )
  large = [p for p in made if p.seconds >= _NAMED]
  parts = [f"{p.name} {p.seconds:.1f} s" for p in large]
  rest = [p.seconds for p in made[len(large) :]]
  if rest:
    parts.append(f"{len(rest)} smaller ones {sum(rest):.1f} s")
  kept = len(programs) - len(made)
  if kept:
    parts.append(f"{kept} read from the cache")
  return f"compiled in {sum(p.seconds for p in made):.1f} s: {', '.join(parts)}"
