"""Gauss-Newton products and batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilevel_problems import (
  Bilevel,
  dense_hypergradient,
  relative,
  solve,
)
from dmg_jax.bilevel import (
  ConjugateGradient,
  Dense,
  GaussNewton,
  Neumann,
  Status,
)


@pytest.mark.parametrize("matvec", ["jvp", "linearize"])
def test_gauss_newton_equals_the_hessian_of_a_linear_model(matvec):
  rng = np.random.default_rng(0)
  X, Z = (jnp.asarray(rng.normal(size=(20, 4))) for _ in "xz")
  y = jnp.asarray(rng.normal(size=20))
  split = GaussNewton(
    predict=lambda p: X @ p["w"],
    loss=lambda z, h: jnp.mean(jax.nn.softplus(-y * z)) * h["scale"],
    penalty=lambda p, h: h["decay"] * jnp.sum(p["w"] ** 2),
  )
  problem = Bilevel(
    split,
    lambda p, h: jnp.mean((Z @ p["w"] - y) ** 2),
    {"w": jnp.asarray(rng.normal(size=4))},
    {"scale": jnp.asarray(2.0), "decay": jnp.asarray(0.1)},
  )
  value, info = solve(
    problem, ConjugateGradient(), curvature=split, matvec=matvec
  )
  assert relative(value, dense_hypergradient(problem)) < 1e-9
  assert info.curvature == 1


def test_gauss_newton_is_positive_where_the_hessian_is_not():
  x = jnp.linspace(-1.0, 2.0, 9)
  split = GaussNewton(
    predict=lambda p: jnp.tanh(p["a"] * jnp.tanh(p["b"] * x)),
    loss=lambda z, h: jnp.mean((z - 1.0) ** 2) + h * jnp.mean(z),
  )
  params = {"a": jnp.asarray(-1.0), "b": jnp.asarray(0.7)}
  outer = lambda p, h: p["a"] + 3 * p["b"]  # noqa: E731
  problem = Bilevel(split, outer, params, jnp.asarray(0.1))
  assert solve(problem, Dense())[1].status == Status.INDEFINITE
  value, info = solve(problem, Dense(damping=0.1), curvature=split)
  assert info.curvature == 1
  slope = jax.jacobian(split.predict)(params)
  J = jnp.stack([slope["a"], slope["b"]], 1)
  G = 2 * J.T @ J / x.size + 0.1 * jnp.eye(2)
  np.testing.assert_allclose(
    value,
    -(J.mean(0) @ jnp.linalg.solve(G, jnp.asarray([1.0, 3.0]))),
    rtol=1e-10,
  )


def batched(count, seed=0):
  """Least squares with one batch a term; all its matrices in numpy."""
  rng = np.random.default_rng(seed)
  X, y = rng.normal(size=(count, 16, 5)), rng.normal(size=(count, 16))
  target = jnp.asarray(rng.normal(size=5))

  def inner(w, h, batch):
    fit = jnp.mean((batch["x"] @ w - batch["y"]) ** 2) / 2
    return fit + h * jnp.sum(w**2) / 2

  outer = lambda w, h: jnp.sum((w - target) ** 2) / 2  # noqa: E731
  batches = {"x": jnp.asarray(X), "y": jnp.asarray(y)}
  H = np.einsum("nbi,nbj->nij", X, X) / 16 + 0.1 * np.eye(5)
  w = jnp.asarray(rng.normal(size=5))
  return Bilevel(inner, outer, w, jnp.asarray(0.1)), batches, H


@pytest.mark.parametrize("unroll", [True, False])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_fresh_batch_for_each_term_equals_numpy(count, unroll):
  problem, batches, H = batched(count)
  terms, step = 4, 0.2
  value, info = solve(
    problem, Neumann(terms, step), batches=batches, unroll=unroll
  )
  term = np.asarray(jax.grad(problem.outer)(problem.params, 0.1))
  q = step * term
  for i in range(terms):
    term = term - step * H[i % count] @ term
    q = q + step * term
  np.testing.assert_allclose(info.q, q, rtol=1e-12)
  np.testing.assert_allclose(value, -problem.params @ q, rtol=1e-12)


@pytest.mark.parametrize("solver", [ConjugateGradient(), Dense()])
def test_other_solvers_take_the_mean_over_batches(solver):
  problem, batches, H = batched(3)
  _, info = solve(problem, solver, batches=batches)
  v = jax.grad(problem.outer)(problem.params, 0.1)
  np.testing.assert_allclose(info.q, np.linalg.solve(H.mean(0), v), rtol=1e-9)
