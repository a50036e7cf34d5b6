r"""A vector of outer variables, each in a range of its own.

Each variable v moves by its position u in its range,

.. math:: v(u) = lo + u (hi - lo) \quad \text{or, on a log scale,} \quad
  v(u) = lo\,(hi / lo)^u, \qquad 0 \le u \le 1
.. math:: u \leftarrow \Pi_{[0, 1]}\Bigl(u - \eta\, \mathrm{optimiser}\bigl(
  \mathrm{normalise}(g\, \tfrac{dv}{du})\bigr)\Bigr)

entry by entry, so one rate η means the same share of every range: a step of .1
is .1 for α in [0, 1] and a factor of 2.5 for a weight in [.01, 100]. For the
range [0, 1] it is ``alpha.AlphaOptimiser`` to the bit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import PyTree

from dmg_jax import trees
from dmg_jax.bilevel import alpha
from dmg_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Range:
  """The values of an outer variable.

  Attributes:
    low, high: its bounds, which it may reach.
    log: whether equal steps are equal factors; then ``low`` is positive.

  Example:

    >>> round(float(Range(0.01, 1.0, log=True).value(0.5)), 6)
    0.1
  """

  low: float
  high: float
  log: bool = False

  def __post_init__(self):
    if not self.low < self.high or (self.log and self.low <= 0):
      raise InputError(
        f"a range needs low < high, and 0 < low on a log scale; got "
        f"[{self.low:g}, {self.high:g}]"
      )

  def value(self, position: Any) -> Any:
    """v of u."""
    if self.log:
      return self.low * jnp.exp(position * math.log(self.high / self.low))
    return self.low + position * (self.high - self.low)

  def position(self, value: Any) -> Any:
    """u of v."""
    if self.log:
      return jnp.log(value / self.low) / math.log(self.high / self.low)
    return (value - self.low) / (self.high - self.low)

  def slope(self, position: Any) -> Any:
    """dv/du."""
    if self.log:
      return self.value(position) * math.log(self.high / self.low)
    return self.high - self.low

  def check(self, name: str, value: float) -> float:
    """The value, or an error that names it.

    Raises:
      ValueError: it lies outside.
    """
    if not self.low <= value <= self.high:
      raise InputError(
        f"{name} is learned within [{self.low:g}, {self.high:g}], so it must "
        f"start there; got {value:g}"
      )
    return float(value)


class Learned(struct.PyTreeNode):
  """Positions {kind: {part: []}}, their rate η [], their optax chain's state.

  ``VectorOptimiser.values`` gives the values at these positions.
  """

  position: Any
  rate: Any
  opt_state: PyTree


@dataclasses.dataclass(frozen=True)
class VectorOptimiser:
  """Projected steps of a vector, see the module.

  Attributes:
    ranges: {kind: range of all its parts}.
    rate: η, as a share of each range; ``Learned.rate`` is what counts.
    normalise, optimiser, momentum: as in ``alpha.AlphaOptimiser``.

  Example:

    >>> chain = VectorOptimiser({"w": Range(0.01, 100, log=True)}, rate=0.1)
    >>> at = chain.init({"w": {"image": 1.0, "text": 1.0}})
    >>> at = chain.update(at, {"w": {"image": -3.0, "text": 7e-5}})
    >>> {m: round(float(w), 2) for m, w in chain.values(at)["w"].items()}
    {'image': 2.51, 'text': 0.4}
  """

  ranges: Mapping[str, Range]
  rate: float = alpha.RATE
  normalise: str = "rms"
  optimiser: str = "sgd"
  momentum: float = 0.0

  def __post_init__(self):
    own = self.rate, self.normalise, self.optimiser, self.momentum
    alpha.check_chain(*own, whose="the vector")

  def _chain(self) -> optax.GradientTransformation:
    return alpha.chain(self.normalise, self.optimiser, self.momentum)

  def init(self, start: Mapping[str, Mapping[str, float]]) -> Learned:
    """The vector at ``{kind: {part: value}}``.

    Raises:
      ValueError: a value outside its range.
    """
    for kind, parts in start.items():
      for value in parts.values():
        self.ranges[kind].check(kind, value)
    position = self.positions(start)
    rate = jnp.asarray(self.rate, jnp.float32)
    return Learned(position, rate, self._chain().init(position))

  def positions(self, values: Mapping[str, Mapping[str, Any]]) -> Any:
    """u of values, within [0, 1]."""
    return self._each(
      lambda r, v: jnp.clip(r.position(jnp.asarray(v, jnp.float32)), 0, 1),
      values,
    )

  def values(self, learned: Learned) -> Any:
    """{kind: {part: v []}}."""
    return self._each(Range.value, learned.position)

  def scaled(self, learned: Learned, gradient: Any) -> Any:
    """The derivatives with respect to u, ``g dv/du``."""
    slopes = self._each(
      lambda r, u: jnp.asarray(r.slope(u), u.dtype), learned.position
    )
    return jax.tree.map(
      lambda g, s: jnp.asarray(g, s.dtype) * s, gradient, slopes
    )

  def update(self, learned: Learned, gradient: Any) -> Learned:
    """One projected step; one entry that is not finite holds all where it is.

    Args:
      learned: where the vector is.
      gradient: ``dL/dv``, like its values.
    """
    scaled = self.scaled(learned, gradient)
    updates, opt_state = self._chain().update(scaled, learned.opt_state)
    position = jax.tree.map(
      lambda u, d: jnp.clip(u + learned.rate * d, 0, 1).astype(u.dtype),
      learned.position,
      updates,
    )
    new = Learned(position, learned.rate, opt_state)
    return trees.select(trees.all_finite(scaled), new, learned)

  def _each(self, f: Any, tree: Any) -> Any:
    return {
      kind: {part: f(self.ranges[kind], x) for part, x in parts.items()}
      for kind, parts in tree.items()
    }
