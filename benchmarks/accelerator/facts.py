"""What machine this is, and how fast it multiplies a large matrix.

python -m benchmarks.accelerator.facts [--quick]
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

from benchmarks.accelerator.says import say

SIDE, SIDE_QUICK = 8192, 256


def main(argv: list[str]) -> int:
  """Tells about the device, then about its products."""
  import jax

  first = jax.devices()[0]
  stats = first.memory_stats() or {}
  say(
    "device",
    platform=first.platform,
    kind=first.device_kind,
    driver=driver(),
    memory=stats.get("bytes_limit"),
    matmul_precision=jax.config.jax_default_matmul_precision or "default",
  )
  for precision in ("float32", "bf16"):
    side = SIDE_QUICK if "--quick" in argv else SIDE
    say(
      f"matrix product {precision}", side=side, tflops=product(side, precision)
    )
  from benchmarks.run import environment  # Needs more than JAX.

  say("environment", **environment())
  return 0


def driver() -> str | None:
  """The version of NVIDIA's driver, if there is one."""
  tool = shutil.which("nvidia-smi")
  if tool is None:
    return None
  asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
  told = subprocess.run(asked, capture_output=True, text=True, timeout=20)
  return told.stdout.strip().splitlines()[0] if told.stdout.strip() else None


def product(side: int, precision: str) -> float:
  """TFLOP/s of a product of two square matrices, the best of five rounds."""
  import jax
  import jax.numpy as jnp

  dtype = jnp.bfloat16 if precision == "bf16" else jnp.float32
  one, two = jax.random.split(jax.random.key(0))
  a, b = (jax.random.normal(k, (side, side), dtype) for k in (one, two))
  multiply = jax.jit(jnp.matmul)
  jax.block_until_ready(multiply(a, b))
  best = float("inf")
  for _ in range(5):
    begin = time.perf_counter()
    for _ in range(5):
      c = multiply(a, b)
    jax.block_until_ready(c)
    best = min(best, (time.perf_counter() - begin) / 5)
  return 2 * side**3 / best / 1e12


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
