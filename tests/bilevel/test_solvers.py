"""Diagnostics, options and errors of the solvers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bilevel_problems import (
  dense_hypergradient,
  logistic,
  matrices,
  quadratic,
  quick_jit,
  relative,
  series,
  solve,
  spread,
)
from dmg_jax import trees
from dmg_jax.bilevel import (
  GMRES,
  ConjugateGradient,
  Dense,
  Identity,
  Neumann,
  Nystrom,
  hypergradient,
  largest_eigenvalue,
  solver_by_name,
  status_name,
)

NAMES = ["identity", "neumann", "cg", "gmres", "nystrom", "dense"]


def test_automatic_step_never_diverges():
  rng = np.random.default_rng(0)
  scales = 10.0 ** rng.uniform(-4, 4, size=6)
  spectra = scales[:, None] * np.exp(rng.uniform(0, 3, size=(6, 20)))
  H = jnp.stack([spread(e, seed)[0] for seed, e in enumerate(spectra)])
  v = jnp.asarray(rng.normal(size=(6, 20)))
  all_terms = (1, 2, 3, 10, 30, 400)

  def run(H, v):
    inner = lambda p, h: p @ H @ p / 2 - h @ p  # noqa: E731
    outer = lambda p, h: v @ p  # noqa: E731
    zero = jnp.zeros_like(v)
    return [
      hypergradient(inner, outer, zero, zero, Neumann(k), unroll=False)
      for k in all_terms
    ]

  last = 1.0
  for terms, (_, info) in zip(
    all_terms, quick_jit(jax.vmap(run))(H, v), strict=True
  ):
    left = jnp.linalg.norm(v - jnp.einsum("nij,nj->ni", H, info.q), axis=1)
    left = left / jnp.linalg.norm(v, axis=1)
    np.testing.assert_allclose(info.residual, left, rtol=1e-8, atol=1e-14)
    assert jnp.all(info.residual < last)
    names = {status_name(s) for s in info.status}
    assert names == ({"truncated"} if terms <= 10 else {"converged"}) or (
      terms == 30
    )
    last = info.residual
  exact = jax.vmap(jnp.linalg.solve)(H, v)
  assert relative(info.q, exact) < 1e-6
  np.testing.assert_allclose(info.lambda_max, spectra.max(1), rtol=1e-3)


def test_constant_step_bounds_its_residual_and_can_measure_it():
  problem = quadratic(np.linspace(0.5, 4, 12))
  H, v = matrices(problem)
  solver = Neumann(terms=6, step_size=0.3)
  exact = v - H @ series(H, v, 0.3, 6)
  exact = np.linalg.norm(exact) / np.linalg.norm(v)
  _, bounded = solve(problem, solver)
  _, measured = solve(problem, solver, exact_residual=True)
  assert exact <= bounded.residual < 1
  np.testing.assert_allclose(measured.residual, exact, rtol=1e-10)


@pytest.mark.parametrize(
  "solver",
  [
    Neumann(terms=30),
    ConjugateGradient(),
    GMRES(iterations=12),
    Nystrom(rank=12, rho=0.1),
    Dense(),
  ],
  ids=lambda s: type(s).__name__,
)
def test_largest_eigenvalue_and_damping(solver):
  problem = quadratic(np.linspace(1.0, 4.0, 12))
  damping = 0.1 if isinstance(solver, Nystrom) else 0.5
  if not isinstance(solver, Nystrom):
    solver = dataclasses.replace(solver, damping=0.2)
  outside = damping - getattr(solver, "damping", damping)
  value, info = solve(problem, solver, damping=outside)
  assert relative(value, dense_hypergradient(problem, damping)) < 1e-6
  np.testing.assert_allclose(info.lambda_max, 4.0 + damping, rtol=2e-3)
  H, v = matrices(problem)
  left = v - H @ info.q - damping * info.q
  left = np.linalg.norm(left) / np.linalg.norm(v)
  np.testing.assert_allclose(info.residual, left, atol=1e-12)
  cosine = info.q @ v / np.linalg.norm(info.q) / np.linalg.norm(v)
  np.testing.assert_allclose(info.cosine, cosine, rtol=1e-10)


def test_nystrom_with_few_directions_equals_its_formula_or_is_scaled():
  problem = quadratic(np.r_[np.full(10, 1.0), 50.0, 80.0])
  _, info = solve(problem, Nystrom(rank=4, rho=1.0))
  assert info.residual < 1
  _, info = solve(problem, Nystrom(rank=4, rho=1e-4))
  assert info.residual <= 1
  assert status_name(info.status) == "diverged"


@pytest.mark.parametrize(
  "solver", [Neumann(terms=3), ConjugateGradient(3), GMRES(3)]
)
def test_warm_start_continues(solver):
  problem = quadratic(np.linspace(1.0, 4.0, 12))
  H, v = matrices(problem)
  rng = np.random.default_rng(0)
  near = np.linalg.solve(H, v) + 1e-8 * rng.normal(size=12)
  value, info = solve(problem, solver, q0=near)
  assert info.residual < 1e-8
  left = np.linalg.norm(v - H @ info.q) / np.linalg.norm(v)
  np.testing.assert_allclose(info.residual, left, rtol=1e-5)
  assert info.iterations == 4
  assert relative(value, dense_hypergradient(problem)) < 1e-7


@pytest.mark.parametrize("name", NAMES)
def test_anything_not_finite_gives_zero_and_says_so(name):
  problem = quadratic(np.linspace(1.0, 4.0, 6))

  def run(bad):
    def inner(p, h):
      value = problem.inner(p, h) + bad["hessian"] * jnp.sum(p**2)
      return value + bad["mixed"] * jnp.sum(h) * jnp.sum(p)

    def outer(p, h):
      value = problem.outer(p, h) * bad["scale"] + jnp.sum(h**2)
      return value + bad["slope"] * jnp.sum(p)

    return hypergradient(
      inner,
      outer,
      problem.params,
      problem.hyper,
      solver_by_name(name),
      unroll=False,
    )

  bad = {
    "slope": jnp.asarray([0, jnp.nan, 0, 0]),
    "mixed": jnp.asarray([0, 0, jnp.inf, 0]),
    "hessian": jnp.asarray([0, 0, 0, jnp.nan]),
    "scale": jnp.asarray([0.0, 1, 1, 1]),
  }
  values, infos = quick_jit(jax.vmap(run))(bad)
  # A zero outer slope: the direct part remains.
  np.testing.assert_allclose(values[0], 2 * problem.hyper, rtol=1e-12)
  assert not jnp.isnan(infos.residual[0])
  for i in (1, 2, 3):
    if (name, i) == ("identity", 3):
      continue  # it never looks at the Hessian
    assert status_name(infos.status[i]) == "nonfinite"
    np.testing.assert_array_equal(values[i], np.zeros(3))
    np.testing.assert_array_equal(infos.q[i], np.zeros(6))


@pytest.mark.slow
def test_unrolled_and_compiled_loops_agree_in_both_products():
  problem = logistic()
  want, _ = solve(problem, Neumann(3), unroll=True)
  for unroll, matvec in ((False, "linearize"), (None, "jvp")):
    got, _ = solve(problem, Neumann(3), unroll=unroll, matvec=matvec)
    assert relative(got, want) < 1e-12


def test_power_iteration():
  eigenvalues = np.r_[-9.0, np.linspace(0.1, 5, 10)]
  H = jax.hessian(quadratic(eigenvalues).inner)(jnp.zeros(11), jnp.zeros(3))
  tree = {"a": jnp.zeros(4), "b": jnp.zeros((7, 1))}
  flat = lambda t: jnp.concatenate([t["a"], t["b"][:, 0]])  # noqa: E731

  def matvec(t):
    u = H @ flat(t)
    return {"a": u[:4], "b": u[4:, None]}

  found = largest_eigenvalue(matvec, tree, 80, 0, unroll=False)
  np.testing.assert_allclose(found, -9.0, rtol=1e-10)
  few = [largest_eigenvalue(matvec, tree, 3, seed, False) for seed in (0, 0, 1)]
  assert few[0] == few[1] != few[2]
  assert all(abs(x) <= 9 for x in few)


def test_a_solver_by_its_name():
  assert solver_by_name("neumann", terms=3) == Neumann(terms=3)
  assert isinstance(solver_by_name("identity"), Identity)
  for name in NAMES:
    hash(solver_by_name(name))


@pytest.mark.parametrize(
  "call, words",
  [
    (lambda: solver_by_name("neuman"), ["'neuman'", "cg", "'neumann'?"]),
    (lambda: solver_by_name("cg", iteration=3), ["'iteration'", "rtol"]),
    (lambda: solver_by_name("identity", terms=3), ["'terms'", "none"]),
    (lambda: Neumann(step_size="fast"), ["'fast'", "'auto'", "'power'"]),
    (lambda: Neumann(step_size=-1.0), ["-1.0", "positive"]),
    (lambda: Neumann(terms=0), ["terms=0", "Identity"]),
    (lambda: ConjugateGradient(iterations=0), ["iterations=0"]),
    (lambda: GMRES(iterations=0), ["iterations=0"]),
    (lambda: Nystrom(rank=0), ["rank=0"]),
    (lambda: Nystrom(rho=0.0), ["rho=0.0", "positive"]),
    (lambda: status_name(17), ["17", "converged"]),
    (lambda: bad_call(matvec="forward"), ["'forward'", "linearize"]),
    (lambda: bad_call(curvature="fisher"), ["'fisher'", "hessian"]),
    (lambda: bad_call(solver="newton"), ["'newton'", "neumann"]),
    (lambda: bad_call(params={"n": 3}), ["params['n']", "int"]),
    (
      lambda: bad_call(batches=(jnp.zeros(2), jnp.zeros(3))),
      ["(2,)", "(3,)", "stack"],
    ),
  ],
)
def test_errors_name_the_value_and_the_choices(call, words):
  with pytest.raises(ValueError) as error:
    call()
  for word in words:
    assert word in str(error.value)


def bad_call(params=1.0, **options):
  square = lambda p, h, *b: trees.vdot(p, p) * h  # noqa: E731
  return hypergradient(square, square, params, 1.0, **options)
