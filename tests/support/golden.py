"""Golden numbers of official implementations, and models that replay them.

Official outputs were written with 12 digits, so ``RTOL`` is what float64 code
can agree to; a test that is looser says why.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.types import (
  SHARED,
  Batch,
  Method,
  Outputs,
  Problem,
  TrainState,
)

RTOL, ATOL = 1e-10, 3e-11
_FOLDER = pathlib.Path(__file__).parents[1] / "parity" / "golden"


def cases(rule: str, kind: str | None = None) -> list:
  """``(inputs, outputs)`` of each recorded case, as pytest parameters."""
  whole = json.loads((_FOLDER / f"{rule}.json").read_text())["cases"]
  return [
    pytest.param(arrays(c["inputs"]), arrays(c["outputs"]), id=f"{rule}-{i}")
    for i, c in enumerate(whole)
    if kind is None or c["inputs"]["kind"] == kind
  ]


def arrays(x: Any) -> Any:
  """Lists of numbers as NumPy arrays (a null row is NaN), all else as it is."""
  if isinstance(x, dict):
    return {k: arrays(v) for k, v in x.items()}
  if not isinstance(x, list):
    return x
  if any(isinstance(v, str | dict) for v in x):
    return [arrays(v) for v in x]
  width = max((len(v) for v in x if isinstance(v, list)), default=0)
  return np.array([[np.nan] * width if v is None else v for v in x])


def close(ours: Any, theirs: Any, rtol: float = RTOL, atol: float = ATOL):
  """Every leaf close; both trees have the same structure."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    ours,
    theirs,
  )


def batch(labels: np.ndarray, inputs: dict | None = None) -> Batch:
  """A batch without padding."""
  size = len(labels)
  labels = jnp.asarray(labels, jnp.int32)
  index = jnp.asarray(np.arange(size), jnp.int32)
  return Batch(inputs or {}, labels, jnp.asarray(np.ones(size)), index)


def state(params: Any, method: Any = ()) -> TrainState:
  """A state whose ``opt_state`` collects what reaches the optimiser."""
  params = jax.tree.map(jnp.asarray, params)
  return TrainState(jnp.zeros((), jnp.int32), params, {}, (), method)


def capture(state, grads, scale=None):
  """``types.Apply`` that changes no weight and remembers its arguments."""
  return state.replace(opt_state=(*state.opt_state, (grads, scale)))


def program(*static: str):
  """Compiles a whole comparison once for all cases of the same shapes.

  What it returns is on the host, so that nothing else is compiled.
  """

  def wrap(function):
    compiled = jax.jit(function, static_argnames=static)
    return lambda *args, **options: jax.device_get(compiled(*args, **options))

  return wrap


def step(method: Method, problem: Problem, start: TrainState, data: Batch):
  """``(gradients, metrics, state)`` of one step, inside a ``program``."""
  after, metrics = method.step(problem, start, data, jax.random.key(0), capture)
  return after.opt_state[-1][0], metrics, after


def problem(
  params: Any,
  owner: Any,
  forward: Any,
  names: tuple[str, ...],
  fuse: Any = None,
  inputs: dict | None = None,
  samples: int = 1,
  readout: str = "R2 own head",
  additive: bool = False,
) -> Problem:
  """A ``Problem`` of ``forward(params, inputs, present) -> Outputs``."""

  def full(
    params, stats, inputs, key, train, present=None, keep=None, shown=None
  ):
    del key, train, keep
    return forward(params, inputs, shown), stats

  def fused(params, stats, features, key, train, present=None):
    del stats, key, train, present
    return fuse(params, features)

  like = jax.eval_shape(forward, params, inputs or {}, None)
  facts = full, fused, owner, names, like, samples, readout
  return Problem(*facts, additive=additive)


def on_features(
  fusion: Any, params: dict, names: tuple[str, ...], encode: Any = None
) -> Problem:
  """The model whose parameters are its features, under one of our fusions.

  Args:
    fusion: a Flax module of ``dmg_jax.model.fusion``.
    params: ``{"features": {m: ...}, "fusion": Flax parameters}``.
    names: of the modalities, in their order (a compiler sorts them).
    encode: ``(m, params["features"][m]) -> [b d]``; the features as they are.
  """
  encode = encode or (lambda m, z: z)

  def fuse(params, features):
    return fusion.apply({"params": params["fusion"]}, features, True)

  def forward(params, inputs, present):
    del inputs, present
    z = {m: encode(m, params["features"][m]) for m in names}
    f = fuse(params, z)
    return Outputs(f.logits, f.unimodal, z, dict(f.extra))

  owner = {
    "features": {
      m: jax.tree.map(lambda _, m=m: m, params["features"][m]) for m in names
    },
    "fusion": jax.tree.map(lambda _: SHARED, params["fusion"]),
  }
  facts = {
    "readout": sys.modules[type(fusion).__module__].READOUT,
    "additive": getattr(fusion, "additive", False),
  }
  return problem(params, owner, forward, names, fuse, **facts)


def split_head(names, z, weight, bias) -> dict:
  """Parameters of the fusion ``concat`` from a torch matrix (out, in)."""
  ends = np.cumsum([z[m].shape[1] for m in names])[:-1]
  blocks = np.split(weight, ends, axis=1)
  heads = {f"head_{m}": w.T for m, w in zip(names, blocks, strict=True)}
  return {**heads, "bias": bias} if bias is not None else heads


def joined_head(names, tree) -> np.ndarray:
  """The torch matrix of ``split_head``."""
  return np.concatenate([tree[f"head_{m}"].T for m in names], axis=1)


def replay(params: Any, value: Any, grads: Any) -> Any:
  """``value``, whose backward pass gives ``params`` the recorded ``grads``."""

  @jax.custom_vjp
  def recorded(params):
    return value

  def backward(_, cotangent):
    return (jax.tree.map(jnp.asarray, grads),)

  recorded.defvjp(lambda params: (value, None), backward)
  return recorded(params)
