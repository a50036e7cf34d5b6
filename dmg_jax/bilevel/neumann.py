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
  """``q = v``: the curvature is taken to be the identity (T1-T2, one step).

  No product is made, so that the residual is reported as infinity (unknown)
  unless ``exact_residual=True`` is asked for. ``q0`` is ignored.

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
  """Loop state: partial sum ``q`` with residual ``r = v - H q``, and records.

  ``q`` and ``best`` are pairs with the mixed product of the sum, ``()`` unless
  the products bring it.

  ``best`` is the partial sum of least residual norm ``least``; ``square``
  and ``energy`` are ``⟨r, r⟩`` and ``⟨r, H r⟩`` one term before.
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
  r"""``terms`` products of the series for the inverse.

  .. math::
    q = Σ_{j=0}^{K} η (I - ηH)^j v, \qquad
    r_j = (I - ηH)^j v = v - H q_j, \qquad H^{-1} v = \lim_{K→∞} q

  for a given step ``η``. It needs ``0 < η < 2/λmax``. ``K = terms`` counts
  products; the sum has ``K + 1`` summands, equals ``K + 1`` fixed-point
  iterations, and gradient descent differentiated through its last ``K + 1``
  steps. A small K is biased: the answer is the inverse on eigenvalues above
  ``1/(ηK)`` only.

  ``step_size="auto"`` chooses the step of each term so as to make the next
  residual least,

  .. math:: η_j = ⟨r_j, H r_j⟩ / ‖H r_j‖² ∈ [1/λmax, 1/λmin]

  which needs no estimate and no product beyond the K of the series, cannot
  diverge (the residual never grows), and falls by ``(κ-1)/(κ+1)`` a term or
  better when H is positive definite with condition number κ, which is the rate
  of the best constant step. The sum then has K summands, and its residual is
  known exactly. Negative curvature along a residual stops the series.

  ``step_size="power"`` is the constant step ``1/λmax`` with λmax from
  ``power_iterations`` products, made in addition.

  A constant step that the products prove too large (``η ‖H r‖ > 2 ‖r‖``) is
  replaced by ``‖r‖/‖H r‖`` from that term on, and the status is DIVERGED. What
  is returned is the full sum while the residual falls, and otherwise the
  partial sum of least residual. With a constant step ``info.residual`` is that
  of the sum short of its last summand: an upper bound, since knowing better
  would cost a product.

  Attributes:
    terms: K, products of the series, at least 1; 0 is allowed with a given
      step, and is a scaled identity.
    step_size: ``"auto"``, ``"power"``, or η > 0 (may be traced).
    damping: ρ ≥ 0, solves with ``H + ρI``.
    power_iterations: of ``step_size="power"``.
    seed: of the power iteration's start vector.
    rtol: residual that counts as converged; it does not stop the series.

  With a start vector ``q0`` one more product gives its residual, and the series
  is applied to that. With ``batches`` product i uses batch i.

  Reference: Lorraine, Vicol and Duvenaud, Optimizing Millions of
    Hyperparameters by Implicit Differentiation, AISTATS 2020, Alg. 3; the
    automatic step is the minimal residual iteration, Saad, Iterative Methods
    for Sparse Linear Systems, 2nd ed., SIAM 2003, §5.3.2.

  Deviations: 1. the sum carries the factor η, which the paper absorbs in the
    learning rate. 2. Safeguard on the step, as above.
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
    """The step, ``None`` if it varies; what is known of λmax; products made."""
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
  """Extreme Rayleigh quotients over the last two residuals.

  With ``r' = r - ηHr`` all inner products follow from scalars at hand:
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
  """What this term adds to the λmax estimate and to the sign of curvature."""
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
