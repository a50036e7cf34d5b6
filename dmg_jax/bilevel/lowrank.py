"""Solvers that store a matrix: randomised low rank, and dense for tests."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dmg_jax import trees
from dmg_jax.bilevel import loops
from dmg_jax.bilevel.curvature import Operator
from dmg_jax.bilevel.info import HypergradientInfo, finish, is_negative
from dmg_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Nystrom:
  r"""Low-rank approximation of the inverse from ``rank`` random directions.

  .. math::
    H ≈ Y (ΩᵀY)^{-1} Yᵀ, \quad Y = HΩ, \qquad
    q = \tfrac{1}{ρ} \big( v - Y (ρ ΩᵀY + YᵀY)^{-1} Yᵀ v \big)

  which is the Woodbury form of ``(H_rank + ρI)^{-1} v``. Outside the span of
  the directions the inverse is ``1/ρ``. So ρ is both the damping and a guess of
  the curvature there; with few directions choose it near the eigenvalues that
  they miss. One more product gives the exact residual of ``(H + ρI) q = v``. If
  the answer is worse than zero (relative residual above 1), it is scaled to the
  smallest residual and the status is DIVERGED. ``q0`` is ignored. It stores
  ``3 rank`` vectors of the size of the parameters.

  Attributes:
    rank: number of directions, at most the number of parameters, where the
      inverse is exact.
    rho: ρ > 0.
    key: random key or integer seed of the directions.
    rtol: relative residual that counts as converged.

  Reference: Hataya and Yamada, Nyström Method for Accurate and Scalable
    Implicit Differentiation, AISTATS 2023, Eq. 6.

  Deviations: 1. The directions Ω are random and orthonormal (Frangella, Tropp
    and Udell, Randomized Nyström Preconditioning, SIMAX 2023). The paper
    samples columns of H, and one weight's column says little about a deep
    network. 2. The same matrix is inverted in an orthonormal basis of Y, which
    does not square the condition number. 3. The scaling above.
  """

  rank: int = 10
  rho: ArrayLike = 1e-2
  key: PRNGKeyArray | int = 0
  rtol: float = 1e-3
  fresh: ClassVar[bool] = False

  def __post_init__(self):
    if self.rank < 1:
      raise InputError(f"rank={self.rank}: must be at least 1")
    if isinstance(self.rho, (int, float)) and self.rho <= 0:
      raise InputError(f"rho={self.rho}: must be positive, it is divided by")

  def solve(
    self, operator: Operator, v: PyTree, q0: PyTree | None = None
  ) -> HypergradientInfo:
    del q0
    rank = min(self.rank, trees.size(v))
    omega = self._directions(v, rank)

    def body(Y: PyTree, i) -> PyTree:
      Hu = operator.product(jax.tree.map(lambda o: o[i], omega), i)
      return jax.tree.map(lambda y, x: y.at[i].set(x), Y, Hu)

    Y = loops.repeat(body, trees.zeros_like(omega), rank, operator.unroll)
    core = _gram(omega, Y)
    dtype = core.dtype
    rho = jnp.asarray(self.rho, dtype)
    finite = trees.all_finite(Y) & trees.all_finite(v)
    Y = trees.select(finite, Y, trees.zeros_like(Y))
    core = jnp.where(finite, (core + core.T) / 2, 0.0)
    q = self._apply(_orthonormal(Y), Y, core, rho, v)
    Hq = operator.damped(rho).product(q, rank)
    size, left = trees.norm(v), trees.norm(trees.axpy(-1.0, Hq, v))
    worse = left > size
    best = trees.safe_divide(trees.vdot(v, Hq), trees.vdot(Hq, Hq))
    best = jnp.where(worse, best, 1.0)
    q = trees.scale(best, q)
    left = trees.norm(trees.axpy(-best, Hq, v))
    ritz = jnp.linalg.eigvalsh(core) + rho
    bound = jnp.max(jnp.abs(ritz))
    return finish(
      q,
      residual=trees.safe_divide(left, size),
      rtol=self.rtol,
      lambda_max=bound,
      negative=is_negative(ritz[0], bound),
      diverged=worse,
      finite=finite & jnp.isfinite(left),
      iterations=rank + 1,
    )

  def _directions(self, like: PyTree, rank: int) -> PyTree:
    """``rank`` orthonormal vectors, stacked on a leading axis."""
    key = jax.random.key(self.key) if isinstance(self.key, int) else self.key
    omega = jax.vmap(lambda k: trees.random_like(k, like))(
      jax.random.split(key, rank)
    )
    return _orthonormal(omega)

  @staticmethod
  def _apply(
    basis: PyTree, Y: PyTree, core: Array, rho: Array, v: PyTree
  ) -> PyTree:
    """``(Y core⁺ Yᵀ + ρI)⁻¹ v``, ``basis`` orthonormal with the span of ``Y``.

    Equal to the Woodbury form, without squaring the condition number.
    """
    across = _gram(basis, Y)
    half = jax.vmap(lambda row: _symmetric_solve(core, row))(across)
    inside = half @ across.T + rho * jnp.eye(core.shape[0], dtype=core.dtype)
    along = jax.vmap(lambda b: trees.vdot(b, v))(basis).astype(core.dtype)
    q = _combine(_symmetric_solve(inside, along), basis)
    if core.shape[0] == trees.size(v):  # only rounding is left out
      return q
    outside = trees.axpy(-1.0, _combine(along, basis), v)
    return trees.axpy(1 / rho, outside, q)


def _combine(weights: Float[Array, " n"], stack: PyTree) -> PyTree:
  return jax.tree.map(
    lambda x: jnp.tensordot(weights.astype(x.dtype), x, 1), stack
  )


def _orthonormal(stack: PyTree) -> PyTree:
  """Orthonormal vectors of the same span; zero for dependent vectors."""
  # One pass loses digits if vectors are nearly parallel.
  for _ in range(2):
    gram = _gram(stack, stack)
    values, vectors = jnp.linalg.eigh((gram + gram.T) / 2)
    cut = values.size * jnp.finfo(values.dtype).eps * jnp.max(values)
    kept = values > cut
    root = jnp.where(kept, jnp.where(kept, values, 1.0) ** -0.5, 0.0)
    turn = (vectors * root[None]).T
    stack = jax.tree.map(
      lambda x, t=turn: jnp.tensordot(t.astype(x.dtype), x, 1), stack
    )
  return stack


def _gram(x: PyTree, y: PyTree) -> Float[Array, "n n"]:
  def row(a: PyTree) -> Array:
    return jax.vmap(lambda b: trees.vdot(a, b))(y)

  return jax.vmap(row)(x)


def _symmetric_solve(
  matrix: Float[Array, "n n"], vector: Float[Array, " n"]
) -> Float[Array, " n"]:
  """Minimum-norm solution; eigenvalues at the level of rounding are zero."""
  values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
  size = matrix.shape[0]
  cut = size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
  kept = jnp.abs(values) > cut
  inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1.0), 0.0)
  return vectors @ (inverse * (vectors.T @ vector))


@dataclasses.dataclass(frozen=True)
class Dense:
  r"""Builds the whole matrix: ``q = H⁺ v``. For tests and tiny problems.

  .. math:: H = \sum_i λ_i u_i u_iᵀ, \qquad q = \sum_{λ_i ≠ 0} u_i u_iᵀ v / λ_i

  An indefinite H is inverted as well, with status INDEFINITE. Null directions
  are left out (minimum-norm solution); the residual shows it. ``q0`` is
  ignored. Memory grows with the square of the number of parameters.

  Attributes:
    damping: ρ ≥ 0; the system solved is ``(H + ρI) q = v``.
    rtol: relative residual that counts as converged.
  """

  damping: ArrayLike = 0.0
  rtol: float = 1e-6
  fresh: ClassVar[bool] = False

  def solve(
    self, operator: Operator, v: PyTree, q0: PyTree | None = None
  ) -> HypergradientInfo:
    del q0
    operator = operator.damped(self.damping)
    vector, restore = ravel_pytree(v)

    def column(u: Float[Array, " n"]) -> Float[Array, " n"]:
      return ravel_pytree(operator.product(restore(u), 0))[0]

    n = vector.size
    matrix = jax.vmap(column)(jnp.eye(n, dtype=vector.dtype))
    finite = jnp.all(jnp.isfinite(matrix))
    matrix = jnp.where(finite, (matrix + matrix.T) / 2, 0.0)
    flat = _symmetric_solve(matrix, vector)
    values = jnp.linalg.eigvalsh(matrix)
    bound = jnp.max(jnp.abs(values))
    left = jnp.linalg.norm(vector - matrix @ flat)
    return finish(
      restore(flat),
      residual=trees.safe_divide(left, jnp.linalg.norm(vector)),
      rtol=self.rtol,
      lambda_max=bound,
      negative=is_negative(values[0], bound),
      finite=finite,
      iterations=n,
    )
