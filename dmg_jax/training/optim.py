"""The optimiser as a pure function: one optax chain per owner of weights.

Each owner has its own moments and step count, so a method that updates one
owner at a time (MLA) or freezes one (phases) does not change the others' bias
correction. The learning rate is a function of ``TrainState.step``,
times the scale of ``TrainState.plateau`` if there is one, and multiplies what
the chain returns.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from dmg_jax.errors import InputError, unknown
from dmg_jax.training.steps import alike
from dmg_jax.types import Apply, Params, TrainState

# Under Adam's root, so that the derivative of a step (forward-mode α) is finite
# at weights that never had a gradient, such as words not yet seen.
_ROOT = 1e-30

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "plateau", "step")


def _direction(
  name: str, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
  """Descent direction of unit learning rate, weight decay included.

  ``adamw`` decouples weight decay from the moments; ``adam`` and ``sgd`` add it
  to the gradient (L2), as torch does.
  """
  decay = optax.add_decayed_weights(weight_decay) if weight_decay else None
  if name == "sgd":
    parts = [decay, optax.trace(momentum) if momentum else None]
  elif name == "adam":
    parts = [decay, optax.scale_by_adam(b1=momentum, eps_root=_ROOT)]
  elif name == "adamw":
    parts = [optax.scale_by_adam(b1=momentum, eps_root=_ROOT), decay]
  else:
    raise unknown("optimiser", name, OPTIMISERS)
  return optax.chain(*(p for p in parts if p), optax.scale(-1.0))


def learning_rate(
  schedule: str,
  peak: float,
  steps: int,
  warmup: int = 0,
  drops: Mapping[int, float] | None = None,
) -> optax.Schedule:
  """The learning rate as a function of the step, linear warm-up first.

  ``cosine`` falls to zero at ``steps``. ``step`` is multiplied by a factor at
  each step of ``drops``. ``plateau`` is constant here: see ``Plateau`` for the
  rest.
  """
  if schedule in ("constant", "plateau"):
    after = optax.constant_schedule(peak)
  elif schedule == "step":
    after = optax.piecewise_constant_schedule(
      peak, {max(at - warmup, 0): f for at, f in (drops or {}).items()}
    )
  elif schedule == "cosine":
    after = optax.cosine_decay_schedule(peak, max(steps - warmup, 1))
  else:
    raise unknown("schedule", schedule, SCHEDULES)
  ramp = optax.linear_schedule(0.0, peak, max(warmup, 1))
  return optax.join_schedules([ramp, after], [warmup]) if warmup else after


def check_step(epochs: Sequence[int], factor: float) -> None:
  """Refuses drops of the schedule ``step`` that make no sense.

  Raises:
    ValueError: no epochs, or not whole numbers from 1 on that rise; not 0 <
      factor < 1.
  """
  whole = all(isinstance(e, int) and e > 0 for e in epochs)
  if not epochs or not whole or list(epochs) != sorted(set(epochs)):
    raise InputError(
      "schedule=step needs optimiser.step.epochs, the epochs after which the "
      "rate falls, rising whole numbers as in (70,) or (30, 60), got "
      f"{tuple(epochs)!r}"
    )
  if not 0 < factor < 1:
    raise InputError(
      f"optimiser.step.factor must lie in (0, 1), got {factor!r}"
    )


def make(
  owner: PyTree[str],
  rate: optax.Schedule,
  *,
  name: str = "adam",
  momentum: float = 0.9,
  weight_decay: float = 0.0,
  clip_norm: float | None = None,
  frozen: Collection[str] = (),
  factors: PyTree[float] = None,
) -> tuple[Callable[[Params], PyTree], Apply]:
  """The optimiser for weights owned as ``owner`` says.

  Args:
    owner: pytree of owners, as ``Problem.owner``.
    rate: learning rate as a function of ``TrainState.step``.
    name: one of ``OPTIMISERS``.
    momentum: of SGD, or Adam's b1.
    weight_decay: coefficient; coupled (L2) but for ``adamw``.
    clip_norm: largest norm of the whole gradient, before anything else.
    frozen: owners without weights that ``scale`` may name.
    factors: pytree like ``owner``, factor of each weight's update, weight decay
      of ``adamw`` included; ``None`` stands for 1.

  Returns:
    ``init(params) -> opt_state`` and ``apply`` (see ``types.Apply``).

  Raises:
    ValueError: unknown name; ``scale`` names an owner that does not exist.
  """
  direction = _direction(name, momentum, weight_decay)
  return _functions(
    owner,
    direction,
    clip_norm,
    lambda state: rate(state.step) * _scale(state),
    frozen,
    factors,
  )


def from_optax(
  owner: PyTree[str],
  transformation: Any,
  clip_norm: float | None = None,
) -> tuple[Callable[[Params], PyTree], Apply]:
  """``make`` for a transformation of optax, its learning rate included.

  Every owner's weights go through it by themselves, with a state of their own:
  what it computes over all weights, as a global norm, is over one owner's.

  Args:
    owner: pytree of owners, as ``Problem.owner``.
    transformation: an optimiser or chain, e.g. ``optax.adam(1e-3)``.
    clip_norm: largest norm of the whole gradient, before anything else.

  Returns:
    As ``make``.

  Raises:
    ValueError: it is no transformation of optax.
  """
  if not isinstance(transformation, optax.GradientTransformation):
    raise InputError(
      "the optimiser must be a gradient transformation of optax, as "
      f"optax.adam(1e-3), got {transformation!r}"
    )
  return _functions(owner, transformation, clip_norm, lambda state: 1.0)


def _functions(
  owner: PyTree[str],
  direction: optax.GradientTransformation,
  clip_norm: float | None,
  rate: Callable[[TrainState], Any],
  frozen: Collection[str] = (),
  factors: PyTree[float] = None,
) -> tuple[Callable[[Params], PyTree], Apply]:
  """``init`` and ``apply`` of ``make``; ``rate`` is of the state."""
  own = jax.tree.map(lambda _: 1.0, owner) if factors is None else factors
  labels: Any = sorted(set(jax.tree.leaves(owner)))
  chain = optax.partition(dict.fromkeys(labels, direction), owner)
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else None

  def apply(
    state: TrainState, grads: Params, scale: Mapping[str, Any] | None = None
  ) -> TrainState:
    if clip is not None:
      grads, _ = clip.update(grads, clip.init(grads))
    updates, opt_state = chain.update(grads, state.opt_state, state.params)
    scales = _scales(labels, scale, frozen)
    opt_state = _keep_frozen(opt_state, state.opt_state, scales)
    lr = rate(state)
    params = jax.tree.map(
      lambda p, u, o, f: _step(p, u if f == 1 else f * u, lr, scales[o]),
      state.params,
      updates,
      owner,
      own,
    )
    return state.replace(params=params, opt_state=opt_state)

  return chain.init, apply


def _scales(labels, scale, frozen):
  unknown = sorted(set(scale or {}) - {*labels, *frozen})
  if unknown:
    raise InputError(
      f"scale names {', '.join(unknown)}; the owners are {', '.join(labels)}"
    )
  return {label: (scale or {}).get(label, 1.0) for label in labels}


def _scale(state: TrainState):
  return state.plateau.scale if state.plateau else 1.0


def _step(p, u, lr, factor):
  moved = p + (lr * factor * u).astype(p.dtype)
  return (
    moved if isinstance(factor, float) else jnp.where(factor == 0, p, moved)
  )


def _keep_frozen(new, old, factors):
  """The new optimiser state, the old one for owners with factor zero."""
  inner = {}
  for label, state in new.inner_states.items():
    factor = factors[label]
    if isinstance(factor, float):
      inner[label] = old.inner_states[label] if factor == 0 else state
    else:
      inner[label] = jax.tree.map(
        lambda n, o, f=factor: jnp.where(f == 0, o, n),
        state,
        old.inner_states[label],
      )
  return new._replace(inner_states=inner)


class Plateau:
  """The learning rate falls where the loss on val stops falling.

  After every epoch whose weights are a classifier (``Method.ready``), with the
  cross-entropy ``l`` of the fused prediction on val,

      bad = 0 if l < (1 - threshold) best else bad + 1,
      rate = factor · rate and bad = 0 once bad = patience.

  The counts are in ``TrainState.plateau``. The state machine is optax's, which
  torch's ``ReduceLROnPlateau`` has with one more epoch of patience:
  ``patience=11`` here is 10 there.
  """

  def __init__(
    self, *, factor: float = 0.1, patience: int = 11, threshold: float = 1e-4
  ):
    """All three as in the equation above.

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
    return alike(state.replace(plateau=after), state)
