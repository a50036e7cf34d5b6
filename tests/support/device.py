"""The device that tests run on, and what its arithmetic lets them compare.

``DMG_TEST_DEVICE=gpu`` runs them on the accelerator that JAX finds; without it
they run on eight CPU devices. Tests in float64 keep their tolerances anywhere.
Those in float32 or less were set for a CPU. An accelerator sums in another
order, and by default multiplies matrices in TF32: float32 with 10 bits of
mantissa, so that each factor is off by up to 2^-11 of itself.
``JAX_DEFAULT_MATMUL_PRECISION=highest`` has it multiply in float32.
"""

from __future__ import annotations

import functools
import os

import jax.numpy as jnp
import numpy as np

NAME = os.environ.get("DMG_TEST_DEVICE", "cpu")
# What differences on an accelerator may be at least, of the expected number and
# of the largest one of its array. TF32: some ten products one after another.
FLOAT32, TF32 = 1e-4, 1e-2
_FULL = ("highest", "float32", "BF16_BF16_F32_X6", "F32_F32_F32")


def on_card() -> bool:
  """Whether tests run on an accelerator."""
  return NAME != "cpu"


def least() -> float:
  """Least tolerance of float32: 0 on a CPU."""
  if not on_card():
    return 0.0
  precision = os.environ.get("JAX_DEFAULT_MATMUL_PRECISION", "")
  return FLOAT32 if precision in _FULL else TF32


def tolerance(given: float) -> float:
  """A test's own tolerance of float32, or the device's if that is larger."""
  return max(given, least())


def loosened(compare, limit: float):
  """``np.testing.assert_allclose``, with a least tolerance below float64."""

  @functools.wraps(compare)
  def wrapped(actual, desired, rtol=1e-7, atol=0, *args, **kwargs):
    if _narrow(actual) or _narrow(desired):
      size = np.abs(np.asarray(desired, np.float64))
      rtol, atol = max(rtol, limit), max(atol, limit * size.max(initial=0))
    return compare(actual, desired, rtol, atol, *args, **kwargs)

  return wrapped


def _narrow(x) -> bool:
  kind = getattr(x, "dtype", None)
  return (
    kind is not None
    and jnp.issubdtype(kind, jnp.floating)
    and jnp.finfo(kind).bits < 64
  )
