"""The jit boundary: where training steps are compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.extend import core
from jaxtyping import PyTree

from dmg_jax import losses
from dmg_jax.errors import InputError
from dmg_jax.training.inputs.modality_dropout import dropped
from dmg_jax.types import (
  Apply,
  Batch,
  Data,
  Method,
  Metrics,
  Params,
  Problem,
  Stats,
  TrainState,
)

# Independent streams of randomness, all functions of (seed, step).
_INIT, _STEP, _OUTER, _ORDER, _DROP, _DROP_OUTER = range(6)

# A number, or one of a compiled program's arguments.
Seed = Any
# A step to one whose new state lies where the old one did.
Keep = Callable[[Callable[..., Any]], Callable[..., Any]]


def _key(seed: Seed, stream: int) -> jax.Array:
  return jax.random.fold_in(jax.random.key(seed), stream)


def init_state(
  problem: Problem,
  method: Method,
  params: Params,
  stats: Stats,
  init_opt: Callable[[Params], PyTree],
  seed: int,
) -> TrainState:
  """The state before the first step."""
  step = jnp.zeros((), jnp.int32)
  state = TrainState(step, params, stats, init_opt(params), method=())
  memory = method.init(problem, state, _key(seed, _INIT))
  return _separate(state.replace(method=memory))


def between_epochs(
  problem: Problem, method: Method, state: TrainState, data: Data, epoch: int
) -> TrainState:
  """The method's hook; what comes back is ready for ``make_train_step``."""
  after = _separate(method.between_epochs(problem, state, data, epoch))
  return alike(after, state)


def order(
  problem: Problem, method: Method, state: TrainState, seed: int, epoch: int
) -> np.ndarray | None:
  """The method's order of an epoch's samples, ``None`` if it has none."""
  if method.order is None:
    return None
  key = jax.random.fold_in(_key(seed, _ORDER), epoch)
  return np.asarray(method.order(problem, state.method, key, epoch))


def _separate(state: TrainState) -> TrainState:
  """A copy of every array that occurs twice: a step donates its state."""
  seen: set[int] = set()

  def own(x):
    again = id(x) in seen
    seen.add(id(x))
    return jnp.copy(x) if again else x

  return jax.tree.map(own, state)


def alike(state: TrainState, old: TrainState) -> TrainState:
  """``state`` typed and placed as ``old``: else a step would compile again."""

  def place(x, like):
    if (
      isinstance(x, jax.Array)
      and x.dtype == like.dtype
      and x.weak_type == like.weak_type
      and x.sharding == like.sharding
      and x.committed == like.committed
    ):
      return x
    return jax.device_put(jnp.asarray(x, like.dtype), like.sharding)

  return jax.tree.map(place, state, old)


def make_train_step(
  problem: Problem,
  method: Method,
  apply: Apply,
  several: bool = False,
  donate: bool = True,
  weights: np.ndarray | None = None,
  modality_dropout: float = 0.0,
  keep: Keep | None = None,
) -> Callable[[TrainState, Batch, Seed], tuple[TrainState, Metrics]]:
  """One step of the method, compiled once; the old state is donated.

  The seed is an argument, so that runs of other seeds share the program. With
  ``several`` of them in one step, every argument and result has an axis of
  replicas in front. ``weights`` [k] are those of the classes in every
  cross-entropy, see ``losses.with_class_weights``; ``modality_dropout`` is the
  rate of the file of that name. ``keep`` is ``sharding.keep`` for a state that
  is not whole on every device.
  """

  def train_step(state: TrainState, batch: Batch, seed: Seed):
    key = jax.random.fold_in(_key(seed, _STEP), state.step)
    batch = losses.with_class_weights(batch, weights)
    hidden = jax.random.fold_in(_key(seed, _DROP), state.step)
    batch = dropped(batch, modality_dropout, hidden)
    state, metrics = method.step(problem, state, batch, key, apply)
    # Finite iff every weight is: what the loop watches for divergence.
    norm = optax.global_norm(state.params)
    metrics = {**metrics, "weight_norm": norm}
    return state.replace(step=state.step + 1), metrics

  step = jax.vmap(train_step) if several else train_step
  step = step if keep is None else keep(step)
  return jax.jit(step, donate_argnums=(0,) if donate else ())


