"""Diagnostics that a solver returns with its solution."""

from __future__ import annotations

import enum

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, PyTree

from dmg_jax.errors import InputError


class Status(enum.IntEnum):
  """How a linear solve ended. The first that applies, from the bottom up.

  Attributes:
    CONVERGED: the relative residual is at most the solver's ``rtol``.
    TRUNCATED: the budget was used first; the answer is the usual biased one.
    DIVERGED: the series grew, or the given step proved too large and was
      replaced; the answer is the partial sum with the least residual.
    INDEFINITE: negative curvature was met. For a minimum of the inner problem
      that should not happen: train longer, or add damping, or take the
      Gauss-Newton product.
    NONFINITE: an infinity or NaN; the hypergradient is returned as zero.
  """

  CONVERGED = 0
  TRUNCATED = 1
  DIVERGED = 2
  INDEFINITE = 3
  NONFINITE = 4


def status_name(status: int | Int[Array, ""]) -> str:
  """Lower-case name of a status code, for logs: ``"converged"``, ...

  Raises:
    ValueError: the code is not one of :class:`Status`.
  """
  code = int(status)
  if code not in Status.__members__.values():
    choices = ", ".join(f"{s.value} ({s.name.lower()})" for s in Status)
    raise InputError(
      f"unknown status {code}; valid codes: {choices}. Pass info.status."
    )
  return Status(code).name.lower()


@struct.dataclass
class HypergradientInfo:
  """Diagnostics of one solve of ``H q = v``; ``H`` includes all damping.

  Scalars, with an axis in front under ``vmap``.

  Attributes:
    residual: ``‖v - H q‖ / ‖v‖``. Exact where the solver knows it for free or
      ``exact_residual=True``; else an upper bound that the solver documents;
      infinity if nothing is known (identity).
    lambda_max: estimate, from below, of the largest ``|λ|`` of ``H``; 0 if no
      product was made.
    curvature: -1 if negative curvature was seen, +1 if only positive, 0 if
      unknown. Only directions that were visited count (dense: all of them).
    cosine: cosine between ``q`` and ``v``, the answer of the identity solver:
      how much the inverse turns the vector.
    iterations: products with ``H`` that the solver made.
    step_size: step of the last term (Neumann), else 0.
    status: code of :class:`Status`; see :func:`status_name`.
    q: the solution, like the parameters in float32 or wider; pass it as ``q0``
      of the next call to start warm.
    mixed: the mixed product ``M q``, like hyper: what is subtracted from the
      direct part. A solver that does not come by it leaves ``None``.
  """

  residual: Float[Array, "*batch"]
  lambda_max: Float[Array, "*batch"]
  curvature: Int[Array, "*batch"]
  cosine: Float[Array, "*batch"]
  iterations: Int[Array, "*batch"]
  step_size: Float[Array, "*batch"]
  status: Int[Array, "*batch"]
  q: PyTree
  mixed: PyTree = None


def tolerance(rtol, dtype: jnp.dtype) -> Float[Array, ""]:
  """``rtol``, but not below what ``dtype`` can resolve."""
  return jnp.maximum(rtol, 8 * jnp.finfo(dtype).eps).astype(dtype)


def is_negative(
  curvature: Float[Array, ""], bound: Float[Array, ""]
) -> Bool[Array, ""]:
  """Whether a Rayleigh quotient is below zero by more than rounding.

  Args:
    curvature: ``⟨u, H u⟩`` for some ``u``.
    bound: ``λmax ⟨u, u⟩``, the scale that rounding errors are relative to.
  """
  return curvature < -1e3 * jnp.finfo(curvature.dtype).eps * bound


def finish(
  q: PyTree,
  *,
  residual: Float[Array, ""],
  rtol,
  lambda_max: Float[Array, ""] | None = None,
  negative: Bool[Array, ""] | None = None,
  diverged: Bool[Array, ""] | bool = False,
  finite: Bool[Array, ""] | bool = True,
  iterations: Int[Array, ""] | int = 0,
  step_size: Float[Array, ""] | None = None,
  mixed: PyTree = None,
) -> HypergradientInfo:
  """Assembles the report; ``negative=None`` means curvature unknown."""
  dtype = residual.dtype
  zero = jnp.zeros((), dtype)
  close = residual <= tolerance(rtol, dtype)
  status = jnp.where(close, Status.CONVERGED, Status.TRUNCATED)
  status = jnp.where(diverged, Status.DIVERGED, status)
  curvature = jnp.zeros((), jnp.int32)
  if negative is not None:
    status = jnp.where(negative, Status.INDEFINITE, status)
    curvature = jnp.where(negative, -1, 1).astype(jnp.int32)
  status = jnp.where(finite, status, Status.NONFINITE).astype(jnp.int32)
  return HypergradientInfo(
    residual=residual,
    lambda_max=zero if lambda_max is None else lambda_max.astype(dtype),
    curvature=curvature,
    cosine=zero,
    iterations=jnp.asarray(iterations, jnp.int32),
    step_size=zero if step_size is None else step_size.astype(dtype),
    status=status,
    q=q,
    mixed=mixed,
  )
