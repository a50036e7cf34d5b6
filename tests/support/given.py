"""A problem whose weights are the outputs: what a rule does to them is exact.

``forward`` returns its parameters, so the gradient of a step is the gradient of
the rule's loss by logits and features, and the step costs no network.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax.types import (
  SHARED,
  Batch,
  Fused,
  Outputs,
  Problem,
  TrainState,
)

CLASSES, SAMPLES, FEATURES = 4, 7, 3
MASK = np.array([1, 1, 0, 1, 1, 1, 0])
REAL = MASK > 0


def values(modalities: int = 3, seed: int = 0) -> dict[str, Any]:
  """Random outputs, float64, and a linear head for ``fuse``."""
  rng = np.random.default_rng(seed)
  names = "abc"[:modalities]
  return {
    "logits": rng.normal(size=(SAMPLES, CLASSES)),
    "unimodal": {
      m: (i + 1) * rng.normal(size=(SAMPLES, CLASSES))
      for i, m in enumerate(names)
    },
    "features": {m: rng.normal(size=(SAMPLES, FEATURES)) for m in names},
    "head": {m: rng.normal(size=(FEATURES, CLASSES)) for m in names},
  }


def batch(seed: int = 0) -> Batch:
  """Labels that no output depends on; two samples are padding."""
  labels = np.random.default_rng(seed).integers(0, CLASSES, SAMPLES)
  return Batch(
    {},
    jnp.asarray(labels, jnp.int32),
    jnp.asarray(MASK, jnp.float32),
    jnp.arange(SAMPLES, dtype=jnp.int32),
  )


def logits_of(features, head):
  """``fuse``'s logits: Σ z_m W_m."""
  return sum(features[m] @ head[m] for m in features)


def problem(value: dict[str, Any], extra: dict | None = None) -> Problem:
  """The problem at these outputs."""

  def forward(params, stats, inputs, key, train, present=None, keep=None):
    del inputs, key, train, keep, present
    out = params["logits"], params["unimodal"], params["features"]
    return Outputs(*out, {**(extra or {}), **params.get("extra", {})}), stats

  def fuse(params, stats, features, key, train, present=None):
    del stats, key, train
    return Fused(logits_of(features, params["head"]), params["unimodal"])

  params = jax.tree.map(jnp.asarray, value)
  owner = {
    "unimodal": {m: f"{m}/head" for m in value["unimodal"]},
    "features": {m: m for m in value["features"]},
  }
  owner = jax.tree.map(lambda _: SHARED, value) | owner
  outputs = forward(params, {}, {}, None, False)[0]
  names = tuple(value["features"])
  return Problem(forward, fuse, owner, names, outputs, 50, "given")


def start(method, bound: Problem, value, seed: int = 0) -> TrainState:
  """The state before the first step."""
  params = jax.tree.map(jnp.asarray, value)
  state = TrainState(jnp.zeros((), jnp.int32), params, {}, (), ())
  return state.replace(method=method.init(bound, state, jax.random.key(seed)))


def step(method, bound: Problem, state: TrainState, data=None, seed: int = 0):
  """One step of the rule: ``(gradient, state, metrics, scale, rate's step)``.

  The weights stay as they are.
  """
  seen = {}

  def apply(state, grads, scale=None):
    seen.update(grads=grads, scale=scale, step=int(state.step))
    return state

  data = batch() if data is None else data
  new, metrics = method.step(bound, state, data, jax.random.key(seed), apply)
  return seen["grads"], new, metrics, seen["scale"], seen["step"]


def slopes(loss, value, seed: int = 0, eps: float = 1e-5, count: int = 4):
  """``[(direction, slope)]``: central differences along random directions."""
  rng = np.random.default_rng(seed)
  found = []
  for _ in range(count):
    way = jax.tree.map(lambda x: rng.normal(size=np.shape(x)), value)
    ends = [
      float(loss(jax.tree.map(lambda x, d, s=s: x + s * eps * d, value, way)))
      for s in (1, -1)
    ]
    found.append((way, (ends[0] - ends[1]) / (2 * eps)))
  return found


def check_gradient(grads, loss, value):
  """``grads`` against the slopes of a loss in NumPy."""
  for way, slope in slopes(loss, value):
    parts = jax.tree.map(
      lambda g, d: float((np.asarray(g) * d).sum()), grads, way
    )
    total = sum(jax.tree.leaves(parts))
    np.testing.assert_allclose(total, slope, rtol=1e-5, atol=1e-8)


def check(method, value, loss, state=None, extra=None, seed: int = 0):
  """Loss and gradient of a step against ``loss(live, stopped)`` in NumPy."""
  bound = problem(value, extra)
  state = start(method, bound, value) if state is None else state
  grads, _, metrics, _, _ = step(method, bound, state, seed=seed)
  np.testing.assert_allclose(metrics["loss"], loss(value, value), rtol=1e-6)
  check_gradient(grads, lambda live: loss(live, value), value)
