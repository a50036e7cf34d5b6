"""Encoders for small data against Flax's own layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.model.encoders import small
from dmg_jax.model.encoders._layers import pooling


def _ours(x):
  return pooling.max_pool_pairs(pooling.max_pool_pairs(x, axis=2), axis=1)


def _flax(x):
  return nn.max_pool(x, (2, 2), strides=(2, 2), padding="SAME")


@pytest.mark.parametrize("shape", [(3, 6, 8, 2), (2, 7, 5, 3), (1, 1, 1, 1)])
def test_pairs_pool_as_windows_do_ties_included(shape):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.integers(0, 3, shape), jnp.float32)
  assert len(np.unique(x)) < x.size or x.size == 1
  weights = jnp.asarray(rng.normal(size=_flax(x).shape), jnp.float32)
  np.testing.assert_array_equal(_ours(x), _flax(x))
  ours, theirs = (
    jax.grad(lambda x, f=f: (weights * f(x)).sum())(x) for f in (_ours, _flax)
  )
  np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("at", range(4))
def test_what_is_not_a_number_stays_so(at):
  x = jnp.arange(4.0).at[at].set(jnp.nan).reshape(1, 2, 2, 1)
  assert jnp.isnan(_ours(x)).all()


@pytest.mark.slow
def test_products_with_the_hessian_of_several_networks_at_once():
  """Finite under vmap where windows are constant, and differences of gradients.

  White pictures: every window is a tie.
  """
  model = small.ConvNet(features=3, widths=(8, 8))
  x = jnp.ones((2, 6, 6, 1)).at[0, 1:4, 2:5].set(0.3)
  params = jax.vmap(lambda k: model.init(k, x, False))(
    jax.random.split(jax.random.key(0), 2)
  )
  params = jax.tree.map(lambda v: v.astype(jnp.float64), params)

  def gradient(p):
    return jax.grad(lambda p: (model.apply(p, x, False) ** 2).sum())(p)

  def along(p):
    return jax.jvp(gradient, (p,), (p,))[1]

  products = jax.jit(jax.vmap(along))(params)
  h = 1e-6
  for i in range(2):
    p = jax.tree.map(lambda v, i=i: v[i], params)
    above, below = (
      gradient(jax.tree.map(lambda v, s=s: v * (1 + s), p)) for s in (h, -h)
    )
    numeric = jax.tree.map(lambda a, b: (a - b) / (2 * h), above, below)
    jax.tree.map(
      lambda a, b, i=i: np.testing.assert_allclose(
        a[i], b, rtol=1e-4, atol=1e-6
      ),
      products,
      numeric,
    )


@pytest.mark.parametrize("name", ["ConvNet", "MLP"])
def test_bytes_are_pixels_from_minus_one_to_one(name):
  x = jax.random.randint(jax.random.key(1), (2, 8, 8, 3), 0, 256, jnp.uint8)
  encoder = getattr(small, name)(features=5, widths=(8,))
  wide = x.astype(jnp.float32) / 127.5 - 1
  made, variables = encoder.init_with_output(jax.random.key(0), x, False)
  expected = encoder.apply(variables, wide, False)
  np.testing.assert_allclose(made, expected, rtol=1e-6, atol=1e-6)
  assert made.shape == (2, 5)
