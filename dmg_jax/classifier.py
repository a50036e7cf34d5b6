"""The model: an encoder per modality and a fusion, bound into a ``Problem``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, cast

import flax.linen as nn
import jax
from jaxtyping import PRNGKeyArray, PyTree

from dmg_jax.types import SHARED, Outputs, Params, Problem, Stats

_ENCODER = "encoders_"  # Linen's name for entries of a dict attribute.
_HEAD = "head_"


class Classifier(nn.Module):
  """Encoders by modality name, then the fusion.

  Attributes:
    encoders: {modality: module}, called as ``encoder(x, train)``.
    fusion: module called as ``fusion(features, train)`` that returns fused and
      unimodal logits.
  """

  encoders: Mapping[str, nn.Module]
  fusion: nn.Module

  @nn.compact
  def __call__(
    self,
    inputs: Mapping[str, Any],
    train: bool,
    keep: Mapping[str, jax.Array] | None = None,
  ) -> Outputs:
    features = {
      m: encoder(inputs[m], train) for m, encoder in self.encoders.items()
    }
    fused = features
    if keep is not None:
      fused = {
        m: z * keep[m].astype(z.dtype)[:, None] if m in keep else z
        for m, z in features.items()
      }
    logits, unimodal = self.fusion(fused, train)
    return Outputs(logits, unimodal, features)


def init(
  model: Classifier, inputs: Mapping[str, Any], key: PRNGKeyArray
) -> tuple[Params, Stats]:
  """Fresh weights and batch statistics for inputs of these shapes."""
  variables = dict(jax.jit(model.init, static_argnums=2)(key, inputs, False))
  params = variables.pop("params")
  return params, variables


def bind(model: Classifier, params: Params) -> Problem:
  """The model as a ``Problem``: pure forward pass, owner of each weight."""

  def forward(
    params: Params,
    stats: Stats,
    inputs: Mapping[str, Any],
    key: PRNGKeyArray | None,
    train: bool,
    keep: Mapping[str, jax.Array] | None = None,
  ) -> tuple[Outputs, Stats]:
    rngs = None if key is None else {"dropout": key}
    variables = {"params": params, **stats}
    apply = functools.partial(model.apply, variables, inputs, train, keep)
    if not (train and stats):
      return cast(Outputs, apply(rngs=rngs)), stats
    outputs, new = cast(Any, apply(rngs=rngs, mutable=list(stats)))
    return outputs, dict(new)

  return Problem(forward, owners(params), tuple(model.encoders))


def owners(params: Params) -> PyTree[str]:
  """Each weight's owner: ``m`` (encoder), ``m/head`` (own head) or shared."""

  def owner(path, _):
    names = [entry.key for entry in path]
    if names[0].startswith(_ENCODER):
      return names[0].removeprefix(_ENCODER)
    heads = [n for n in names if n.startswith(_HEAD)]
    return f"{heads[0].removeprefix(_HEAD)}/head" if heads else SHARED

  return jax.tree_util.tree_map_with_path(owner, params)
