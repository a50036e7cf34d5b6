"""Convolutions and pooling of pictures against Flax's own layers."""

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.model.encoders._layers import conv, pooling

# With what they are on a CPU.
CASES = {
  "few channels": (
    {"features": 5, "kernel_size": (3, 3)},
    (2, 9, 8, 3),
    "taps",
  ),
  "1×1": ({"features": 4, "kernel_size": (1, 1)}, (2, 5, 6, 7), "product"),
  "1×1, strided": (
    {
      "features": 4,
      "kernel_size": (1, 1),
      "strides": (2, 2),
      "padding": [(0, 0), (0, 0)],
    },
    (2, 5, 6, 7),
    "product",
  ),
  "deep, strided": (
    {
      "features": 3,
      "kernel_size": (3, 3),
      "strides": (2, 2),
      "padding": [(1, 1), (1, 1)],
      "use_bias": False,
    },
    (2, 5, 6, 256),
    "product",
  ),
  "one channel": ({"features": 3, "kernel_size": (3, 3)}, (2, 5, 6, 1), "taps"),
  "large": (
    {"features": 3, "kernel_size": (7, 7), "padding": "VALID"},
    (2, 9, 8, 2),
    "convolution",
  ),
}


def _both(name):
  options, shape, kind = CASES[name]
  x = jax.random.normal(jax.random.key(0), shape, jnp.float32)
  ours, theirs = conv.Conv(**options), nn.Conv(**options)
  variables = theirs.init(jax.random.key(1), x)
  if options.get("use_bias", True):
    bias = jnp.linspace(-1, 1, options["features"], dtype=jnp.float32)
    variables["params"]["bias"] = bias
  return ours, theirs, variables, x, kind


def _kind(module, variables, x):
  """By what the program of a forward pass has."""
  text = str(jax.make_jaxpr(module.apply)(variables, x))
  if "dot_general" in text:
    return "product"
  # The rule of its derivative has convolutions.
  return "taps" if "custom_jvp" in text else "convolution"


@pytest.mark.parametrize("name", CASES)
def test_a_convolution_is_that_of_flax(name):
  ours, theirs, variables, x, kind = _both(name)
  drawn = ours.init(jax.random.key(1), x)
  for a, b in zip(
    jax.tree.leaves(drawn),
    jax.tree.leaves(theirs.init(jax.random.key(1), x)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  assert _kind(ours, variables, x) == kind
  np.testing.assert_allclose(
    ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("name", CASES)
def test_products_with_the_hessian_are_those_of_flax(name):
  ours, theirs, variables, x, _ = _both(name)
  ones = jax.tree.map(jnp.ones_like, (variables, x))

  def product(module):
    loss = lambda v, x: jnp.sin(module.apply(v, x)).sum()  # noqa: E731
    return jax.jvp(jax.grad(loss, (0, 1)), (variables, x), ones)

  for a, b in zip(
    jax.tree.leaves(product(ours)),
    jax.tree.leaves(product(theirs)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["1×1", "deep, strided", "few channels"])
def test_networks_side_by_side_are_those_one_by_one(name):
  ours, _, variables, x, _ = _both(name)
  several = jax.tree.map(lambda w: jnp.stack([w, -w]), variables)
  xs = jnp.stack([x, x + 1])
  made = jax.vmap(ours.apply)(several, xs)
  for i in range(2):
    one = ours.apply(jax.tree.map(lambda w, i=i: w[i], several), xs[i])
    np.testing.assert_allclose(made[i], one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_programs_for_other_machines_have_convolutions(name):
  ours, _, variables, x, _ = _both(name)
  with conv.without_products():
    assert _kind(ours, variables, x) == "convolution"


def test_half_precision_is_a_convolution():
  half = jnp.bfloat16
  assert conv.as_product((1, 1), 8, 4, jnp.dtype("float32"))
  assert not conv.as_product((1, 1), 8, 4, jnp.dtype(half))


def _windows(x):
  return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


@pytest.mark.parametrize(
  "shape", [(3, 6, 8, 2), (2, 7, 5, 3), (1, 1, 1, 1), (2, 1, 4, 1)]
)
def test_threes_pool_as_windows_do_ties_included(shape):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.integers(0, 3, shape), jnp.float32)
  weights = jnp.asarray(rng.normal(size=_windows(x).shape), jnp.float32)
  ours = pooling.max_pool_threes
  np.testing.assert_array_equal(ours(x), _windows(x))
  grads = [
    jax.grad(lambda x, f=f: (weights * f(x)).sum())(x) for f in (ours, _windows)
  ]
  np.testing.assert_allclose(*grads, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("at", range(9))
def test_a_window_with_what_is_no_number_is_none(at):
  x = jnp.arange(9.0).at[at].set(jnp.nan).reshape(1, 3, 3, 1)
  made = pooling.max_pool_threes(x)
  np.testing.assert_array_equal(jnp.isnan(made), jnp.isnan(_windows(x)))
