"""Products with the curvature matrix, never the matrix itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from dmg_jax import trees
from dmg_jax.errors import InputError

Inner = Callable[..., Float[Array, ""]]
Product = Callable[[PyTree], PyTree]
MATVECS = ("jvp", "linearize")


class Operator(NamedTuple):
  """What a solver may touch of the inner problem.

  Attributes:
    product: ``(u, i) -> H u``, with ``u`` like the parameters and ``i`` the
      number of the product (it names the batch when each has a fresh one).
    both: ``(u, i) -> (H u, M u)`` with the mixed product ``M u``, like hyper,
      where that comes almost for free; ``None`` where it does not.
    unroll: how the solver runs its loop; see ``loops.unrolled``.
    fixed: whether all products are with the same matrix.
  """

  product: Callable[[PyTree, Any], PyTree]
  both: Callable[[PyTree, Any], tuple[PyTree, PyTree]] | None = None
  unroll: bool | None = None
  fixed: bool = True

  def damped(self, damping) -> Operator:
    """The operator of ``H + damping·I``; a plain zero costs nothing."""
    if isinstance(damping, (int, float)) and damping == 0:
      return self
    product, both = self.product, self.both

    def damped_both(u: PyTree, i: Any) -> tuple[PyTree, PyTree]:
      assert both is not None
      Hu, Mu = both(u, i)
      return trees.axpy(damping, u, Hu), Mu

    return self._replace(
      product=lambda u, i: trees.axpy(damping, u, product(u, i)),
      both=None if both is None else damped_both,
    )


def hessian_product(
  inner: Inner, params: PyTree, hyper: PyTree, matvec: str, *batch: Any
) -> Product:
  r"""``u -> H u``, ``H = ∂² inner / ∂params²``, forward over reverse.

  .. math:: H u = \frac{d}{dε} ∇_θ inner(θ + ε u, hyper) |_{ε=0}

  Args:
    inner: scalar function of (params, hyper, *batch).
    params: where to differentiate.
    hyper: held fixed.
    matvec: ``"jvp"`` repeats the gradient in every product, which costs three
      gradients and the least memory; ``"linearize"`` stores the gradient's
      intermediate values once, and each product then costs two gradients.
    *batch: passed on to ``inner``.

  Reference: Pearlmutter, Fast Exact Multiplication by the Hessian, Neural
    Computation 1994.
  """

  def grad(p: PyTree) -> PyTree:
    return jax.grad(inner)(p, hyper, *batch)

  return derivative(grad, params, matvec)


def derivative(
  f: Callable[[PyTree], PyTree], params: PyTree, matvec: str
) -> Product:
  """``u -> ∂f u`` at ``params``, in one of the two ways.

  Outside of ``jax.jit`` it is compiled, once for all products.
  """
  if matvec == "linearize":
    return jax.linearize(jax.jit(f), params)[1]

  @jax.jit
  def along(at: PyTree, u: PyTree) -> PyTree:
    return jax.jvp(f, (at,), (u,))[1]

  # The barrier keeps the compiler from sharing, and so storing, the
  # intermediate values of all products.
  return lambda u: along(*jax.lax.optimization_barrier((params, u)))


@dataclasses.dataclass(frozen=True)
class GaussNewton:
  r"""Inner problem split so that its Gauss-Newton product can be formed.

  .. math::
    inner(θ, hyper) = loss(predict(θ), hyper) + penalty(θ, hyper), \qquad
    G = Jᵀ (∂² loss / ∂outputs²) J + ∂² penalty / ∂θ²

  with ``J = ∂ predict / ∂θ``. ``G`` is positive semi-definite when ``loss`` is
  convex in the outputs and the penalty is convex. An instance is itself a valid
  ``inner``:

    problem = GaussNewton(predict, loss)
    hypergradient(problem, outer, params, hyper, curvature=problem)

  Attributes:
    predict: ``(params, *batch) -> outputs``, any pytree of floats.
    loss: ``(outputs, hyper, *batch) -> scalar``.
    penalty: ``(params, hyper) -> scalar`` whose own Hessian is used, such as
      weight decay; ``None`` for none.

  Reference: Schraudolph, Fast Curvature Matrix-Vector Products for Second-Order
    Gradient Descent, Neural Computation 2002.
  """

  predict: Callable[..., PyTree]
  loss: Callable[..., Float[Array, ""]]
  penalty: Callable[[PyTree, PyTree], Float[Array, ""]] | None = None

  def __call__(
    self, params: PyTree, hyper: PyTree, *batch: Any
  ) -> Float[Array, ""]:
    """The inner objective itself."""
    value = self.loss(self.predict(params, *batch), hyper, *batch)
    if self.penalty is None:
      return value
    return value + self.penalty(params, hyper)

  def product(
    self, params: PyTree, hyper: PyTree, matvec: str, *batch: Any
  ) -> Product:
    """``u -> G u`` at (params, hyper); same arguments as the Hessian's."""

    def predict(p: PyTree) -> PyTree:
      return self.predict(p, *batch)

    slope = jax.grad(lambda z: self.loss(z, hyper, *batch))

    if matvec == "linearize":
      main = self._linearized(predict, slope, params)
    else:
      main = self._repeated(predict, slope, params)
    if self.penalty is None:
      return main
    rest = hessian_product(self.penalty, params, hyper, matvec)
    return lambda u: jax.tree.map(jnp.add, main(u), rest(u))

  @staticmethod
  def _repeated(
    predict: Callable[[PyTree], PyTree],
    slope: Callable[[PyTree], PyTree],
    params: PyTree,
  ) -> Product:
    def product(u: PyTree) -> PyTree:
      at, along = jax.lax.optimization_barrier((params, u))
      outputs, tangent = jax.jvp(predict, (at,), (along,))
      curved = jax.jvp(slope, (outputs,), (tangent,))[1]
      return jax.vjp(predict, at)[1](curved)[0]

    return product

  @staticmethod
  def _linearized(
    predict: Callable[[PyTree], PyTree],
    slope: Callable[[PyTree], PyTree],
    params: PyTree,
  ) -> Product:
    outputs, push = jax.linearize(predict, params)
    pull = jax.linear_transpose(push, params)
    bend = jax.linearize(slope, outputs)[1]
    return lambda u: pull(bend(push(u)))[0]


def batch_count(batches: PyTree) -> int:
  """Length of the common leading axis.

  Raises:
    ValueError: the leaves disagree, or one has no leading axis.
  """
  lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batches)}
  if len(lengths) != 1 or lengths == {()}:
    found = sorted(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(batches))
    raise InputError(
      f"batches must be stacked on one leading axis, found shapes {found}; "
      "stack them with jax.tree.map(lambda *x: jnp.stack(x), *list)"
    )
  return lengths.pop()[0]


def pick_batch(batches: PyTree, i: Any) -> PyTree:
  """Batch ``i`` of a stack, counted round and round."""
  n = batch_count(batches)
  return jax.tree.map(lambda x: jnp.asarray(x)[i % n], batches)


def mean_over(batches: PyTree, f: Callable[[PyTree], PyTree]) -> PyTree:
  """Mean of ``f(batch)`` over a stack, one batch in memory at a time."""
  n = batch_count(batches)

  def add(total: PyTree, batch: PyTree) -> tuple[PyTree, None]:
    return jax.tree.map(jnp.add, total, f(batch)), None

  shape = jax.eval_shape(f, pick_batch(batches, 0))
  start = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shape)
  total, _ = jax.lax.scan(add, start, batches)
  return trees.scale(1 / n, total)
