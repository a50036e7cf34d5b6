"""The last rung of the ladder: a network with BatchNorm, against dense."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from bilevel_problems import (
  dense_hypergradient,
  quick_jit,
  relative,
  solve,
  tiny_cnn,
)
from dmg_jax.bilevel import (
  ConjugateGradient,
  Dense,
  Neumann,
  hypergradient,
  status_name,
)


@pytest.mark.parametrize(
  "solver",
  [
    Neumann(terms=100),
    pytest.param(ConjugateGradient(), marks=pytest.mark.slow),
    pytest.param(Dense(), marks=pytest.mark.slow),
  ],
  ids=["neumann", "cg", "dense"],
)
def test_10_network_with_batch_norm_equals_dense(solver):
  problem = tiny_cnn()
  value, info = jax.jit(
    lambda p, h: hypergradient(
      problem.inner, problem.outer, p, h, solver, damping=2.0
    )
  )(problem.params, problem.hyper)
  assert info.curvature == 1
  assert relative(value, dense_hypergradient(problem, damping=2.0)) < 1e-6


def test_10_network_equals_finite_differences_of_training():
  """Trained to a minimum, where the Hessian needs no damping."""
  problem, eps = tiny_cnn(), 1e-4
  flat, restore = ravel_pytree(problem.params)

  def loss(w, h):
    return problem.inner(restore(w), h)

  @quick_jit
  def descend(h):
    return jax.lax.fori_loop(
      0, 800, lambda i, w: w - 0.5 * jax.grad(loss)(w, h), flat
    )

  @quick_jit
  def newton_step(w, h):
    w = w - jnp.linalg.solve(jax.hessian(loss)(w, h), jax.grad(loss)(w, h))
    return (
      w,
      problem.outer(restore(w), h),
      jnp.linalg.norm(jax.grad(loss)(w, h)),
    )

  def retrain(w, h):
    for _ in range(5):
      w, value, slope = newton_step(w, h)
    assert slope < 1e-12
    return w, value

  w, _ = retrain(descend(problem.hyper), problem.hyper)
  trained = dataclasses.replace(problem, params=restore(w))
  value, info = solve(trained, ConjugateGradient())
  assert status_name(info.status) == "converged"
  for name, centre in problem.hyper.items():
    up = retrain(w, {**problem.hyper, name: centre + eps})[1]
    down = retrain(w, {**problem.hyper, name: centre - eps})[1]
    np.testing.assert_allclose(value[name], (up - down) / (2 * eps), rtol=1e-6)
