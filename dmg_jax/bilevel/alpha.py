r"""The outer variable α and its own optimiser.

.. math:: \alpha \leftarrow \Pi_{[lo, hi]}\bigl(\alpha - \eta\,
  \mathrm{optimiser}(\mathrm{normalise}(g))\bigr)

A raw hypergradient ranges over orders of magnitude within one run, so the
default chain looks at its sign and its size relative to its own history only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, PyTree

from dmg_jax.errors import InputError, unknown

NORMALISATIONS = ("sign", "rms", "clip", "none")
OPTIMISERS = ("sgd", "adam")
RATE, LARGEST_RATE, REACH = 0.02, 0.1, 0.6


class Alpha(struct.PyTreeNode):
  """Value [] in its bounds, its rate η [], and the state of its optax chain."""

  value: Any
  rate: Any
  opt_state: PyTree


@dataclasses.dataclass(frozen=True)
class AlphaOptimiser:
  """α's optax chain: normalise, then sgd or adam, then project.

  Attributes:
    start: α_0.
    rate: η, the step for a gradient of normal size; ``Alpha.rate`` is what
      counts, so that it can be changed in a run.
    normalise: ``sign`` g/|g|; ``rms`` g over the root of the running mean of
      g²; ``clip`` to [-1, 1]; ``none`` (Algorithm 1 to the letter).
    optimiser: ``sgd`` (with ``momentum``) or ``adam``.
    momentum: of sgd, or adam's b1.
    bounds: the interval α is projected onto.
  """

  start: float = 0.5
  rate: float = 0.05
  normalise: str = "rms"
  optimiser: str = "sgd"
  momentum: float = 0.0
  bounds: tuple[float, float] = (0.0, 1.0)

  def __post_init__(self):
    low, high = self.bounds
    if not 0 <= low <= self.start <= high <= 1:
      raise InputError(
        f"alpha must start inside its bounds [{low:g}, {high:g}], a part of "
        f"[0, 1]; got {self.start:g}"
      )
    check_chain(self.rate, self.normalise, self.optimiser, self.momentum)

  def _chain(self) -> optax.GradientTransformation:
    return chain(self.normalise, self.optimiser, self.momentum)

  def init(self) -> Alpha:
    """α at its start."""
    value = jnp.asarray(self.start, jnp.float32)
    rate = jnp.asarray(self.rate, jnp.float32)
    return Alpha(value, rate, self._chain().init(value))

  def update(self, alpha: Alpha, gradient: Float[Array, ""]) -> Alpha:
    """One projected step; a gradient that is not finite changes nothing."""
    gradient = gradient.astype(alpha.value.dtype)
    updates, opt_state = self._chain().update(gradient, alpha.opt_state)
    low, high = self.bounds
    value = jnp.clip(alpha.value + alpha.rate * updates, low, high)
    new = Alpha(value, alpha.rate, opt_state)
    finite = jnp.isfinite(gradient)
    return jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, alpha)


def check_chain(
  rate: float,
  normalise: str,
  optimiser: str,
  momentum: float,
  whose: str = "alpha",
) -> None:
  """Refuses arguments of ``chain`` and rates that make no sense.

  ``whose`` they are is for the message.

  Raises:
    ValueError: an unknown name, with the choices; a rate or momentum out of its
      range.
  """
  if not rate > 0:
    raise InputError(f"{whose}'s rate must be positive, got {rate:g}")
  if not 0 <= momentum < 1:
    raise InputError(f"{whose}'s momentum must lie in [0, 1), got {momentum:g}")
  _choice("normalisation", normalise, NORMALISATIONS)
  _choice(f"optimiser of {whose}", optimiser, OPTIMISERS)


def chain(
  normalise: str, optimiser: str, momentum: float
) -> optax.GradientTransformation:
  """Descent direction of unit rate, entry by entry: normalise, then optimise.

  Args: as the attributes of ``AlphaOptimiser``.
  """
  before = {
    "sign": optax.scale_by_sign(),
    "rms": optax.scale_by_rms(0.9, eps=1e-30, bias_correction=True),
    "clip": optax.clip(1.0),
    "none": optax.identity(),
  }[normalise]
  if optimiser == "adam":
    return optax.chain(before, optax.adam(1.0, b1=momentum))
  return optax.chain(before, optax.sgd(1.0, momentum or None))


def fitting_rate(updates: int) -> Float[Array, ""]:
  """η for so many updates: .6 over their number, within [.02, .1].

  Normalised steps of .02 leave α near its start in a run that makes few. Chosen
  on val, docs/results/lb_defaults.md.
  """
  rate = min(max(REACH / max(updates, 1), RATE), LARGEST_RATE)
  return jnp.asarray(rate, jnp.float32)


def _choice(what: str, name: str, choices: tuple[str, ...]) -> None:
  if name not in choices:
    raise unknown(what, name, choices)
