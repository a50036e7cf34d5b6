"""Which stages there are, with their shares of the time."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from benchmarks.accelerator.stages import Stage

PRECISIONS = ("float32", "bf16")
NAMES = ("CREMA-D", "Sarcasm", "Sarcasm CLIP", "NVGesture")
TORCH = NAMES[:3]
_HERE = "benchmarks.accelerator"
_NO_CARD = "there is no accelerator: it would be the same as before"


def facts(quick: bool) -> Stage:
  """The first stage: the others depend on its device."""
  return Stage("device", _module("facts", *_flag(quick)), 25)


def stages(
  platform: str, quick: bool, peak: float | None, out: Path
) -> list[Stage]:
  """All stages but the first.

  Args:
    platform: of the device, as JAX names it; empty if it could not tell.
    quick: tiny sizes.
    peak: TFLOP/s in bfloat16, if given.
    out: folder for runs and logs.
  """
  card = platform not in ("", "cpu")
  made = [
    *_tests(card, quick),
    *_resumed(card, quick, out),
    _main_job(quick, out),
    Stage("loaders", _module("loaders", *_flag(quick)), 30),
    *_models("training", 26, card, quick, peak),
    *_beside(quick),
    *_models("hypergradient", 20, card, quick, peak),
  ]
  return [_with_cache(stage, out, quick) for stage in made]


def _tests(card: bool, quick: bool) -> list[Stage]:
  device = {"DMG_TEST_DEVICE": "gpu"} if card else {}
  device |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
  full = {**device, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
  command = _module("selected", *_flag(quick))
  reason = "" if card else _NO_CARD
  return [
    Stage("tests, float32 products", command, 70, full),
    Stage("tests, TF32 products", command, 50, device, reason),
  ]


def _resumed(card: bool, quick: bool, out: Path) -> list[Stage]:
  def one(kind: str, reason: str) -> Stage:
    command = _module("resume", str(out / "runs"), kind, *_flag(quick))
    weight = 90 if quick else 45  # Most of what is left of a quick run.
    return Stage(f"resumed, {kind} flags", command, weight, reason=reason)

  return [one("deterministic", ""), one("usual", "" if card else _NO_CARD)]


def _main_job(quick: bool, out: Path) -> Stage:
  # Quickly as in ``resume``, so that it is compiled once.
  short = ",iterations=1,epochs=2" if quick else ""
  command = (
    "launch.py",
    f"--config=configs/openmoji.py:lb{short}",
    f"--workdir={out / 'runs' / 'main'}",
    f"--config.data.dir={out / 'runs' / 'data'}",
  )
  return Stage("main job", command, 45)


def _models(
  part: str, weight: float, card: bool, quick: bool, peak: float | None
) -> list[Stage]:
  """A process for each, so that memory is its own and one may run out of it."""
  given = () if peak is None else (f"--peak={peak}",)
  made = []
  for i, name in enumerate(NAMES):
    for j, precision in enumerate(PRECISIONS):
      # A quick one shows that each works, in one of the two.
      if quick and ((i + j) % 2 or (part == "hypergradient" and i)):
        continue
      command = _module(
        "steps", name, precision, f"--part={part}", *given, *_flag(quick)
      )
      made.append(Stage(f"{part}, {name}, {precision}", command, weight))
  return made


def _beside(quick: bool) -> list[Stage]:
  there = importlib.util.find_spec("torch") is not None
  reason = "" if there else "torch is not installed"
  return [
    Stage(
      f"torch, {name}, {precision}",
      _module("beside", name, precision, *_flag(quick)),
      12,
      reason=reason,
    )
    for name in (TORCH[:1] if quick else TORCH)
    for precision in (PRECISIONS[:1] if quick else PRECISIONS)
  ]


def _with_cache(stage: Stage, out: Path, quick: bool) -> Stage:
  """Compiled programs are kept, so that a second time gets further."""
  given = {"JAX_COMPILATION_CACHE_DIR": str(out / "cache")}
  if quick:  # Compiling is most of the time.
    given["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    given["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
  return Stage(
    stage.name, stage.command, stage.weight,
    {**given, **stage.environment}, stage.reason,
  )  # fmt: skip


def _module(name: str, *arguments: str) -> tuple[str, ...]:
  return ("-m", f"{_HERE}.{name}", *arguments)


def _flag(quick: bool) -> tuple[str, ...]:
  return ("--quick",) if quick else ()
