"""The model: an encoder per modality and a fusion, bound into a ``Problem``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from dmg_jax.types import (
  FROZEN,
  SHARED,
  Fused,
  Outputs,
  Params,
  Problem,
  Stats,
)

_ENCODER = "encoders_"  # Linen's name for entries of a dict attribute.
_PARTS = ("head", "gate")  # ``head_m`` is a modality's own head.
_GREY = 128  # The pixel nearest to zero once pictures are centred.


class Classifier(nn.Module):
  """Encoders by modality name, then the fusion.

  Attributes:
    encoders: {modality: module}, called as ``encoder(x, train)``.
    fusion: module called as ``fusion(features, train, present)`` that returns
      a ``Fused``. With a method ``encode(encoders, inputs, train, present)`` it
      runs the encoders itself, to let modalities talk inside them.
    frozen: modalities whose encoder is always in evaluation mode.
  """

  encoders: Mapping[str, nn.Module]
  fusion: nn.Module
  frozen: tuple[str, ...] = ()

  @nn.compact
  def __call__(
    self,
    inputs: Mapping[str, Any],
    train: bool,
    present: Mapping[str, jax.Array] | None = None,
    keep: Mapping[str, jax.Array] | None = None,
  ) -> Outputs:
    encoders: dict[str, Any] = dict(self.encoders)
    for m in self.frozen:
      encoders[m] = _Evaluating(encoders[m])
    if hasattr(self.fusion, "encode"):
      features = self.fusion.encode(encoders, inputs, train, present)
    else:
      features = {m: e(inputs[m], train) for m, e in encoders.items()}
    features = {m: _wide(z) for m, z in features.items()}
    features = without_missing(features, present)
    fused = with_kept(features, keep)
    logits, unimodal, extra = self.fusion(fused, train, present)
    there = None if present is None else dict(present)
    return Outputs(logits, unimodal, dict(features), dict(extra), there)

  def fuse(
    self,
    features: Mapping[str, jax.Array],
    train: bool,
    present: Mapping[str, jax.Array] | None = None,
  ) -> Fused:
    """The fusion on given features, in the order of the encoders."""
    features = {m: features[m] for m in self.encoders}
    logits, unimodal, extra = self.fusion(features, train, present)
    return Fused(logits, unimodal, dict(extra))


def _wide(z: jax.Array) -> jax.Array:
  """Features in float32 or wider, whatever an encoder computes in."""
  return z.astype(jnp.promote_types(z.dtype, jnp.float32))


class _Evaluating:
  """An encoder that runs in evaluation mode in training, too."""

  def __init__(self, encoder: Any):
    self._encoder = encoder

  def __call__(self, x: Any, train: bool, *stages: int) -> Any:
    del train
    return self._encoder(x, False, *stages)

  def __getattr__(self, name: str) -> Any:
    return getattr(self._encoder, name)


def with_shown(
  inputs: Mapping[str, Any], shown: Mapping[str, jax.Array] | None
) -> Mapping[str, Any]:
  """Inputs with those that are not ``shown`` ablated (read-out R4)."""
  return {
    m: jax.tree.map(functools.partial(_ablate, shown[m]), x)
    if shown is not None and m in shown
    else x
    for m, x in inputs.items()
  }


def overwritten(
  inputs: Mapping[str, Any],
  present: Mapping[str, jax.Array] | None,
  repeat: bool,
) -> Mapping[str, Any]:
  """Inputs with nothing left of those that are missing.

  In their place are zeros, or, to ``repeat``, inputs of the batch that are
  there, in turn: batch statistics are then those of real inputs.
  """
  if present is None or not repeat:
    return with_shown(inputs, present)

  def filled(m, x):
    if m not in present:
      return x
    there = present[m] > 0
    found = jnp.argsort(~there, stable=True)  # Those that are there first.
    turn = (jnp.cumsum(~there) - 1) % jnp.maximum(there.sum(), 1)
    rows = jnp.where(there, jnp.arange(there.size), found[turn])
    some = jnp.broadcast_to(there.any().astype(jnp.float32), there.shape)
    return jax.tree.map(lambda y: _ablate(some, y[rows]), x)

  return {m: filled(m, x) for m, x in inputs.items()}


def without_missing(
  features: Mapping[str, jax.Array], present: Mapping[str, jax.Array] | None
) -> Mapping[str, jax.Array]:
  """Features with those of missing modalities at zero."""
  return {
    m: jnp.where(present[m][:, None] > 0, z, 0)
    if present is not None and m in present
    else z
    for m, z in features.items()
  }


def with_kept(
  features: Mapping[str, jax.Array], keep: Mapping[str, jax.Array] | None
) -> Mapping[str, jax.Array]:
  """Features with those that are not to ``keep`` at zero (read-out R3)."""
  return {
    m: z * keep[m].astype(z.dtype)[:, None]
    if keep is not None and m in keep
    else z
    for m, z in features.items()
  }


def _ablate(shown: jax.Array, x: jax.Array) -> jax.Array:
  absent = _GREY if x.dtype == jnp.uint8 else 0
  rows = shown.reshape(-1, *(1,) * (x.ndim - 1))
  return jnp.where(rows > 0, x, jnp.asarray(absent, x.dtype))


def make_init(
  model: Classifier, inputs: Mapping[str, Any]
) -> Callable[[int], tuple[Params, Stats]]:
  """``seed -> fresh weights and batch statistics``, compiled once.

  Args:
    model: encoders and fusion.
    inputs: of the shapes to come.
  """

  @jax.jit
  def draw(seed, inputs):
    return model.init(jax.random.key(seed), inputs, False)

  def init(seed: int) -> tuple[Params, Stats]:
    variables = dict(draw(seed, inputs))
    params = variables.pop("params")
    return params, variables

  return init


def encoder_variables(
  params: Params, stats: Stats, modality: str
) -> dict[str, Params]:
  """An encoder's own variables, {collection: nested dictionary}."""
  name, own = _ENCODER + modality, _variables(params, stats)
  return {c: own[c][name] for c in own if name in own[c]}


