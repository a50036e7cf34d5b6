"""Krylov solvers: conjugate gradient and GMRES."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PyTree

from dmg_jax import trees
from dmg_jax.bilevel import loops
from dmg_jax.bilevel.curvature import Operator
from dmg_jax.bilevel.info import (
  HypergradientInfo,
  finish,
  is_negative,
  tolerance,
)
from dmg_jax.errors import InputError

Scalar = Float[Array, ""]


class _Conjugate(NamedTuple):
  """Loop state: iterate ``q``, residual ``r``, direction ``p``, ``⟨r, r⟩``.

  ``best`` is the iterate with the smallest ``⟨r, r⟩``. ``lanczos`` holds the
  diagonal and off-diagonal of the Lanczos matrix; ``carried`` is added to the
  next diagonal entry.
  """

  q: PyTree
  r: PyTree
  p: PyTree
  rr: Scalar
  best: PyTree
  least: Scalar
  lanczos: Float[Array, "2 m"]
  carried: Scalar
  bound: Scalar
  products: Int[Array, ""]
  rounds: Int[Array, ""]
  negative: Bool[Array, ""]
  finite: Bool[Array, ""]


@dataclasses.dataclass(frozen=True)
class ConjugateGradient:
  r"""Conjugate gradient; ends at the first direction of negative curvature.

  .. math::
    a = ⟨r,r⟩/⟨p,Hp⟩, \; q ← q + a p, \; r' = r - a Hp, \;
    p ← r' + (⟨r',r'⟩/⟨r,r⟩) p

  If ``⟨p, Hp⟩ < 0``, the result is the iterate with the smallest residual so
  far and the status is INDEFINITE. If this happens in the first direction, the
  implicit part of the gradient is zero. The residual is the recursive one,
  exact up to rounding. λmax comes from the Lanczos matrix of the coefficients.

  Attributes:
    iterations: largest number of products.
    rtol: stop at ``‖r‖ ≤ rtol ‖v‖``, but not below the precision of the dtype.
    damping: ρ ≥ 0; the system solved is ``(H + ρI) q = v``.

  Reference: Hestenes and Stiefel, Methods of Conjugate Gradients for Solving
    Linear Systems, J. Res. NBS 1952. The stopping rule: Steihaug, The Conjugate
    Gradient Method and Trust Regions in Large Scale Optimization, SINUM 1983.

  Deviations: 1. Steihaug moves to the boundary of a trust region at negative
    curvature; there is none here, so the iterate stays where it is.
  """

  iterations: int = 100
  rtol: float = 1e-10
  damping: ArrayLike = 0.0
  fresh: ClassVar[bool] = False

  def __post_init__(self):
    if self.iterations < 1:
      raise InputError(f"iterations={self.iterations}: must be at least 1")

  def solve(
    self, operator: Operator, v: PyTree, q0: PyTree | None = None
  ) -> HypergradientInfo:
    operator = operator.damped(self.damping)
    size = trees.norm(v)
    q, r, spent = trees.zeros_like(v), v, 0
    if q0 is not None:
      q, r = q0, trees.axpy(-1.0, operator.product(q0, 0), v)
      spent = 1
    start = self._start(q, r, spent)
    goal = (tolerance(self.rtol, size.dtype) * size) ** 2

    def going(s: _Conjugate) -> Bool[Array, ""]:
      return (s.rr > goal) & ~s.negative & s.finite

    def body(s: _Conjugate) -> _Conjugate:
      return self._round(s, operator.product(s.p, s.products), going(s))

    end = loops.repeat_while(
      going, body, start, self.iterations, operator.unroll
    )
    q = trees.select(end.negative, end.best, end.q)
    left = jnp.sqrt(jnp.where(end.negative, end.least, end.rr))
    return finish(
      q,
      residual=trees.safe_divide(left, size),
      rtol=self.rtol,
      lambda_max=jnp.maximum(end.bound, _lanczos_bound(end.lanczos)),
      negative=end.negative,
      finite=end.finite,
      iterations=end.products,
    )

  def _start(self, q: PyTree, r: PyTree, spent: int) -> _Conjugate:
    rr = trees.vdot(r, r)
    return _Conjugate(
      q=q,
      r=r,
      p=r,
      rr=rr,
      best=q,
      least=rr,
      lanczos=jnp.zeros((2, self.iterations), rr.dtype),
      carried=rr * 0,
      bound=rr * 0,
      products=jnp.asarray(spent, jnp.int32),
      rounds=jnp.asarray(0, jnp.int32),
      negative=jnp.asarray(False),
      finite=jnp.isfinite(rr),
    )

  @staticmethod
  def _round(s: _Conjugate, Hp: PyTree, going: Bool[Array, ""]) -> _Conjugate:
    pp, pHp, HpHp = (
      trees.vdot(s.p, s.p),
      trees.vdot(s.p, Hp),
      trees.vdot(Hp, Hp),
    )
    seen = trees.safe_divide(jnp.sqrt(HpHp), jnp.sqrt(pp))
    bound = jnp.where(going, jnp.maximum(s.bound, seen), s.bound)
    finite = s.finite & (~going | jnp.isfinite(HpHp))
    negative = s.negative | (going & is_negative(pHp, bound * pp))
    moves = going & finite & ~negative & (pHp > 0)
    step = jnp.where(moves, trees.safe_divide(s.rr, pHp), 0.0)
    q, r = trees.axpy(step, s.p, s.q), trees.axpy(-step, Hp, s.r)
    rr = jnp.where(moves, trees.vdot(r, r), s.rr)
    turn = trees.safe_divide(rr, s.rr)
    inverse = trees.safe_divide(moves.astype(rr.dtype), step)
    column = jnp.stack([inverse + s.carried, inverse * jnp.sqrt(turn)])
    better = moves & (rr < s.least)
    return _Conjugate(
      q=q,
      r=trees.select(moves, r, s.r),
      p=trees.select(moves, trees.axpy(turn, s.p, r), s.p),
      rr=rr,
      best=trees.select(better, q, s.best),
      least=jnp.where(better, rr, s.least),
      lanczos=jnp.where(
        moves, s.lanczos.at[:, s.rounds].set(column), s.lanczos
      ),
      carried=inverse * turn,
      bound=bound,
      products=s.products + going.astype(jnp.int32),
      rounds=s.rounds + going.astype(jnp.int32),
      negative=negative,
      finite=finite,
    )


def _lanczos_bound(lanczos: Float[Array, "2 m"]) -> Scalar:
  """Largest eigenvalue of the Lanczos matrix of the rounds so far."""
  diagonal, beside = lanczos[0], lanczos[1, :-1] * (lanczos[0, 1:] != 0)
  matrix = jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
  sound = jnp.all(jnp.isfinite(matrix))
  return jnp.max(jnp.linalg.eigvalsh(jnp.where(sound, matrix, 0.0)))


@dataclasses.dataclass(frozen=True)
class GMRES:
  r"""Minimises the residual over a Krylov space, by full Arnoldi iteration.

  .. math:: q = q_0 + V y, \qquad y = \arg\min ‖ ‖r_0‖ e_1 - \bar H y ‖

  where the columns of ``V`` span ``{r_0, H r_0, ...}`` and ``H V = V' \bar H``.
  It also solves systems with an indefinite H, with status INDEFINITE. The
  eigenvalues of ``Vᵀ H V`` give the sign of the curvature and λmax, more
  tightly than single directions do. It stores ``iterations + 1`` vectors of the
  size of the parameters.

  Attributes:
    iterations: dimension of the Krylov space, and number of products. There
      are no restarts; call it again with ``q0=info.q``.
    rtol: relative residual that counts as converged.
    damping: ρ ≥ 0; the system solved is ``(H + ρI) q = v``.

  Reference: Saad and Schultz, GMRES, SIAM J. Sci. Stat. Comput. 1986.
  """

  iterations: int = 30
  rtol: float = 1e-8
  damping: ArrayLike = 0.0
  fresh: ClassVar[bool] = False

  def __post_init__(self):
    if self.iterations < 1:
      raise InputError(f"iterations={self.iterations}: must be at least 1")

  def solve(
    self, operator: Operator, v: PyTree, q0: PyTree | None = None
  ) -> HypergradientInfo:
    operator = operator.damped(self.damping)
    size, spent = trees.norm(v), 0
    q, r = trees.zeros_like(v), v
    if q0 is not None:
      q, r = q0, trees.axpy(-1.0, operator.product(q0, 0), v)
      spent = 1
    basis, bar = self._arnoldi(operator, r)
    m = self.iterations
    finite = trees.all_finite(bar) & jnp.isfinite(size)
    bar = jnp.where(finite, bar, 0.0)
    target = jnp.zeros(m + 1, bar.dtype).at[0].set(trees.norm(r))
    y = jnp.linalg.lstsq(bar, target)[0]
    q = jax.tree.map(
      lambda x, b: x + jnp.tensordot(y.astype(b.dtype), b[:m], 1), q, basis
    )
    ritz = jnp.linalg.eigvalsh((bar[:m] + bar[:m].T) / 2)
    bound = jnp.max(jnp.abs(ritz))
    left = jnp.linalg.norm(target - bar @ y)
    return finish(
      q,
      residual=trees.safe_divide(left, size),
      rtol=self.rtol,
      lambda_max=bound,
      negative=is_negative(ritz[0], bound),
      finite=finite,
      iterations=m + spent,
    )

  def _arnoldi(
    self, operator: Operator, r: PyTree
  ) -> tuple[PyTree, Float[Array, "rows columns"]]:
    """Orthonormal basis (leading axis) and rectangular Hessenberg matrix."""
    m = self.iterations
    first = trees.unit(r)
    basis = jax.tree.map(
      lambda x: jnp.zeros((m + 1, *x.shape), x.dtype).at[0].set(x), first
    )
    bar = jnp.zeros((m + 1, m), trees.norm(r).dtype)

    def body(carry, j):
      basis, bar = carry
      w = operator.product(jax.tree.map(lambda b: b[j], basis), j)
      before = trees.norm(w)
      column = jnp.zeros(m + 1, bar.dtype)
      for _ in range(2):
        part = _coordinates(basis, w).astype(bar.dtype)
        column, w = column + part, _remove(basis, part, w)
      after = trees.norm(w)
      # A vector inside the space leaves only rounding: then a zero column.
      after = jnp.where(
        after > 100 * jnp.finfo(bar.dtype).eps * before, after, 0.0
      )
      w = trees.scale(trees.safe_divide(after * 0 + 1, after), w)
      column = column.at[j + 1].set(after)
      basis = jax.tree.map(lambda b, x: b.at[j + 1].set(x), basis, w)
      return basis, bar.at[:, j].set(column)

    return loops.repeat(body, (basis, bar), m, operator.unroll)


def _coordinates(basis: PyTree, w: PyTree) -> Float[Array, " rows"]:
  return jax.vmap(lambda b: trees.vdot(b, w))(basis)


def _remove(basis: PyTree, part: Float[Array, " rows"], w: PyTree) -> PyTree:
  return jax.tree.map(
    lambda b, x: x - jnp.tensordot(part.astype(b.dtype), b, 1), basis, w
  )
