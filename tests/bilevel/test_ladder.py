"""The verification ladder: ten independent checks, one test a rung."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from bilevel_problems import (
  dense_hypergradient,
  logistic,
  matrices,
  newton,
  quadratic,
  quick_jit,
  relative,
  ridge,
  series,
  solve,
  two_losses,
)
from dmg_jax import trees
from dmg_jax.bilevel import (
  GMRES,
  ConjugateGradient,
  Dense,
  Identity,
  Iterate,
  Neumann,
  Nystrom,
  Status,
  forward_unroll,
  hypergradient,
  optax_update,
  reverse_unroll,
  status_name,
)

SOLVERS = [
  Neumann(terms=400),
  Neumann(terms=800, step_size="power"),
  ConjugateGradient(),
  GMRES(iterations=50),
  Dense(),
]
NAMES = ["neumann", "power", "cg", "gmres", "dense"]


@pytest.mark.parametrize("solver", SOLVERS, ids=NAMES)
def test_01_ridge_equals_its_closed_form(solver):
  problem, fit = ridge()
  value, info = solve(problem, solver)
  exact = jax.grad(lambda h: problem.outer(fit(h), h))(problem.hyper)
  np.testing.assert_allclose(value, exact, rtol=1e-10)
  assert status_name(info.status) == "converged"


@pytest.mark.parametrize("solver", SOLVERS[::2], ids=NAMES[::2])
def test_02_logistic_equals_a_dense_solve_at_a_minimum(solver):
  problem = logistic()
  slope = jax.grad(problem.inner)(problem.params, problem.hyper)
  assert trees.norm(slope) < 1e-12
  value, info = solve(problem, solver)
  assert relative(value, dense_hypergradient(problem)) < 1e-8
  assert info.curvature == 1


def test_03_implicit_equals_autodiff_through_converged_training():
  problem = logistic()
  update = optax_update(problem.inner, optax.sgd(1.0))
  start = trees.zeros_like(problem.params)
  state = Iterate(start, optax.sgd(1.0).init(start))
  implicit, _ = solve(problem, ConjugateGradient())
  for unroll in (reverse_unroll, forward_unroll):
    unrolled, end = quick_jit(
      lambda h, unroll=unroll: unroll(update, problem.outer, state, h, 400)
    )(problem.hyper)
    assert relative(end.params, problem.params) < 1e-10
    assert relative(unrolled, implicit) < 1e-8


OPTIMISERS = {
  "sgd": optax.sgd(0.3),
  "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
  "adam": optax.adam(0.05),
}


@pytest.mark.parametrize(
  "name, steps", [("sgd", 0), ("sgd", 1), ("momentum", 7), ("adam", 7)]
)
def test_03_forward_equals_reverse_at_any_length(name, steps):
  problem, optimiser = logistic(), OPTIMISERS[name]
  update = optax_update(problem.inner, optimiser)
  start = jax.tree.map(lambda w: w + 0.1, problem.params)
  state = Iterate(start, optimiser.init(start))

  def run(unroll):
    return jax.jit(lambda h: unroll(update, problem.outer, state, h, steps))(
      problem.hyper
    )

  (ahead, one), (back, two) = run(forward_unroll), run(reverse_unroll)
  assert relative(ahead, back) < 1e-10
  assert relative(one, two) < 1e-12


def test_04_finite_differences_of_retrained_inner_problem():
  problem, eps = two_losses(), 1e-4
  value, _ = solve(problem, Neumann(terms=300))

  def retrained(alpha):
    params = newton(problem.inner, problem.params, alpha)
    return problem.outer(params, alpha)

  up, down = retrained(problem.hyper + eps), retrained(problem.hyper - eps)
  np.testing.assert_allclose(value, (up - down) / (2 * eps), rtol=1e-6)


@pytest.mark.parametrize("terms", [0, 5])
def test_05_series_equals_fixed_point_and_truncated_unroll(terms):
  problem, step = logistic(), 0.7
  value, info = solve(problem, Neumann(terms=terms, step_size=step))

  w, restore = ravel_pytree(problem.params)

  def update(w, h):
    return w - step * jax.grad(lambda w: problem.inner(restore(w), h))(w)

  def outer(w, h):
    return problem.outer(restore(w), h)

  def fixed_point(w, h):
    """Of the adjoint, terms + 1 times from zero."""
    g, direct = jax.grad(outer, (0, 1))(w, h)
    pull = jax.vjp(update, w, h)[1]
    adjoint = jnp.zeros_like(w)
    for _ in range(terms + 1):
      adjoint = pull(adjoint)[0] + g
    return trees.axpy(1.0, pull(adjoint)[1], direct)

  def unrolled(w, h):
    """Gradient descent at the minimum, its last terms + 1 steps."""
    kept = terms + 1
    return reverse_unroll(update, outer, w, h, terms + 4, truncate=kept)[0]

  assert relative(value, quick_jit(fixed_point)(w, problem.hyper)) < 1e-12
  assert relative(value, quick_jit(unrolled)(w, problem.hyper)) < 1e-9
  assert info.iterations == terms


def test_06_error_falls_as_the_smallest_eigenvalue_says():
  eigenvalues, step = np.linspace(0.2, 2.0, 12), 0.45
  problem = quadratic(eigenvalues)
  H, v = matrices(problem)
  exact = np.linalg.solve(H, v)
  terms = np.array([40, 80])
  errors = []
  for k in terms:
    _, info = solve(problem, Neumann(terms=int(k), step_size=step))
    np.testing.assert_allclose(info.q, series(H, v, step, k), rtol=1e-10)
    errors.append(np.linalg.norm(info.q - exact))
  slope = np.polyfit(terms + 1, np.log(errors), 1)[0]
  np.testing.assert_allclose(slope, np.log1p(-step * 0.2), rtol=1e-3)


@pytest.mark.parametrize("seed", range(2))
def test_07_on_its_own_data_the_weight_can_only_fall(seed):
  problem = two_losses(seed=seed)
  value, _ = solve(problem, ConjugateGradient())
  H, g = matrices(problem)
  expected = g @ np.linalg.solve(H, g) / problem.hyper
  np.testing.assert_allclose(value, expected, rtol=1e-8)
  assert value >= 0


@pytest.mark.parametrize(
  "solver",
  [
    Neumann(terms=10),
    Neumann(terms=10, step_size=0.1),
    Neumann(terms=10, step_size="power"),
    ConjugateGradient(),
    GMRES(),
    Nystrom(rank=30, rho=1e-3),
    Dense(),
  ],
  ids=lambda s: f"{type(s).__name__}-{getattr(s, 'step_size', '')}",
)
def test_08_negative_curvature_sets_the_status(solver):
  problem = quadratic(np.r_[-1.0, np.linspace(0.5, 5, 19)])
  value, info = solve(problem, solver, unroll=False)
  assert status_name(info.status) == "indefinite"
  assert info.curvature == -1
  assert jnp.all(jnp.isfinite(value))
  assert info.residual <= 1


@pytest.mark.parametrize("terms", [1, 200])
def test_08_a_step_too_large_is_reported_and_handled(terms):
  problem = quadratic(np.linspace(1.0, 10.0, 20))
  exact = dense_hypergradient(problem)

  def run(step):
    solver = Neumann(terms=terms, step_size=step)
    return hypergradient(
      problem.inner, problem.outer, problem.params, problem.hyper, solver
    )

  values, infos = quick_jit(jax.vmap(run))(jnp.asarray([0.5, 5.0, 1e8]))
  assert {status_name(s) for s in infos.status} == {"diverged"}
  assert jnp.all(infos.residual <= 1)
  if terms == 200:
    assert jnp.all(infos.residual < 1e-6)
    assert all(relative(value, exact) < 1e-6 for value in values)


def test_08_identity_makes_no_claim():
  problem = quadratic(np.linspace(1.0, 10.0, 20))
  _, info = solve(problem, Identity())
  assert jnp.isinf(info.residual)
  assert info.status == Status.TRUNCATED
  assert info.curvature == 0
  _, info = solve(problem, Identity(), exact_residual=True)
  H, v = matrices(problem)
  expected = np.linalg.norm(v - H @ v) / np.linalg.norm(v)
  np.testing.assert_allclose(info.residual, expected, rtol=1e-12)


def numpy_conjugate_gradient(A, b, rounds):
  """Textbook conjugate gradient from zero, as hypergradient libraries do it."""
  x, r = np.zeros_like(b), b.copy()
  p = r.copy()
  for _ in range(rounds):
    Ap = A @ p
    alpha = (r @ r) / (p @ Ap)
    x = x + alpha * p
    new = r - alpha * Ap
    p = new + (new @ new) / (r @ r) * p
    r = new
  return x


def test_09_equals_independent_numpy_solvers():
  problem = quadratic(np.geomspace(0.5, 8.0, 15))
  H, v = matrices(problem)
  for rounds in (5,):
    _, info = solve(problem, ConjugateGradient(rounds), unroll=False)
    expected = numpy_conjugate_gradient(H, v, rounds)
    np.testing.assert_allclose(info.q, expected, rtol=1e-9, atol=1e-12)
    left = np.linalg.norm(v - H @ expected) / np.linalg.norm(v)
    np.testing.assert_allclose(info.residual, left, rtol=1e-8)

    _, info = solve(problem, Neumann(rounds), unroll=False)
    q, r = np.zeros_like(v), v
    for _ in range(rounds):  # least residual along the residual itself
      step = np.linalg.lstsq((H @ r)[:, None], r, rcond=None)[0][0]
      q, r = q + step * r, r - step * H @ r
    np.testing.assert_allclose(info.q, q, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(info.step_size, step, rtol=1e-9)

    _, info = solve(problem, GMRES(rounds), unroll=False)
    space = np.stack([np.linalg.matrix_power(H, j) @ v for j in range(rounds)])
    basis = np.linalg.qr(space.T)[0]
    best = basis @ np.linalg.lstsq(H @ basis, v, rcond=None)[0]
    np.testing.assert_allclose(info.q, best, rtol=1e-6, atol=1e-8)