def with_encoder_variables(
  params: Params, stats: Stats, modality: str, variables: Mapping[str, Params]
) -> tuple[Params, Stats]:
  """Weights and batch statistics with an encoder's variables replaced."""
  name, made = _ENCODER + modality, {"params": params, **stats}
  for c, own in variables.items():
    place = FROZEN if name in stats.get(FROZEN, {}) and c == "params" else c
    made[place] = {**made[place], name: own}
  return made.pop("params"), made


def freeze(
  params: Params, stats: Stats, modalities: Sequence[str]
) -> tuple[Params, Stats]:
  """Both with the weights of these encoders among the statistics."""
  names = [_ENCODER + m for m in modalities]
  # An encoder without weights has nothing to freeze.
  kept = {name: params[name] for name in names if name in params}
  rest = {k: v for k, v in params.items() if k not in kept}
  return rest, {**stats, FROZEN: kept} if kept else stats


def _variables(params: Params, stats: Stats) -> dict[str, Any]:
  """All of the model's variables by collection; frozen weights are some."""
  others = {k: v for k, v in stats.items() if k != FROZEN}
  return {"params": {**params, **stats.get(FROZEN, {})}, **others}


def bind(
  model: Classifier,
  params: Params,
  stats: Stats,
  inputs: Mapping[str, Any],
  samples: int,
  readout: str,
) -> Problem:
  """The model as a ``Problem``: pure functions and facts about them.

  Args:
    model: encoders and fusion.
    params, stats: from ``make_init``, by ``freeze`` for ``model.frozen``.
    inputs: a batch of two, for the shapes of the outputs.
    samples, readout: see ``Problem``.
  """

  def forward(
    params: Params,
    stats: Stats,
    inputs: Mapping[str, Any],
    key: PRNGKeyArray | None,
    train: bool,
    present: Mapping[str, jax.Array] | None = None,
    keep: Mapping[str, jax.Array] | None = None,
    shown: Mapping[str, jax.Array] | None = None,
  ) -> tuple[Outputs, Stats]:
    rngs = None if key is None else {"dropout": key}
    moving = [c for c in stats if c != FROZEN]
    variables = _variables(params, stats)
    inputs = overwritten(inputs, present, repeat=train and bool(moving))
    given = with_shown(inputs, shown), train, present, keep
    apply = functools.partial(model.apply, variables, *given)
    if not (train and moving):
      return cast(Outputs, apply(rngs=rngs)), stats
    outputs, new = cast(Any, apply(rngs=rngs, mutable=moving))
    return outputs, {**stats, **new}

  def fuse(
    params: Params,
    stats: Stats,
    features: Mapping[str, jax.Array],
    key: PRNGKeyArray | None,
    train: bool,
    present: Mapping[str, jax.Array] | None = None,
  ) -> Fused:
    rngs = None if key is None else {"dropout": key}
    variables = _variables(params, stats)
    fused = model.apply(
      variables, features, train, present, method="fuse", rngs=rngs
    )
    return cast(Fused, fused)

  def evaluated(params, stats, inputs):
    return forward(params, stats, inputs, None, False)[0]

  outputs = jax.eval_shape(evaluated, params, stats, inputs)
  return Problem(
    forward,
    fuse,
    owners(params),
    tuple(model.encoders),
    outputs,
    samples,
    readout,
    additive=getattr(model.fusion, "additive", False),
    frozen=model.frozen,
  )


def owners(params: Params) -> PyTree[str]:
  """Each weight's owner: ``m``, ``m/head``, ``m/gate`` or shared."""

  def owner(path, _):
    names = [entry.key for entry in path]
    if names[0].startswith(_ENCODER):
      return names[0].removeprefix(_ENCODER)
    for part in _PARTS:
      own = [n for n in names if n.startswith(f"{part}_")]
      if own:
        return f"{own[0].removeprefix(part)[1:]}/{part}"
    return SHARED

  return jax.tree_util.tree_map_with_path(owner, params)
