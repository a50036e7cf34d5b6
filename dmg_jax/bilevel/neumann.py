r"""Neumann series and the identity, its zeroth term."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, PyTree

from dmg_jax import trees
from dmg_jax.bilevel import loops
from dmg_jax.bilevel.curvature import Operator
from dmg_jax.bilevel.info import HypergradientInfo, finish, is_negative
from dmg_jax.bilevel.spectrum import largest_eigenvalue, ritz_pair
from dmg_jax.errors import InputError

Scalar = Float[Array, ""]
_EMPTY = jax.tree.structure(())


@dataclasses.dataclass(frozen=True)
class Identity:
  """``q = v``: takes the Hessian to be the identity (T1-T2, one step).

  It makes no Hessian product, so the residual is unknown and reported as
  infinity. ``exact_residual=True`` computes it with one product. ``q0`` is
  ignored.

  Reference: Luketina, Berglund, Greff and Raiko, Scalable Gradient-Based Tuning
    of Continuous Regularization Hyperparameters, ICML 2016.
  """

  fresh: ClassVar[bool] = False

  def solve(
    self, operator: Operator, v: PyTree, q0: PyTree | None = None
  ) -> HypergradientInfo:
    del operator, q0
    unknown = trees.norm(v) * 0 + jnp.inf
    return finish(v, residual=unknown, rtol=0.0)


class _Series(NamedTuple):
  """Loop state: partial sum ``q`` with its residual ``r = v - H q``.

  ``q`` and ``best`` are pairs: the partial sum, and its mixed product, which
  is ``()`` unless the Hessian products return it as well.

  ``best`` is the partial sum with the smallest residual norm so far, ``least``.
  ``square`` and ``energy`` are ``⟨r, r⟩`` and ``⟨r, H r⟩`` of the term before.
  """

  q: tuple[PyTree, PyTree]
  r: PyTree
  best: tuple[PyTree, PyTree]
  least: Scalar
  step: Scalar
  square: Scalar
  energy: Scalar
  bound: Scalar
  negative: Bool[Array, ""]
  replaced: Bool[Array, ""]
  finite: Bool[Array, ""]


@dataclasses.dataclass(frozen=True)
class Neumann:
  r"""Truncated Neumann series for the inverse Hessian, ``terms`` products.

  .. math::
    q = Σ_{j=0}^{K} η (I - ηH)^j v, \qquad
    r_j = (I - ηH)^j v = v - H q_j, \qquad H^{-1} v = \lim_{K→∞} q

  for a constant step ``η``, which must satisfy ``0 < η < 2/λmax``.
  ``K = terms`` counts Hessian products. The sum has ``K + 1`` summands. It is
  equal to ``K + 1`` fixed-point iterations, and to differentiating through the
  last ``K + 1`` steps of gradient descent. A small K gives a biased answer:
  only eigenvalues above ``1/(ηK)`` are really inverted.

  ``step_size="auto"`` gives each term the step that minimises the next
  residual,

  .. math:: η_j = ⟨r_j, H r_j⟩ / ‖H r_j‖² ∈ [1/λmax, 1/λmin].

  It needs no estimate of λmax and no product besides the K of the series. It
  cannot diverge, since the residual never grows. If H is positive definite with
  condition number κ, each term shrinks the residual by ``(κ-1)/(κ+1)`` or
  better, the rate of the best constant step. The sum then has K summands and
  its residual is known exactly. Negative curvature along a residual ends the
  series.

  ``step_size="power"`` is the constant step ``1/λmax``. λmax comes from
  ``power_iterations`` additional products.

  If the products prove a constant step too large (``η ‖H r‖ > 2 ‖r‖``), the
  step is ``‖r‖/‖H r‖`` from that term on and the status is DIVERGED. The result
  is the full sum if the residual kept falling, otherwise the partial sum with
  the smallest residual. With a constant step ``info.residual`` belongs to the
  sum without its last summand. This is an upper bound; the exact value would
  cost one more product.

  Attributes:
    terms: K, the number of products, at least 1. With a constant step it may
      be 0, which is a scaled identity.
    step_size: ``"auto"``, ``"power"``, or η > 0 (may be traced).
    damping: ρ ≥ 0; the system solved is ``(H + ρI) q = v``.
    power_iterations: products for ``step_size="power"``.
    seed: seed of the power iteration's start vector.
    rtol: relative residual that counts as converged. It does not end the
      series.

  A start vector ``q0`` costs one more product, for its residual; the series is
  then applied to that residual. With ``batches``, product i uses batch i.

  Reference: Lorraine, Vicol and Duvenaud, Optimizing Millions of
    Hyperparameters by Implicit Differentiation, AISTATS 2020, Alg. 3; the
    automatic step is the minimal residual iteration, Saad, Iterative Methods
    for Sparse Linear Systems, 2nd ed., SIAM 2003, §5.3.2.

  Deviations: 1. The sum carries the factor η, which the paper absorbs into the
    learning rate. 2. Steps that are too large are replaced, as above.
  """

  terms: int = 10
  step_size: ArrayLike | str = "auto"
  damping: ArrayLike = 0.0
  power_iterations: int = 10
  seed: int = 0
  rtol: float = 1e-6
  fresh: ClassVar[bool] = True

  def __post_init__(self):
    if isinstance(self.step_size, str):
      if self.step_size not in ("auto", "power"):
        raise InputError(
          f"step_size={self.step_size!r}: valid are 'auto', 'power' and a "
          "positive number"
        )
    elif isinstance(self.step_size, (int, float)) and self.step_size <= 0:
      raise InputError(f"step_size={self.step_size}: must be positive")
    least = 1 if self.step_size == "auto" else 0
    if self.terms < least:
      raise InputError(
        f"terms={self.terms}: step_size={self.step_size!r} needs at least "
        f"{least}; for no product at all use Identity()"
      )

  def solve(
    self, operator: Operator, v: PyTree, q0: PyTree | None = None
  ) -> HypergradientInfo:
    operator = operator.damped(self.damping)
    size = trees.norm(v)
    step, bound, spent = self._constant_step(operator, v)
    if q0 is None:
      q, r = trees.zeros_like(v), v
    else:
      q, r = q0, trees.axpy(-1.0, operator.product(q0, spent), v)
      spent += 1
    both = operator.both if step is None and q0 is None else None
    start = _start(q, r, step, bound)
    if both is not None:
      like = jax.eval_shape(lambda u: both(u, 0)[1], v)
      pair = (q, trees.zeros_like(like))
      start = start._replace(q=pair, best=pair)

    def body(s: _Series, i) -> _Series:
      if both is None:
        Hr, Mr = operator.product(s.r, i + spent), ()
      else:
        Hr, Mr = both(s.r, i + spent)
      return self._term(s, Hr, Mr, step, operator.fixed)

    end = loops.repeat(body, start, self.terms, operator.unroll)
    return self._report(end, size, step, self.terms + spent)

  def _constant_step(
    self, operator: Operator, v: PyTree
  ) -> tuple[Scalar | None, ArrayLike, int]:
    """The step (``None`` if it varies), a bound on λmax, and products made."""
    if self.step_size == "auto":
      return None, 0.0, 0
    if self.step_size == "power":
      value = largest_eigenvalue(
        lambda u: operator.product(u, 0),
        v,
        self.power_iterations,
        self.seed,
        operator.unroll,
      )
      bound = jnp.abs(value)
      step = trees.safe_divide(jnp.ones_like(bound), bound, 1.0)
      return step, bound, self.power_iterations
    return jnp.asarray(self.step_size), 0.0, 0

  def _term(
    self,
    s: _Series,
    Hr: PyTree,
    Mr: PyTree,
    step: Scalar | None,
    fixed: bool,
  ) -> _Series:
    rr, rHr, HrHr = (
      trees.vdot(s.r, s.r),
      trees.vdot(s.r, Hr),
      trees.vdot(Hr, Hr),
    )
    bound, negative = _seen(s, rr, rHr, HrHr, fixed)
    if step is None:
      eta, replaced = jnp.maximum(trees.safe_divide(rHr, HrHr), 0.0), s.replaced
    else:
      slack = 2 * (1 + 1e3 * jnp.finfo(rr.dtype).eps)
      replaced = s.replaced | (s.step * bound > slack)
      eta = jnp.where(replaced, trees.safe_divide(rr * 0 + 1, bound), s.step)
    q, r = trees.axpy(eta, (s.r, Mr), s.q), trees.axpy(-eta, Hr, s.r)
    left = trees.norm(r)
    better = left < s.least
    return _Series(
      q=q,
      r=r,
      best=trees.select(better, q, s.best),
      least=jnp.minimum(left, s.least),
      step=eta.astype(s.step.dtype),
      square=rr,
      energy=rHr,
      bound=bound,
      negative=negative,
      replaced=replaced,
      finite=s.finite & jnp.isfinite(HrHr) & jnp.isfinite(left),
    )

  def _report(
    self, s: _Series, size: Scalar, step: Scalar | None, products: int
  ) -> HypergradientInfo:
    (q, mixed), grew = s.best, jnp.asarray(False)
    if step is not None:
      grew = trees.norm(s.r) > s.least
      q = trees.select(grew, q, trees.axpy(s.step, s.r, s.q[0]))
    return finish(
      q,
      residual=trees.safe_divide(s.least, size),
      rtol=self.rtol,
      lambda_max=s.bound,
      negative=s.negative if self.terms else None,
      diverged=s.replaced | grew,
      finite=s.finite,
      iterations=products,
      step_size=s.step,
      mixed=None if jax.tree.structure(mixed) == _EMPTY else mixed,
    )


def _two_terms(s: _Series, rr: Scalar, rHr: Scalar) -> tuple[Scalar, Scalar]:
  """Smallest and largest Rayleigh quotient on the last two residuals' span.

  With ``r' = r - ηHr`` all inner products follow from known scalars:
  ``⟨r, r'⟩ = ⟨r, r⟩ - η⟨r, Hr⟩`` and ``η⟨r, Hr'⟩ = ⟨r, r'⟩ - ⟨r', r'⟩``.
  """
  cross = s.square - s.step * s.energy
  mixed = trees.safe_divide(cross - rr, s.step)
  low, high = ritz_pair(s.square, rr, cross, s.energy, rHr, mixed)
  known = (s.square > 0) & (s.step > 0) & (rr > 0)
  return jnp.where(known, low, 0.0), jnp.where(known, high, 0.0)


def _start(
  q: PyTree, r: PyTree, step: Scalar | None, bound: ArrayLike
) -> _Series:
  no, length = jnp.asarray(False), trees.norm(r)
  return _Series(
    q=(q, ()),
    r=r,
    best=(q, ()),
    least=length,
    step=jnp.zeros_like(length) if step is None else step.astype(length.dtype),
    square=jnp.zeros_like(length),
    energy=jnp.zeros_like(length),
    bound=jnp.asarray(bound, length.dtype),
    negative=no,
    replaced=no,
    finite=jnp.isfinite(length),
  )


def _seen(
  s: _Series, rr: Scalar, rHr: Scalar, HrHr: Scalar, fixed: bool
) -> tuple[Scalar, Bool[Array, ""]]:
  """The bound on λmax and whether curvature was negative, after this term."""
  kind = jnp.finfo(rr.dtype)
  alive = rr > kind.tiny / kind.eps  # below, products of residuals lose digits
  length = trees.safe_divide(jnp.sqrt(HrHr), jnp.sqrt(rr))
  bound = jnp.where(alive, jnp.maximum(s.bound, length), s.bound)
  negative = s.negative | (alive & is_negative(rHr, bound * rr))
  if not fixed:
    return bound, negative
  low, high = _two_terms(s, rr, rHr)
  bound = jnp.where(alive, jnp.maximum(bound, high), bound)
  return bound, negative | (alive & (low < -10 * jnp.sqrt(kind.eps) * bound))