def make_train_steps(
  step: Callable[[TrainState, Batch, Seed], tuple[TrainState, Metrics]],
  size: int,
) -> Callable[..., tuple[TrainState, Mapping[str, Any]]]:
  """Up to ``size`` steps in one call of the device, compiled once.

  Args:
    step: of ``make_train_step``.
    size: how many batches there is room for.

  Returns:
    ``(state, batches, count, seed) -> state, metrics``. All arrays of
    ``batches`` and ``metrics`` have an axis of length ``size`` in front, of
    which the first ``count`` entries count. The numbers are the same however
    steps are divided among calls; they are those of ``step`` up to rounding,
    since a compiler orders sums within a loop as it likes.
  """

  def train_steps(state: TrainState, batches: Batch, count: Any, seed: Seed):
    def batch(i):
      return jax.tree.map(
        lambda x: lax.dynamic_index_in_dim(x, i, 0, keepdims=False), batches
      )

    def advance(i, carry):
      state, told = carry
      state, metrics = step(state, batch(i), seed)
      return state, jax.tree.map(lambda a, x: a.at[i].set(x), told, metrics)

    _, shapes = jax.eval_shape(step, state, batch(0), seed)
    empty = jax.tree.map(lambda s: jnp.zeros((size, *s.shape), s.dtype), shapes)
    return lax.fori_loop(0, count, advance, (state, empty))

  return jax.jit(train_steps, donate_argnums=0)


def make_outer_step(
  problem: Problem,
  method: Method,
  parts: bool = False,
  several: bool = False,
  donate: bool = True,
  weights: np.ndarray | None = None,
  modality_dropout: float = 0.0,
  keep: Keep | None = None,
) -> Callable[[TrainState, Batch, Batch, Seed], tuple[TrainState, Metrics]]:
  """One outer step of a bi-level method, compiled once.

  In ``parts``, each ``jit`` inside is compiled by itself, and what it repeats
  only once; see ``bilevel.loops.separate``. Seed, ``several``
  ``weights``, ``keep`` and ``modality_dropout``, of the inner batch alone, as
  in ``make_train_step``.
  """
  outer_step = method.outer_step
  if outer_step is None:
    raise InputError("this method has no outer level")

  def one(state: TrainState, inner: Batch, outer: Batch, seed: Seed):
    key = jax.random.fold_in(_key(seed, _OUTER), state.step)
    inner = losses.with_class_weights(inner, weights)
    outer = losses.with_class_weights(outer, weights)
    hidden = jax.random.fold_in(_key(seed, _DROP_OUTER), state.step)
    inner = dropped(inner, modality_dropout, hidden)
    return outer_step(problem, state, inner, outer, key)

  step = jax.vmap(one) if several else one
  step = step if keep is None else keep(step)
  if parts:
    return _in_parts(step)
  return jax.jit(step, donate_argnums=(0,) if donate else ())


def _in_parts(step: Callable[..., Any]) -> Callable[..., Any]:
  """``step``, traced once; each ``jit`` inside it is compiled by itself."""

  @functools.cache
  def traced(structure, shapes):
    args = jax.tree.unflatten(structure, shapes)
    program, out = jax.make_jaxpr(step, return_shape=True)(*args)
    needed = program.jaxpr.replace(eqns=_needed(program.jaxpr))
    function = core.jaxpr_as_fun(core.ClosedJaxpr(needed, program.consts))
    return function, jax.tree.structure(out)

  def run(*args):
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, args))
    shapes = tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves)
    function, out = traced(structure, shapes)
    return jax.tree.unflatten(out, function(*leaves))

  return run


def _needed(program: core.Jaxpr) -> list[core.JaxprEqn]:
  """The equations that some result depends on; a compiler drops the others."""
  wanted, kept = set(map(id, program.outvars)), []
  for equation in reversed(program.eqns):
    if equation.effects or any(id(x) in wanted for x in equation.outvars):
      wanted.update(map(id, equation.invars))
      kept.append(equation)
  return kept[::-1]
