"""jit, vmap, sharding, narrow dtypes: the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import device
from bilevel_problems import (
  dense_hypergradient,
  quadratic,
  quick_jit,
  relative,
  solve,
)
from dmg_jax import trees
from dmg_jax.bilevel import (
  GMRES,
  ConjugateGradient,
  Dense,
  Iterate,
  Neumann,
  forward_unroll,
  hypergradient,
  optax_update,
  reverse_unroll,
  status_name,
  tangent_step,
  zero_tangent,
)

SOLVERS = [
  Neumann(3),
  pytest.param(ConjugateGradient(4), marks=pytest.mark.slow),
  pytest.param(GMRES(3), marks=pytest.mark.slow),
]


def regression(dtype=jnp.float64):
  rng = np.random.default_rng(0)
  data = {
    "x": jnp.asarray(rng.normal(size=(32, 4)), dtype),
    "y": jnp.asarray(rng.normal(size=32), dtype),
  }
  params = {
    "w": jnp.asarray(rng.normal(size=4), dtype),
    "b": jnp.asarray(0.1, dtype),
  }

  def inner(p, h, data):
    error = jnp.tanh(data["x"] @ p["w"] + p["b"]) - data["y"]
    decay = jnp.sum(p["w"] ** 2) + p["b"] ** 2
    return jnp.mean(error**2) + h * decay

  def outer(p, h, data):
    del h
    return jnp.mean((data["x"] @ p["w"] + p["b"] - data["y"]) ** 2)

  def run(p, h, data, solver):
    return hypergradient(
      lambda p, h: inner(p, h, data),
      lambda p, h: outer(p, h, data),
      p,
      h,
      solver,
    )

  return run, params, jnp.asarray(1.0, dtype), data


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_vmapped_and_sharded_equal_jitted(solver):
  run, params, hyper, data = regression()
  call = quick_jit(lambda p, h, d: run(p, h, d, solver))
  want, want_info = call(params, hyper, data)

  many = jnp.asarray([0.7, 1.0])
  together, infos = quick_jit(jax.vmap(lambda h: run(params, h, data, solver)))(
    many
  )
  np.testing.assert_allclose(together[1], want, rtol=1e-10)
  np.testing.assert_allclose(
    infos.residual[1], want_info.residual, rtol=1e-8, atol=1e-14
  )

  mesh = Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
  put = lambda tree, spec: jax.device_put(  # noqa: E731
    tree, NamedSharding(mesh, spec)
  )
  got, info = call(put(params, P()), put(hyper, P()), put(data, P("data")))
  np.testing.assert_allclose(got, want, rtol=1e-10)
  np.testing.assert_allclose(info.lambda_max, want_info.lambda_max, rtol=1e-8)
  assert info.q["w"].sharding.is_fully_replicated


@pytest.mark.parametrize(
  "solver",
  [Neumann(300), ConjugateGradient(), GMRES(8), Dense()],
  ids=lambda s: type(s).__name__,
)
def test_float32_stays_float32_and_agrees(solver):
  narrow = quadratic(np.linspace(1.0, 5.0, 8), dtype=jnp.float32)
  want = dense_hypergradient(quadratic(np.linspace(1.0, 5.0, 8)))
  got, info = solve(narrow, solver)
  assert {x.dtype for x in jax.tree.leaves((got, info.q))} == {
    jnp.dtype("float32")
  }
  assert info.residual.dtype == jnp.float32
  assert status_name(info.status) == "converged"
  assert relative(got, want) < device.tolerance(1e-5)


def test_bfloat16_weights_get_float32_vectors():
  run, params, hyper, data = regression(jnp.bfloat16)
  reference, wide, h, d = regression(jnp.float32)
  solver = Neumann(terms=4)
  want, want_info = quick_jit(lambda p: reference(p, h, d, solver))(wide)
  got, info = quick_jit(lambda p: run(p, hyper, data, solver))(params)
  assert got.dtype == jnp.bfloat16
  assert info.q["w"].dtype == info.residual.dtype == jnp.float32
  cosine = trees.vdot(info.q, want_info.q) / (
    trees.norm(info.q) * trees.norm(want_info.q)
  )
  assert cosine > 0.99
  np.testing.assert_allclose(np.float32(got), want, rtol=0.05)


def test_python_numbers_and_mixed_precision_leaves():
  inner = lambda p, h: (p["a"] ** 2 + 2 * p["b"] ** 2) * h  # noqa: E731
  outer = lambda p, h: p["a"] + p["b"]  # noqa: E731
  params = {"a": jnp.float32(1.0), "b": jnp.asarray(2.0)}
  value, info = quick_jit(
    lambda p: hypergradient(inner, outer, p, 0.5, ConjugateGradient())
  )(params)
  np.testing.assert_allclose(value, -(1 / 0.5 + 2 / 0.5), rtol=1e-6)
  assert info.q["a"].dtype == jnp.float32
  assert info.q["b"].dtype == jnp.float64


def test_one_compilation_for_all_values():
  run, params, hyper, data = regression()
  traces = []

  @jax.jit
  def call(h, step):
    traces.append(1)
    return run(params, h, data, Neumann(3, step_size=step))[0]

  call(hyper, jnp.asarray(0.1))
  call(hyper * 2, jnp.asarray(0.2))
  assert len(traces) == 1


def stochastic_training():
  """Momentum-free Adam on fresh batches; hyper is a vector and a scalar."""
  rng = np.random.default_rng(0)
  batches = {
    "x": jnp.asarray(rng.normal(size=(6, 8, 3))),
    "y": jnp.asarray(rng.normal(size=(6, 8))),
  }

  def inner(p, h, batch):
    fit = jnp.mean((batch["x"] @ p - batch["y"]) ** 2)
    return fit + jnp.sum(h["decay"] * p**2) * h["all"]

  outer = lambda p, h: jnp.sum((p - 1) ** 2) * h["all"]  # noqa: E731
  optimiser = optax.adam(0.1)
  start = jnp.asarray(rng.normal(size=3))
  hyper = {"decay": jnp.asarray([0.1, 0.2, 0.3]), "all": jnp.asarray(0.7)}
  state = Iterate(start, optimiser.init(start))
  return optax_update(inner, optimiser), outer, state, hyper, batches


def test_unrolling_through_fresh_batches():
  update, outer, state, hyper, batches = stochastic_training()
  run = lambda unroll, **options: quick_jit(  # noqa: E731
    lambda h: unroll(update, outer, state, h, 6, batches=batches, **options)
  )(hyper)
  ahead, end = run(forward_unroll)
  for options in ({}, {"checkpoint": True}):
    back, same = run(reverse_unroll, **options)
    assert relative(ahead, back) < 1e-10
    assert relative(end.params, same.params) < 1e-12
  with pytest.raises(ValueError, match="6 batches for steps=7"):
    forward_unroll(update, outer, state, hyper, 7, batches=batches)


def test_tangent_step_under_jit_and_scan():
  update, outer, state, hyper, batches = stochastic_training()
  along = {"decay": jnp.zeros(3), "all": jnp.asarray(1.0)}

  def body(carry, batch):
    return tangent_step(update, *carry, hyper, along, batch), None

  carry = (state, zero_tangent(state))
  (end, tangent), _ = quick_jit(lambda c: jax.lax.scan(body, c, batches))(carry)
  slope, direct = jax.grad(outer, (0, 1))(end.params, hyper)
  value = trees.vdot(slope, tangent.params) + direct["all"]
  want, _ = reverse_unroll(update, outer, state, hyper, 6, batches=batches)
  np.testing.assert_allclose(value, want["all"], rtol=1e-10)
  assert end.opt_state[0].count == 6
  assert tangent.opt_state[0].count.dtype == jnp.int8


def test_a_key_in_the_state_is_carried_along():
  state = (jnp.asarray(1.0), jax.random.key(0))

  def update(state, h):
    w, key = state
    key, k_noise = jax.random.split(key)
    return w - h * (w + jax.random.normal(k_noise)), key

  outer = lambda s, h: s[0] ** 2  # noqa: E731
  hyper = jnp.asarray(0.2)
  ahead, _ = forward_unroll(update, outer, state, hyper, 4)
  back, _ = reverse_unroll(update, outer, state, hyper, 4)
  np.testing.assert_allclose(ahead, back, rtol=1e-12)
