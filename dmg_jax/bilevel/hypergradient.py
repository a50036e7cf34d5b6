r"""Hypergradients by the implicit function theorem.

.. math::
  value = \frac{∂ outer}{∂ hyper}
    - \frac{∂² inner}{∂ hyper ∂ θ} q, \qquad H q ≈ ∇_θ outer, \quad
  H = \frac{∂² inner}{∂ θ²}

which is ``d outer(θ*(hyper), hyper) / d hyper`` if ``params`` are a minimum θ*
of the inner objective and ``q`` solves exactly; away from a minimum it is
biased. The mixed product is ``d/dε ∇_hyper inner(θ + εq, hyper)``: forward mode
over a reverse pass that goes to ``hyper`` only: less than one gradient.

Parameters narrower than float32 are seen by ``inner`` and ``outer`` as they
are; gradients, products and every vector of the solver are float32.

* ``matvec="linearize"`` stores the gradient's intermediate values once: two
  gradients a product, three times the memory of a gradient. ``"jvp"`` repeats
  the gradient: three gradients a product, twice the memory. With ``batches`` it
  is always the latter.
* ``unroll=None`` unrolls few rounds on CPU, but not with ``"jvp"``: the CPU
  compiler would share what unrolled products have in common, and store it.
* ``separate=True`` is for callers that compile each product by itself, as
  ``training.steps`` does for many weights on CPU. All rounds then share one
  compiled product: ``matvec=None`` is ``"jvp"``, and loops are unrolled.
* Outside of ``jax.jit`` the whole computation is compiled, once for the same
  functions, options and shapes. Pass the same ``inner`` and ``outer`` again and
  nothing is compiled; define them once, and close over nothing that changes.
* ``batches``: Neumann uses batch ``i mod n`` for product i and the batch after
  its last product for the mixed product: give ``terms + 1`` of them for all to
  be fresh. Other solvers, which need one matrix, take the mean of ``inner``
  over the n batches, with one batch in memory at a time.

References: Lorraine, Vicol and Duvenaud, Optimizing Millions of Hyperparameters
by Implicit Differentiation, AISTATS 2020, Eq. 2; Pedregosa, Hyperparameter
Optimization with Approximate Gradient, ICML 2016.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from dmg_jax import trees
from dmg_jax.bilevel import curvature as curvatures
from dmg_jax.bilevel.curvature import GaussNewton, Inner, Operator
from dmg_jax.bilevel.info import HypergradientInfo, Status, tolerance
from dmg_jax.bilevel.neumann import Neumann
from dmg_jax.bilevel.solvers import Solver, solver_by_name
from dmg_jax.errors import InputError

Outer = Callable[[PyTree, PyTree], Float[Array, ""]]
NEUMANN = Neumann(terms=10)
# Up to so many hyper-parameters the mixed product comes with each product.
SMALL = 16


def hypergradient(
  inner: Inner,
  outer: Outer,
  params: PyTree,
  hyper: PyTree,
  solver: Solver | str = NEUMANN,
  *,
  curvature: GaussNewton | str = "hessian",
  matvec: str | None = None,
  unroll: bool | None = None,
  batches: PyTree | None = None,
  damping: ArrayLike = 0.0,
  q0: PyTree | None = None,
  exact_residual: bool = False,
  separate: bool = False,
) -> tuple[PyTree, HypergradientInfo]:
  r"""Gradient of the outer loss at the inner minimum, with respect to hyper.

  .. math:: value = \partial_h\, outer - \partial_h \partial_θ\, inner \; q,
    \qquad H q ≈ ∇_θ\, outer, \quad H = \partial²_θ\, inner

  No matrix as wide as the parameters is formed (except by ``Dense``). It jits,
  vmaps and runs on sharded arrays. See the module for what the options cost.

  Args:
    inner: ``(params, hyper) -> scalar``, twice differentiable; with ``batches``
      ``(params, hyper, batch) -> scalar``. Whatever is random or stateful in it
      (dropout keys, running statistics) must be fixed.
    outer: ``(params, hyper) -> scalar``.
    params: pytree of floats.
    hyper: pytree of floats, of any size.
    solver: how ``q`` is found, or the name of one with its defaults.
    curvature: ``"hessian"``, or a ``GaussNewton`` for its product instead.
    matvec: ``"linearize"`` or ``"jvp"``; ``None`` chooses.
    unroll: whether the solver's loop is unrolled; ``None`` chooses.
    batches: pytree of batches stacked on a leading axis.
    damping: ρ ≥ 0, added to H before the solver's own.
    q0: where the solver starts, such as ``info.q`` of the last call.
    exact_residual: measure the residual with one more product.
    separate: the caller compiles each product by itself.

  Returns:
    The hypergradient, like ``hyper``, and its diagnostics. If anything is not
    finite both it and ``info.q`` are zero and the status is NONFINITE.

  Raises:
    ValueError: an unknown solver, curvature or matvec; a leaf of ``params`` or
      ``hyper`` that is not a float; batches without a common leading axis.
  """
  solver = solver_by_name(solver) if isinstance(solver, str) else solver
  matvec = matvec or ("jvp" if separate else "linearize")
  _check(params, hyper, curvature, matvec)
  if unroll is None and (separate or matvec == "jvp"):
    unroll = separate
  static = (inner, outer, solver, curvature, matvec, unroll, exact_residual)
  arrays = (params, hyper, batches, damping, q0)
  if separate or not _can_be_kept(static, arrays):
    return _implicit(*static, *arrays)
  if _is_zero(damping):
    arrays = (params, hyper, batches, None, q0)
  return _compiled(*static)(*arrays)


def _can_be_kept(static: Any, arrays: Any) -> bool:
  """Whether a program may be kept: nothing is traced, all can be hashed."""
  # Under jit every new array is traced, too.
  leaves = [*jax.tree.leaves(arrays), jnp.zeros(())]
  if any(isinstance(leaf, Tracer) for leaf in leaves):
    return False
  try:
    hash(static)
  except TypeError:
    return False
  return True


def _is_zero(damping: ArrayLike) -> bool:
  return isinstance(damping, (int, float)) and damping == 0


@functools.lru_cache(maxsize=16)
def _compiled(*static: Any) -> Callable[..., tuple[PyTree, HypergradientInfo]]:
  """``_implicit`` of these functions and options, compiled."""
  fixed = functools.partial(_implicit, *static)

  @jax.jit
  def run(params, hyper, batches, damping, q0):
    damping = 0 if damping is None else damping
    return fixed(params, hyper, batches, damping, q0)

  return run


def _implicit(
  inner, outer, solver, curvature, matvec, unroll, exact_residual,
  params, hyper, batches, damping, q0,
):  # fmt: skip
  """``hypergradient`` with its arguments checked."""
  wide, wide_hyper = trees.upcast(params), trees.upcast(hyper)
  objective = _narrowed(inner, params, hyper)
  if isinstance(curvature, GaussNewton):
    curvature = _narrowed_split(curvature, params, hyper)
  operator = _operator(
    objective, wide, wide_hyper, curvature, matvec, unroll, batches, solver
  ).damped(damping)
  slopes = jax.jit(jax.grad(_narrowed(outer, params, hyper), (0, 1)))
  v, direct = slopes(wide, wide_hyper)
  start = None if q0 is None else trees.cast_like(q0, wide)
  info = solver.solve(operator, v, start)
  if exact_residual:
    info = _measured(info, operator, solver, v)
  if info.mixed is None:
    at = wide
    if matvec == "jvp":
      # Made to wait for q: a forward pass done before the solve is stored
      # throughout it, and the CPU compiler drops optimisation barriers.
      at = trees.axpy(0.0, info.q, wide)
    mixed = _mixed(objective, at, wide_hyper, info, batches, solver.fresh)
    info = info.replace(mixed=mixed)  # pyright: ignore
  value = trees.axpy(-1.0, info.mixed, direct)
  return _guarded(value, info, v, hyper)


def _check(
  params: PyTree, hyper: PyTree, curvature: GaussNewton | str, matvec: str
) -> None:
  if matvec not in curvatures.MATVECS:
    raise InputError(f"matvec={matvec!r}: valid are {curvatures.MATVECS}")
  if curvature != "hessian" and not isinstance(curvature, GaussNewton):
    raise InputError(
      f"curvature={curvature!r}: valid are 'hessian' and a GaussNewton(predict,"
      " loss)"
    )
  for name, tree in (("params", params), ("hyper", hyper)):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      dtype = jnp.result_type(leaf)
      if not jnp.issubdtype(dtype, jnp.floating):
        where = name + jax.tree_util.keystr(path)
        raise InputError(
          f"{where} has dtype {dtype}: only floating-point leaves can be "
          "differentiated; close over the others"
        )


def _narrowed(f: Callable[..., Any], params: PyTree, hyper: PyTree):
  """``f`` of wide arguments, called with the dtypes it was written for."""

  def wide(p: PyTree, h: PyTree, *rest: Any) -> Float[Array, ""]:
    value = f(trees.cast_like(p, params), trees.cast_like(h, hyper), *rest)
    return trees.upcast(value)

  return wide


def _narrowed_split(
  split: GaussNewton, params: PyTree, hyper: PyTree
) -> GaussNewton:
  """The same for the two halves of a Gauss-Newton split."""

  def predict(p: PyTree, *rest: Any) -> PyTree:
    return trees.upcast(split.predict(trees.cast_like(p, params), *rest))

  def loss(outputs: PyTree, h: PyTree, *rest: Any) -> Float[Array, ""]:
    return trees.upcast(split.loss(outputs, trees.cast_like(h, hyper), *rest))

  penalty = split.penalty and _narrowed(split.penalty, params, hyper)
  return GaussNewton(predict, loss, penalty)


def _operator(
  inner: Inner,
  params: PyTree,
  hyper: PyTree,
  curvature: GaussNewton | str,
  matvec: str,
  unroll: bool | None,
  batches: PyTree | None,
  solver: Solver,
) -> Operator:
  """The product that the solver sees."""

  def at(kind: str, *batch: Any) -> curvatures.Product:
    if isinstance(curvature, GaussNewton):
      return curvature.product(params, hyper, kind, *batch)
    return curvatures.hessian_product(inner, params, hyper, kind, *batch)

  if batches is None:
    product = at(matvec)
    both = _both(inner, params, hyper, curvature, matvec)
    return Operator(lambda u, i: product(u), both, unroll)
  if solver.fresh:
    pick = curvatures.pick_batch
    return Operator(
      lambda u, i: at("jvp", pick(batches, i))(u), None, unroll, False
    )
  mean = curvatures.mean_over
  return Operator(
    lambda u, i: mean(batches, lambda b: at("jvp", b)(u)), None, unroll
  )


def _both(
  inner: Inner,
  params: PyTree,
  hyper: PyTree,
  curvature: GaussNewton | str,
  matvec: str,
) -> Callable[[PyTree, Any], tuple[PyTree, PyTree]] | None:
  """Hessian and mixed product in one, for a few hyper-parameters.

  Both are derivatives along ``u`` and share its forward pass. With many
  hyper-parameters the reverse pass to them may cost, K times over.
  """
  if isinstance(curvature, GaussNewton) or trees.size(hyper) > SMALL:
    return None

  def grads(p: PyTree) -> tuple[PyTree, PyTree]:
    return jax.grad(inner, (0, 1))(p, hyper)

  product = curvatures.derivative(grads, params, matvec)
  return lambda u, i: product(u)


def _mixed(
  inner: Inner,
  params: PyTree,
  hyper: PyTree,
  info: HypergradientInfo,
  batches: PyTree | None,
  fresh: bool,
) -> PyTree:
  """``∂²inner/∂hyper∂params · q``, like ``hyper``."""

  def product(*batch: Any) -> PyTree:
    def slope(p: PyTree) -> PyTree:
      return jax.grad(inner, 1)(p, hyper, *batch)

    return jax.jvp(slope, (params,), (info.q,))[1]

  if batches is None:
    return product()
  if fresh:
    return product(curvatures.pick_batch(batches, info.iterations))
  return curvatures.mean_over(batches, product)


def _measured(
  info: HypergradientInfo, operator: Operator, solver: Solver, v: PyTree
) -> HypergradientInfo:
  """``info`` with the residual of ``info.q`` itself."""
  own = getattr(solver, "damping", getattr(solver, "rho", 0.0))
  Hq = operator.damped(own).product(info.q, info.iterations)
  left = trees.norm(trees.axpy(-1.0, Hq, v))
  residual = trees.safe_divide(left, trees.norm(v)).astype(info.residual.dtype)
  close = residual <= tolerance(getattr(solver, "rtol", 0.0), residual.dtype)
  plain = info.status <= Status.TRUNCATED
  code = jnp.where(close, Status.CONVERGED, Status.TRUNCATED)
  status = jnp.where(plain, code, info.status).astype(jnp.int32)
  return info.replace(residual=residual, status=status)  # pyright: ignore


def _guarded(
  value: PyTree, info: HypergradientInfo, v: PyTree, hyper: PyTree
) -> tuple[PyTree, HypergradientInfo]:
  """Zero instead of anything not finite, and the cosine to the identity."""
  finite = trees.all_finite((value, info.q, v))
  finite &= info.status != Status.NONFINITE
  value = trees.select(finite, value, trees.zeros_like(value))
  q = trees.select(finite, info.q, trees.zeros_like(info.q))
  scale = trees.norm(q) * trees.norm(v)
  cosine = trees.safe_divide(trees.vdot(q, v), scale)
  status = jnp.where(finite, info.status, Status.NONFINITE)
  info = info.replace(  # pyright: ignore
    q=q,
    mixed=trees.select(finite, info.mixed, trees.zeros_like(info.mixed)),
    cosine=jnp.where(finite, cosine, 0.0).astype(info.residual.dtype),
    status=status.astype(jnp.int32),
  )
  return trees.cast_like(value, hyper), info
