"""Convolutions made of tiles against the sum as it stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from dmg_jax.model.encoders._layers import conv, winograd

# Shape of the input, channels of the output, lines of zeros.
CASES = {
  "even": ((2, 6, 8, 3), 4, ((1, 1), (1, 1))),
  "odd": ((3, 7, 5, 2), 3, ((1, 1), (1, 1))),
  "no padding": ((2, 5, 6, 3), 2, ((0, 0), (0, 0))),
  "uneven padding": ((1, 4, 5, 2), 2, ((2, 0), (0, 1))),
  "one result": ((2, 1, 1, 3), 2, ((1, 1), (1, 1))),
}


def direct(x, kernel, pads):
  return lax.conv_general_dilated(
    x, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def _given(name, dtype):
  shape, features, pads = CASES[name]
  rng = np.random.default_rng(len(name))
  x = rng.normal(size=shape).astype(dtype)
  kernel = rng.normal(size=(3, 3, shape[-1], features)).astype(dtype)
  return x, kernel, pads


@pytest.mark.parametrize("name", CASES)
def test_results_and_derivatives(name):
  """In float64: first derivatives, and products with second ones."""
  with jax.enable_x64(True):
    x, kernel, pads = _given(name, np.float64)

    def everything(function):
      def loss(*given):
        return jnp.sin(function(*given, pads)).sum()

      slopes = jax.grad(loss, (0, 1))
      given, way = (x, kernel), (np.cos(x), np.cos(kernel))
      return function(*given, pads), jax.jvp(slopes, given, way)

    ours, theirs = everything(winograd.convolve), everything(direct)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11),
      ours,
      theirs,
    )


def test_several_networks_at_once():
  x, kernel, pads = _given("odd", np.float32)
  xs, kernels = np.stack([x, x + 1]), np.stack([kernel, -kernel])
  made = jax.vmap(lambda x, k: winograd.convolve(x, k, pads))(xs, kernels)
  for i in range(2):
    one = direct(xs[i], kernels[i], pads)
    np.testing.assert_allclose(made[i], one, rtol=1e-5, atol=1e-5)


def test_rounding_is_that_of_a_sum_within_a_small_factor():
  """64 channels; the mean error of each against float64."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 12, 12, 64)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 64, 64)).astype(np.float32)
  pads = ((1, 1), (1, 1))
  with jax.enable_x64(True):
    right = direct(x.astype(np.float64), kernel.astype(np.float64), pads)
  ours, theirs = (
    np.abs(f(x, kernel, pads) - np.asarray(right)).mean()
    for f in (winograd.convolve, direct)
  )
  assert ours < 3 * theirs


def test_a_derivative_keeps_inputs_and_no_tiles():
  """What stays in memory for it: x and the kernel."""
  x, kernel, pads = _given("even", np.float32)
  _, back = jax.vjp(lambda x, k: winograd.convolve(x, k, pads), x, kernel)
  kept = [v for v in jax.tree.leaves(back) if hasattr(v, "size")]
  assert sum(v.size for v in kept) <= x.size + kernel.size


def test_large_ones_only(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
  wide, size = jnp.dtype("float32"), (3, 3)
  assert conv.by_tiles(size, 64, (1, 1), 2**16, wide)
  assert not conv.by_tiles(size, 64, (1, 1), 2**15, wide)
  assert not conv.by_tiles(size, 32, (1, 1), 2**25, wide)
  assert not conv.by_tiles(size, 64, (2, 2), 2**25, wide)
  assert not conv.by_tiles((5, 5), 64, (1, 1), 2**25, wide)
  assert not conv.by_tiles(size, 64, (1, 1), 2**25, jnp.dtype(jnp.bfloat16))
  with conv.without_products():
    assert not conv.by_tiles(size, 64, (1, 1), 2**25, wide)
