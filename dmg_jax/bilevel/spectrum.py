"""Extreme eigenvalues from products alone."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from dmg_jax import trees
from dmg_jax.bilevel import loops
from dmg_jax.errors import InputError


def largest_eigenvalue(
  matvec: Callable[[PyTree], PyTree],
  like: PyTree,
  iterations: int,
  key: PRNGKeyArray | int = 0,
  unroll: bool | None = None,
) -> Float[Array, ""]:
  r"""Eigenvalue of largest modulus of a symmetric operator, power iteration.

  .. math:: u ← H u / ‖H u‖, \qquad λ = ± ‖H u‖

  with the sign of ``⟨u, H u⟩``. For any number of iterations ``|λ|`` is a lower
  bound of the largest modulus, and a tighter one than the Rayleigh quotient.

  Args:
    matvec: ``u -> H u``, ``u`` like ``like``.
    like: gives structure and shapes of the vectors.
    iterations: products made, at least 1.
    key: of the random start vector; the same key gives the same bits.
    unroll: see ``loops.unrolled``.

  Returns:
    The eigenvalue, a scalar in float32 or wider.

  Raises:
    ValueError: ``iterations`` is less than 1.

  Reference: Golub and Van Loan, Matrix Computations, 4th ed., §8.2.
  """
  if iterations < 1:
    raise InputError(f"iterations={iterations}: power iteration needs >= 1")
  like = trees.upcast(like)
  if isinstance(key, int):
    key = jax.random.key(key)
  start = trees.unit(trees.random_like(key, like))
  zero = trees.vdot(start, start) * 0

  def body(carry: tuple[PyTree, Array], i: Array | int) -> tuple[PyTree, Array]:
    del i
    u, _ = carry
    product = matvec(u)
    length = trees.norm(product)
    sign = jnp.where(trees.vdot(u, product) < 0, -1.0, 1.0)
    return trees.unit(product), (sign * length).astype(length.dtype)

  return loops.repeat(body, (start, zero), iterations, unroll)[1]


def ritz_pair(
  a: Float[Array, ""],
  b: Float[Array, ""],
  cross: Float[Array, ""],
  aHa: Float[Array, ""],
  bHb: Float[Array, ""],
  aHb: Float[Array, ""],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  r"""Least and largest Rayleigh quotient over the plane of two vectors.

  .. math:: \min, \max \; ⟨u, H u⟩ / ⟨u, u⟩ \quad u ∈ span\{a, b\}

  from inner products only. Where the vectors are parallel to within half of the
  digits the quotient of the second one is returned for both.

  Args:
    a: ``⟨a, a⟩``; b: ``⟨b, b⟩``; cross: ``⟨a, b⟩``.
    aHa: ``⟨a, H a⟩``; bHb, aHb: likewise.

  Reference: Parlett, The Symmetric Eigenvalue Problem, SIAM 1998, ch. 11.
  """
  tilt = trees.safe_divide(cross, a)
  rest = b - tilt * cross  # ⟨w, w⟩ with w = b - tilt·a orthogonal to a
  sound = rest > jnp.sqrt(jnp.finfo(a.dtype).eps) * jnp.maximum(a, b)
  rest = jnp.where(sound, rest, 1.0)
  first = trees.safe_divide(aHa, a)
  second = (bHb - 2 * tilt * aHb + tilt**2 * aHa) / rest
  off = trees.safe_divide(aHb - tilt * aHa, jnp.sqrt(a * rest))
  middle, half = (first + second) / 2, (first - second) / 2
  spread = jnp.sqrt(half**2 + off**2)
  alone = trees.safe_divide(bHb, b)
  low = jnp.where(sound, middle - spread, alone)
  return low, jnp.where(sound, middle + spread, alone)
