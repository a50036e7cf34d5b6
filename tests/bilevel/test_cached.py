"""A bare ``hypergradient`` compiles once for the same functions."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.bilevel import (
  ConjugateGradient,
  Neumann,
  hypergradient,
)

MODULE = importlib.import_module("dmg_jax.bilevel.hypergradient")
A = jnp.array([[2.0, 0.3], [0.3, 1.0]])


def inner(w, h):
  return w @ A @ w / 2 + h * (w @ w) / 2 - w.sum()


def outer(w, h):
  return (w * w).sum() + 0 * h


@pytest.fixture
def compilations():
  """``compilations()``: programs compiled since it was called last."""
  seen = []

  def listen(name, seconds, **_):
    del seconds
    if name == "/jax/core/compile/backend_compile_duration":
      seen.append(name)

  jax.monitoring.register_event_duration_secs_listener(listen)

  def count():
    found = len(seen)
    seen.clear()
    return found

  yield count
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"damping": 0.1, "exact_residual": True},
    {"solver": ConjugateGradient(), "q0": jnp.ones(2)},
    {"matvec": "jvp"},
  ],
)
def test_the_second_call_compiles_nothing(compilations, options):
  places = [(jnp.array([x, 0.7]), jnp.float64(x)) for x in (0.4, 0.5)]
  (first, _), (other, _) = (
    hypergradient(inner, outer, w, h, **options) for w, h in places
  )
  compilations()
  again, _ = hypergradient(inner, outer, *places[0], **options)
  hypergradient(inner, outer, *places[1], **options)
  assert compilations() == 0
  assert np.asarray(first).tobytes() == np.asarray(again).tobytes()
  assert not np.array_equal(first, other)


def test_the_same_value_as_in_jit():
  w, h = jnp.array([0.4, 0.7]), jnp.float64(0.5)
  bare, _ = hypergradient(inner, outer, w, h)
  jitted = jax.jit(lambda w, h: hypergradient(inner, outer, w, h)[0])(w, h)
  np.testing.assert_allclose(bare, jitted, rtol=1e-12)
  mapped = jax.vmap(lambda h: hypergradient(inner, outer, w, h)[0])(h[None])
  np.testing.assert_allclose(bare, mapped[0], rtol=1e-12)


def test_what_cannot_be_hashed_or_is_traced_is_computed_all_the_same():
  w, h = jnp.array([0.4, 0.7]), jnp.float64(0.5)
  expected, _ = hypergradient(inner, outer, w, h, Neumann(10, 0.3))
  array, _ = hypergradient(inner, outer, w, h, Neumann(10, jnp.float64(0.3)))
  np.testing.assert_allclose(array, expected, rtol=1e-12)

  def closed_over(h):
    zero = jnp.float64(0)
    return hypergradient(lambda w, k: inner(w, h + k), outer, w, zero)[0]

  jitted, (mapped,) = jax.jit(closed_over)(h), jax.vmap(closed_over)(h[None])
  expected, _ = hypergradient(inner, outer, w, h)
  np.testing.assert_allclose([jitted, mapped], expected, rtol=1e-12)
  assert float(jitted) != 0


@pytest.mark.slow
def test_few_programs_are_kept():
  before = MODULE._compiled.cache_info().currsize
  for scale in range(20):
    hypergradient(
      lambda w, h, s=scale: inner(w, h) * (1 + s), outer, jnp.ones(2), 0.5
    )
  assert MODULE._compiled.cache_info().currsize <= max(16, before)
