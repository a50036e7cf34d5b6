"""Cost in gradients of the inner loss, as the compiler counts: no clock."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
import pytest

from bilevel_problems import quick_jit
from dmg_jax.bilevel import Neumann, hypergradient

pytestmark = pytest.mark.usefixtures("optimised")


class ConvNet(nn.Module):
  @nn.compact
  def __call__(self, x):
    for width, stride in ((16, 1), (32, 2), (32, 1)):
      x = nn.relu(nn.Conv(width, (3, 3), (stride, stride))(x))
    x = nn.Dense(32)(x.mean((1, 2)))
    return nn.Dense(10)(x), x


class Perceptron(nn.Module):
  @nn.compact
  def __call__(self, x):
    x = x.reshape(x.shape[0], -1)
    for width in (128, 128, 64):
      x = nn.relu(nn.Dense(width)(x))
    return nn.Dense(10)(x), x


def build(net, outer_samples):
  """``(1-α) CLS + α matching`` on 32×32 pictures, float32."""
  x = jnp.ones((16, 32, 32, 3), jnp.float32)
  z = jnp.full((outer_samples, 32, 32, 3), 2.0, jnp.float32)
  labels = jnp.arange(16) % 10
  params = jax.eval_shape(net.init, jax.random.key(0), x)

  def losses(p, x):
    logits, features = net.apply(p, x)
    matching = jax.nn.log_softmax(features @ features.T)
    cross = optax.softmax_cross_entropy_with_integer_labels(
      logits, labels[: x.shape[0]]
    )
    return cross.mean(), -jnp.mean(jnp.diag(matching))

  def inner(p, alpha):
    cls, mm = losses(p, x)
    return (1 - alpha) * cls + alpha * mm

  outer = lambda p, alpha: losses(p, z)[0]  # noqa: E731
  return inner, outer, params


def cost(f, *args):
  compiled = quick_jit(f).lower(*args).compile()
  flops = compiled.cost_analysis()["flops"]
  return flops, compiled.memory_analysis().temp_size_in_bytes


ALPHA = jax.ShapeDtypeStruct((), jnp.float32)
NETS = {"conv": ConvNet(), "perceptron": Perceptron()}


@pytest.mark.parametrize("name", NETS)
def test_hessian_vector_product(name):
  inner, _, params = build(NETS[name], 16)
  product = lambda p, a, u: jax.jvp(  # noqa: E731
    lambda p: jax.grad(inner)(p, a), (p,), (u,)
  )[1]
  one, _ = cost(jax.grad(inner), params, ALPHA)
  assert cost(product, params, ALPHA, params)[0] <= 2.65 * one


@pytest.mark.slow
@pytest.mark.parametrize(
  "name, solver, outer_samples, limit",
  [
    # The automatic step costs nothing, and brings the mixed product along.
    ("conv", Neumann(terms=5), 16, 11.5),
    # A given step makes the mixed product at the end: two thirds of a gradient
    # more. Within the goal with the outer batch a quarter of the inner one.
    ("conv", Neumann(terms=5, step_size=0.1), 16, 12.2),
    ("conv", Neumann(terms=5, step_size=0.1), 4, 11.5),
  ],
)
def test_five_term_update_in_gradients(name, solver, outer_samples, limit):
  inner, outer, params = build(NETS[name], outer_samples)
  one, _ = cost(jax.grad(inner), params, ALPHA)
  update = lambda p, a: hypergradient(  # noqa: E731
    inner, outer, p, a, solver, unroll=True
  )
  flops, _ = cost(update, params, ALPHA)
  assert flops <= limit * one


@pytest.mark.slow
@pytest.mark.parametrize(
  "solver, matvec, limit",
  [
    (Neumann(8), "jvp", 2.1),
    (Neumann(8, step_size=0.1), "jvp", 2.1),
    (Neumann(8), "linearize", 3.3),
  ],
)
def test_memory_of_an_update_in_gradients(solver, matvec, limit):
  inner, outer, params = build(NETS["conv"], 16)
  _, one = cost(jax.grad(inner), params, ALPHA)
  update = lambda p, a: hypergradient(  # noqa: E731
    inner, outer, p, a, solver, matvec=matvec, unroll=False
  )
  assert cost(update, params, ALPHA)[1] <= limit * one


@pytest.mark.slow
def test_slope_of_a_term():
  inner, outer, params = build(NETS["perceptron"], 16)
  one, _ = cost(jax.grad(inner), params, ALPHA)
  flops = {}
  for k in (1, 5):
    update = lambda p, a, k=k: hypergradient(  # noqa: E731
      inner, outer, p, a, Neumann(k), unroll=True
    )
    flops[k], _ = cost(update, params, ALPHA)
  assert flops[5] - flops[1] <= 4 * 2.0 * one
  assert flops[5] <= 11.5 * one


def test_no_matrix_is_ever_formed():
  """The largest intermediate value is an activation, or a vector."""
  inner, outer, params = build(NETS["perceptron"], 16)
  jaxpr = jax.make_jaxpr(lambda p, a: hypergradient(inner, outer, p, a))(
    params, jnp.float32(0.3)
  )
  largest = max(leaf.size for leaf in jax.tree.leaves(params))
  limit = max(largest, 16 * 32 * 32 * 3)
  sizes = [
    v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars if v.aval.shape
  ]
  assert max(sizes) <= limit
