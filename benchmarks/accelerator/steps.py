"""Training and the hypergradient of one model at its real size.

python -m benchmarks.accelerator.steps NAME PRECISION [--part=PART] [--quick]
  [--peak=TFLOPS]

FLOPs are those of the step as it is written, counted by XLA for a CPU before
anything is optimised, with nothing computed twice (no ``remat``), but with what
is no product. MFU takes them or the config's claim, whichever is less.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import cases, hypergradient
from benchmarks.accelerator import peaks, sizes
from benchmarks.accelerator.says import say
from dmg_jax.bilevel import Neumann
from dmg_jax.training import programs, steps
from dmg_jax.types import Batch

PARTS = ("training", "hypergradient")
_SECONDS = 1.0  # Of a round, at least.
_ROUNDS = 3


def main(argv: list[str] | None = None) -> int:
  """Measures a part and tells about it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("name", choices=sizes.SIZES)
  parser.add_argument("precision", choices=("float32", "bf16"))
  parser.add_argument("--part", choices=PARTS, default=PARTS[0])
  parser.add_argument("--quick", action="store_true")
  parser.add_argument("--peak", type=float)
  options = parser.parse_args(argv)
  setup = sizes.make(options.name, options.precision, options.quick)
  batch = host_batch(setup, setup.batch_size)
  if options.part == PARTS[0]:
    _training(setup, batch, options)
  else:
    state = setup.fresh()
    _hypergradient(setup, state, batch, options.quick)
    _update(setup, state, batch, options.quick)
  return 0


def host_batch(setup, count: int) -> Batch:
  """The first samples of the training split, on the devices."""
  source = setup.dataset.sources["train"]
  samples = [source[i] for i in range(count)]
  names = samples[0]["inputs"]
  inputs = {m: np.stack([s["inputs"][m] for s in samples]) for m in names}
  labels = np.array([s["label"] for s in samples], np.int32)
  mask, index = np.ones(count, np.float32), np.arange(count, dtype=np.int32)
  return setup.place(Batch(inputs, labels, mask, index))


def _training(setup, batch, options) -> None:
  """Tells about the training step."""
  compiled = programs.Programs(setup)
  state, seed = setup.fresh(), np.int32(0)
  begin = time.perf_counter()
  step = compiled.train.lower(state, batch, seed).compile()
  found: dict[str, Any] = {
    "batch": setup.batch_size,
    "compile_seconds": time.perf_counter() - begin,
    "weights": sum(setup.parameters.values()),
    **_claimed(setup, options),
    **_planned(step),
  }
  held = [state]

  def call():
    held[0], metrics = step(held[0], batch, seed)
    return metrics

  found["seconds"] = timed(call, options.quick)
  found["peak_bytes"] = peak_bytes()
  found["samples_per_second"] = setup.batch_size / found["seconds"]
  say("training", **found)  # If counting takes too long, this stays.
  found["flops"] = flops(sizes.without_remat(setup), held[0], batch)
  known = [found[k] for k in ("flops", "claimed_flops") if found[k]]
  if known:  # The lower one: MFU is not to be flattered.
    found |= rates(min(known), found["seconds"], options)
  say("training", **found)


def rates(flops: float, seconds: float, options) -> dict[str, float]:
  """TFLOP/s, and the share of the device's peak where that is known."""
  rate = flops / seconds / 1e12
  kind = jax.devices()[0].device_kind
  peak = peaks.peak(kind, options.precision, options.peak)
  if peak is None:
    return {"tflops": rate}
  return {"tflops": rate, "peak_tflops": peak, "mfu": rate / peak}


def _claimed(setup, options) -> dict[str, Any]:
  """What the config says that a step takes; nothing of small networks."""
  if options.quick:
    return {"claimed_flops": None, "claimed_memory": ""}
  claim = sizes.SIZES[options.name].claim
  return {
    "claimed_flops": claim.flops * setup.batch_size,
    "claimed_memory": claim.memory,
  }


def _planned(step) -> dict[str, float]:
  """Bytes that the compiler plans with: arguments, results and between."""
  about = step.memory_analysis()
  if about is None:
    return {}
  kept = about.argument_size_in_bytes + about.output_size_in_bytes
  between = about.temp_size_in_bytes - about.alias_size_in_bytes
  return {"planned_bytes": float(kept + between)}


def flops(setup, state, batch) -> float | None:
  """Of a training step, by XLA's count of the program for a CPU."""
  step = steps.make_train_step(setup.problem, setup.method, setup.apply)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (state, batch)
  )
  try:
    with jax.default_device(jax.devices("cpu")[0]):
      counted = step.lower(*shapes, np.int32(0)).cost_analysis()
  # No CPU beside the device, or arrays on the device inside the step.
  except (RuntimeError, NotImplementedError, ValueError):
    return None
  return float(counted["flops"]) if counted else None


def peak_bytes() -> float | None:
  """The most of the device's memory that this process has held."""
  stats = jax.devices()[0].memory_stats() or {}
  return stats.get("peak_bytes_in_use")


def timed(call: Callable[[], Any], quick: bool) -> float:
  """Seconds of a call: the median of rounds of calls that do not wait."""
  jax.block_until_ready(call())
  begin = time.perf_counter()
  jax.block_until_ready(call())
  once = time.perf_counter() - begin
  if quick:
    return once
  count = max(1, round(_SECONDS / max(once, 1e-4)))
  found = []
  for _ in range(_ROUNDS):
    begin = time.perf_counter()
    for _ in range(count):
      result = call()
    jax.block_until_ready(result)
    found.append((time.perf_counter() - begin) / count)
  return statistics.median(found)


def _hypergradient(setup, state, batch, quick: bool) -> None:
  """Gradient, Hessian-vector product and hypergradient of the inner batch."""
  size = setup.inner_batch_size
  inner = jax.tree.map(lambda x: x[:size], batch)
  case = cases.Case(
    "", setup.problem, setup.method, state.params, state.stats,
    lambda _: (), setup.apply, size, lambda _: inner,
  )  # fmt: skip
  terms = 1 if quick else 5
  wanted = [hypergradient.Variant(Neumann(terms), unroll=False)]
  direction = jax.tree.map(jnp.ones_like, state.params)
  arguments = state.params, jnp.float32(0.5), direction
  base = None
  for name, function in hypergradient.programs(case, size, wanted).items():
    begin = time.perf_counter()
    program = jax.jit(function).lower(*arguments).compile()
    took = time.perf_counter() - begin
    seconds = timed(lambda p=program: p(*arguments), quick)
    base = base or seconds
    say(
      name, batch=size, seconds=seconds, ratio=seconds / base,
      compile_seconds=took, **_planned(program),
    )  # fmt: skip


def _update(setup, state, batch, quick: bool) -> None:
  """A whole update of α, as training makes it once an epoch."""
  compiled = programs.Programs(setup)
  inner = compiled.inner(batch)
  outer = host_batch(setup, setup.outer_batch_size)
  held = [state]

  def call():
    held[0], metrics = compiled.outer(held[0], inner, outer, np.int32(0))
    return metrics

  begin = time.perf_counter()
  jax.block_until_ready(call())
  first = time.perf_counter() - begin
  say(
    "update of α", batch=setup.inner_batch_size, outer=setup.outer_batch_size,
    first_seconds=first, seconds=timed(call, quick), peak_bytes=peak_bytes(),
  )  # fmt: skip


if __name__ == "__main__":
  sys.exit(main())
