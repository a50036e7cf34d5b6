"""Steps of weights and hyper-parameters, those of the method ``auto``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dmg_jax import trees
from dmg_jax.bilevel import VectorOptimiser
from dmg_jax.bilevel.alpha import fitting_rate
from dmg_jax.bilevel.vector import Learned
from dmg_jax.errors import InputError
from dmg_jax.methods import _levels, _named, _terms, _weighted
from dmg_jax.methods._adapters import differentiate
from dmg_jax.methods._matching import Matching


class AutoState(struct.PyTreeNode):
  """The vector, and in the forward form the tangents along it, else ``()``."""

  learned: Learned
  tangents: Any = ()


@dataclasses.dataclass(frozen=True)
class Learner:
  """Hooks of ``types.Method``.

  Attributes:
    kinds: what is learned.
    first: {kind: first value}.
    chain: of the vector.
    matching: the matching loss.
    forward: carry tangents.
    replay: values that are given instead, see ``auto``.
  """

  kinds: tuple[str, ...]
  first: Mapping[str, float]
  chain: VectorOptimiser
  matching: Matching
  forward: bool
  replay: tuple[float, ...]

  def init(self, problem, state, key) -> AutoState:
    """The vector at its start."""
    del key
    start = _named.chosen(problem, self.kinds, self.first)
    self._rows(start)
    learned = self.chain.init(start)
    zero = _levels.tangents(state, start) if self.forward else ()
    return AutoState(learned, zero)

  def between(self, rate, inner_iters, problem, state, data, epoch):
    """The rate, before the first epoch; the row of an epoch, if given."""
    del problem
    learned = state.method.learned
    if self.replay:
      rows = self._rows(learned.position)
      row = rows[min(epoch * len(rows) // data.epochs, len(rows) - 1)]
      structure = jax.tree.structure(learned.position)
      values = jax.tree.unflatten(structure, [float(x) for x in row])
      learned = learned.replace(position=self.chain.positions(values))
    elif rate is None and epoch == 0:
      steps = data.epochs * data.steps_per_epoch
      fitting = fitting_rate(steps // (inner_iters or data.steps_per_epoch))
      learned = learned.replace(rate=fitting)
    return state.replace(method=state.method.replace(learned=learned))

  def _rows(self, like) -> np.ndarray:
    """``replay`` as [epochs, entries]."""
    names = _named.names(like)
    if len(self.replay) % len(names):
      raise InputError(
        f"replay needs {len(names)} values for each epoch, of "
        f"{', '.join(names)}; got {len(self.replay)} in all"
      )
    return np.reshape(np.asarray(self.replay, float), (-1, len(names)))

  def _total(self, problem):
    objective = _weighted.Objective(self.matching, self.first)

    def total(outputs, params, batch, hyper):
      return objective(problem, outputs, params, batch, hyper)

    return total

  def step(self, problem, state, batch, key, apply):
    """One step of θ."""
    total = self._total(problem)
    hyper = self.chain.values(state.method.learned)
    done = differentiate(
      lambda outputs, params: total(outputs, params, batch, hyper),
      problem,
      state,
      batch,
      key,
    )
    metrics = {**done.metrics, **_shown(hyper)}
    return apply(done.state, done.grads), metrics

  def step_forward(self, problem, state, batch, key, apply):
    """One step of θ with its tangents."""
    memory = state.method
    hyper = self.chain.values(memory.learned)
    state, tangents, metrics = _levels.step_with_tangents(
      problem, self._total(problem), state, memory.tangents, hyper, batch, key,
      apply,
    )  # fmt: skip
    state = state.replace(method=memory.replace(tangents=tangents))
    return state, {**metrics, **_shown(hyper)}

  def outer_implicit(self, solver, damping, problem, state, inner, outer, key):
    """One step of h, by a linear solve."""
    hyper = self.chain.values(state.method.learned)
    total = self._total(problem)
    gradient, info = _levels.implicit(
      problem, total, solver, damping, state, hyper, inner, outer, key
    )
    state, metrics = self._moved(state, gradient)
    return state, {**metrics, **_levels.told(info, solver)}

  def outer_forward(self, problem, state, inner, outer, key):
    """One step of h along the tangents, which then start again."""
    del key
    hyper = self.chain.values(state.method.learned)
    tangents, at_once = state.method.tangents, inner.labels.size
    gradient = _levels.along(problem, state, tangents, hyper, outer, at_once)
    state, metrics = self._moved(state, gradient)
    zero = trees.zeros_like(tangents)
    return state.replace(method=state.method.replace(tangents=zero)), metrics

  def _moved(self, state, gradient):
    before = state.method.learned
    learned = self.chain.update(before, gradient)
    hyper = self.chain.values(learned)
    size = trees.norm(self.chain.scaled(before, gradient))
    named = {f"hypergradient_{k}": v for k, v in _each(gradient).items()}
    metrics = {"hypergradient": size, **named, **_shown(hyper)}
    if "alpha" in hyper:
      alphas = hyper["alpha"].values()
      metrics["alpha"] = _terms.total(hyper["alpha"]) / len(alphas)
    method = state.method.replace(learned=learned)
    return state.replace(method=method), metrics


def _each(values) -> dict[str, jax.Array]:
  return {k: jnp.asarray(v) for k, v in _named.named(values).items()}


def _shown(hyper) -> dict[str, jax.Array]:
  return {f"learned_{k}": v for k, v in _each(hyper).items()}
