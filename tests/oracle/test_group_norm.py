"""Group normalisation against Flax's layer, and against float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.model.encoders._layers.group_norm import GroupNorm

# Samples, space (none, time, pictures) and channels.
SHAPES = [(3, 16), (2, 9, 8), (2, 5, 6, 24)]


def _case(shape, offset=0.0):
  keys = jax.random.split(jax.random.key(sum(shape)), 3)
  x = offset + jax.random.normal(keys[0], shape, jnp.float32)
  scale, bias = jax.random.normal(keys[1], (2, shape[-1]), jnp.float32)
  return x, {"params": {"scale": scale, "bias": bias}}


@pytest.mark.parametrize("shape", SHAPES)
def test_same_weights_and_result_as_flax(shape):
  x, given = _case(shape)
  ours, theirs = GroupNorm(8), nn.GroupNorm(8)
  fresh = [m.init(jax.random.key(0), x) for m in (ours, theirs)]
  assert jax.tree.structure(fresh[0]) == jax.tree.structure(fresh[1])
  assert jax.tree.all(jax.tree.map(np.array_equal, *fresh))
  np.testing.assert_allclose(
    ours.apply(given, x), theirs.apply(given, x), rtol=1e-5, atol=1e-5
  )


def test_derivatives_are_those_of_flax():
  """First and second, in float64, of weights and inputs."""
  x, given = _case((2, 5, 6, 24))
  wide = jax.tree.map(lambda v: np.asarray(v, np.float64), (given, x))
  with jax.enable_x64(True):

    def loss(module, given, x):
      return jnp.sum(jnp.sin(module.apply(given, x)))

    def turned(module, given, x):
      slopes = jax.grad(loss, (1, 2))(module, given, x)
      return sum(jnp.sum(jnp.cos(v)) for v in jax.tree.leaves(slopes))

    for function in (loss, turned):
      ours, theirs = (
        jax.grad(function, (1, 2))(m, *wide)
        for m in (GroupNorm(8), nn.GroupNorm(8))
      )
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11),
        ours,
        theirs,
      )


def test_no_worse_than_flax_for_large_maps():
  """Of a picture with a mean: the error against float64."""
  x, given = _case((4, 64, 64, 16), offset=2.0)
  wide = np.asarray(x, np.float64).reshape(4, -1, 8, 2)
  mean = wide.mean((1, 3), keepdims=True)
  normed = (wide - mean) / np.sqrt(wide.var((1, 3), keepdims=True) + 1e-6)
  scale, bias = (np.asarray(given["params"][k]) for k in ("scale", "bias"))
  right = normed.reshape(x.shape) * scale + bias
  ours, theirs = (
    np.abs(m.apply(given, x) - right).max()
    for m in (GroupNorm(8), nn.GroupNorm(8))
  )
  assert ours <= max(2 * theirs, 1e-4)


def test_bfloat16_has_sums_in_float32():
  x, given = _case((2, 64, 64, 16))
  half = x.astype(jnp.bfloat16)
  y = GroupNorm(8, dtype=jnp.bfloat16).apply(given, half)
  assert y.dtype == jnp.bfloat16
  exact = nn.GroupNorm(8).apply(given, half.astype(jnp.float32))
  np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=0.01, atol=0.01)
  assert GroupNorm(8).apply(given, half).dtype == jnp.float32
