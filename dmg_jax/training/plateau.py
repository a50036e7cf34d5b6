"""The learning rate falls where the loss on val stops falling.

After every epoch whose weights are a classifier (``Method.ready``), with the
cross-entropy ``l`` of the fused prediction on val,

    bad = 0 if l < (1 - threshold) best else bad + 1,
    rate = factor · rate and bad = 0 once bad = patience.

The state machine is optax's, which torch's ``ReduceLROnPlateau`` has with one
more epoch of patience: ``patience=11`` here is 10 there.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from dmg_jax.errors import InputError
from dmg_jax.training import steps
from dmg_jax.types import TrainState


class Plateau:
  """Watches the loss on val for ``TrainState.plateau``."""

  def __init__(
    self, *, factor: float = 0.1, patience: int = 11, threshold: float = 1e-4
  ):
    """All three as in the module's docstring.

    Raises:
      ValueError: not 0 < factor < 1, patience < 1 or not 0 < threshold ≤ 1.
    """
    allowed = {
      "factor": (factor, 0 < factor < 1, "(0, 1)"),
      "patience": (patience, patience >= 1, "[1, ∞)"),
      "threshold": (threshold, 0 < threshold <= 1, "(0, 1]"),
    }
    for name, (value, good, interval) in allowed.items():
      if not good:
        raise InputError(
          f"optimiser.plateau.{name} must lie in {interval}, got {value!r}"
        )
    rule: Any = optax.contrib.reduce_on_plateau(
      factor=factor, patience=patience, rtol=threshold
    )
    self._start = rule.init
    self._next = jax.jit(lambda now, loss: rule.update((), now, value=loss)[1])

  def start(self) -> Any:
    """The state before the first epoch."""
    return self._start(jnp.zeros((), jnp.float32))

  def observe(self, state: TrainState, loss: float) -> TrainState:
    """The state after an epoch that ended with this loss on val."""
    after = self._next(state.plateau, jnp.float32(loss))
    return steps.alike(state.replace(plateau=after), state)
