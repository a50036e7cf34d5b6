"""Inner and outer problems with known answers, in float64."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from dmg_jax.bilevel import hypergradient


@dataclasses.dataclass(frozen=True)
class Bilevel:
  """An inner and an outer loss, and where to differentiate them."""

  inner: Callable[..., Any]
  outer: Callable[..., Any]
  params: Any
  hyper: Any


# Compiling is most of the time that these tests take.
quick_jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def solve(problem, solver, **options):
  """The hypergradient of a problem at its params and hyper."""

  def run(p, h):
    return hypergradient(problem.inner, problem.outer, p, h, solver, **options)

  return quick_jit(run)(problem.params, problem.hyper)


def spread(eigenvalues, seed=0):
  """Symmetric matrix with these eigenvalues, and the rng it came from."""
  rng = np.random.default_rng(seed)
  n = len(eigenvalues)
  basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
  return jnp.asarray(basis * np.asarray(eigenvalues) @ basis.T), rng


def quadratic(eigenvalues, seed=0, dtype=jnp.float64):
  """``½pᵀHp - pᵀBh``: the minimum is H⁻¹Bh, params are away from it."""
  matrix, rng = spread(eigenvalues, seed)
  n = matrix.shape[0]
  matrix = matrix.astype(dtype)
  push = jnp.asarray(rng.normal(size=(n, 3)), dtype)
  target = jnp.asarray(rng.normal(size=n), dtype)

  def inner(p, h):
    return p @ matrix @ p / 2 - p @ (push @ h)

  def outer(p, h):
    return jnp.sum((p - target) ** 2) / 2 + jnp.sum(h**2) / 10

  params = jnp.asarray(rng.normal(size=n), dtype)
  return Bilevel(inner, outer, params, jnp.asarray([0.1, -0.4, 0.7], dtype))


@functools.cache
def ridge(seed=0, samples=40, features=8):
  """Ridge regression at its minimum; hyper is the log of the weight decay."""
  rng = np.random.default_rng(seed)
  X, Z = (jnp.asarray(rng.normal(size=(samples, features))) for _ in "xz")
  truth = rng.normal(size=features)
  y, t = (jnp.asarray(a @ truth + rng.normal(size=samples)) for a in (X, Z))

  def inner(w, h):
    return jnp.mean((X @ w - y) ** 2) / 2 + jnp.exp(h) * (w @ w) / 2

  def outer(w, h):
    del h
    return jnp.mean((Z @ w - t) ** 2) / 2

  def fit(h):
    gram = X.T @ X / samples + jnp.exp(h) * jnp.eye(features)
    return jnp.linalg.solve(gram, X.T @ y / samples)

  hyper = jnp.asarray(-1.0)
  return Bilevel(inner, outer, fit(hyper), hyper), fit


def newton(inner, params, hyper, steps=30):
  """Minimum to machine precision; small problems only."""
  flat, restore = ravel_pytree(params)

  def loss(w, h):
    return inner(restore(w), h)

  def step(w, h):
    change = jnp.linalg.solve(jax.hessian(loss)(w, h), jax.grad(loss)(w, h))
    return w - change

  @quick_jit
  def run(w, h):
    return jax.lax.fori_loop(0, steps, lambda i, w: step(w, h), w)

  return restore(run(flat, hyper))


@functools.cache
def logistic(seed=0, samples=60, features=5):
  """Logistic regression, a pytree of weights and of hyper-parameters."""
  rng = np.random.default_rng(seed)
  X, Z = (jnp.asarray(rng.normal(size=(samples, features))) for _ in "xz")
  truth = rng.normal(size=features)
  y, t = (
    jnp.asarray((a @ truth + rng.normal(size=samples) > 0) * 2.0 - 1)
    for a in (X, Z)
  )

  def inner(p, h):
    margin = y * (X @ p["w"] + p["b"])
    weight = jax.nn.sigmoid(h["tilt"] * X[:, 0])
    fit = jnp.mean(weight * jax.nn.softplus(-margin))
    decay = jnp.sum(jnp.exp(h["decay"]) * p["w"] ** 2) + p["b"] ** 2
    return fit + decay / 20

  def outer(p, h):
    margin = t * (Z @ p["w"] + p["b"])
    return jnp.mean(jax.nn.softplus(-margin)) + 0.01 * h["tilt"] ** 2

  hyper = {"decay": jnp.zeros(features), "tilt": jnp.asarray(0.3)}
  start = {"w": jnp.zeros(features), "b": jnp.asarray(0.0)}
  return Bilevel(inner, outer, newton(inner, start, hyper), hyper)


@functools.cache
def two_losses(alpha=0.3, seed=0, n=6):
  """``(1-α) CLS + α MM`` of two strictly convex losses, at its minimum."""
  a, rng = spread(np.linspace(0.5, 3.0, n), seed)
  b, _ = spread(np.linspace(0.3, 2.0, n), seed + 1)
  u, w = (jnp.asarray(rng.normal(size=n)) for _ in "uw")

  def cls(p):
    return (p - u) @ a @ (p - u) / 2 + jnp.mean(jnp.cosh(p)) / 10

  def mm(p):
    return (p - w) @ b @ (p - w) / 2

  def inner(p, alpha):
    return (1 - alpha) * cls(p) + alpha * mm(p)

  def outer(p, alpha):
    return cls(p)

  alpha = jnp.asarray(alpha)
  params = newton(inner, jnp.zeros(n), alpha)
  return Bilevel(inner, outer, params, alpha)


class TinyNet(nn.Module):
  """Convolution, batch-mode BatchNorm, read-out: 47 weights."""

  @nn.compact
  def __call__(self, x):
    x = nn.Conv(2, (3, 3), use_bias=False, dtype=x.dtype, param_dtype=x.dtype)(
      x
    )
    x = nn.BatchNorm(
      use_running_average=False, dtype=x.dtype, param_dtype=x.dtype
    )(x)
    x = nn.tanh(x).mean((1, 2))
    return nn.Dense(3, dtype=x.dtype, param_dtype=x.dtype)(x)


@functools.cache
def tiny_cnn(seed=0, samples=8):
  """Cross-entropy and logit decay on TinyNet; running statistics frozen."""
  rng = np.random.default_rng(seed)
  x, z = (jnp.asarray(rng.normal(size=(samples, 4, 4, 1))) for _ in "xz")
  y, t = (jnp.asarray(rng.integers(0, 3, samples)) for _ in "yt")
  net = TinyNet()
  variables = quick_jit(net.init)(jax.random.key(seed), x)
  stats = variables["batch_stats"]

  def logits(p, images):
    out, _ = net.apply(
      {"params": p, "batch_stats": stats}, images, mutable=["batch_stats"]
    )
    return out

  def cross_entropy(p, images, labels):
    return optax.softmax_cross_entropy_with_integer_labels(
      logits(p, images), labels
    ).mean()

  def inner(p, h):
    decay = sum(jnp.sum(w**2) for w in jax.tree.leaves(p))
    spreading = jnp.mean(logits(p, x) ** 2)
    main = (1 - h["alpha"]) * cross_entropy(p, x, y)
    return main + h["alpha"] * spreading + jnp.exp(h["decay"]) * decay / 2

  def outer(p, h):
    return cross_entropy(p, z, t)

  hyper = {"alpha": jnp.asarray(0.2), "decay": jnp.asarray(-2.0)}
  return Bilevel(inner, outer, variables["params"], hyper)


def matrices(problem):
  """Inner Hessian and outer slope, in numpy."""

  def both(p, h):
    return jax.hessian(problem.inner)(p, h), jax.grad(problem.outer)(p, h)

  return map(np.asarray, quick_jit(both)(problem.params, problem.hyper))


def dense_hypergradient(problem, damping=0.0):
  """The oracle: full Hessian, full mixed matrix, a direct solve."""
  w, restore = ravel_pytree(problem.params)
  h, restore_hyper = ravel_pytree(problem.hyper)

  def inner(w, h):
    return problem.inner(restore(w), restore_hyper(h))

  def outer(w, h):
    return problem.outer(restore(w), restore_hyper(h))

  def derivatives(w, h):
    slopes = jax.grad(outer, (0, 1))(w, h)
    mixed = jax.jacfwd(jax.grad(inner, 1))(w, h)
    return jax.hessian(inner)(w, h), mixed, *slopes

  H, M, v, direct = map(np.asarray, quick_jit(derivatives)(w, h))
  H = H + damping * np.eye(w.size)
  value = direct - M @ np.linalg.solve(H, v)
  return restore_hyper(jnp.asarray(value))


def series(H, v, step, terms):
  """``η Σ_{j=0}^{terms} (I - ηH)^j v`` in numpy."""
  H, term = np.asarray(H), np.asarray(v)
  total = np.zeros_like(term)
  for _ in range(terms + 1):
    total = total + step * term
    term = term - step * H @ term
  return total


def relative(a, b):
  """``‖a - b‖ / ‖b‖`` over two pytrees."""
  x, y = (np.asarray(ravel_pytree(tree)[0]) for tree in (a, b))
  return float(np.linalg.norm(x - y) / np.linalg.norm(y))
