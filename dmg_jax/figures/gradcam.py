r"""Grad-CAM: the locations of a map that support a class.

With the maps :math:`A \in \mathbb{R}^{\dots \times c}` after a stage of a
modality's encoder, their number of locations P, and the fused logit
:math:`o_y`:

.. math:: w_c = \frac1P \sum_p \frac{\partial o_y}{\partial A_{p,c}}, \qquad
  G_p = \mathrm{ReLU}\Bigl(\sum_c w_c A_{p,c}\Bigr)

The gradient passes through the rest of the encoder, the fusion and the method's
prediction rule; the features of the other modalities stay fixed. Everything
runs in evaluation mode: no dropout, running statistics. The map of a modality
that a sample lacks is zero.

Reference: Selvaraju et al., "Grad-CAM", ICCV 2017, eqs. 1 and 2.

Deviations:

1. The locations of a video are those of all its frames.
2. Maps are taken after a whole stage of the encoder, by default the last one,
   as in the reference. If a stage ends with pooling, they are pooled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from dmg_jax.errors import InputError
from dmg_jax.model import classifier, registry
from dmg_jax.training.experiment import Setup
from dmg_jax.types import Outputs, TrainState

# Axes of a modality's maps, by kind: [b h w c] and [b t h w c].
_AXES = {"image": 4, "audio": 4, "video": 5}

# (state, inputs, classes [b], present) -> (heat [b ... h w], logits [b k]);
# ``present`` is that of a batch, by default ``None``.
Explain = Callable[..., tuple[Any, Any]]


def cam(
  score: Callable[[Array], Float[Array, " b"]], maps: Float[Array, "b ... c"]
) -> Float[Array, "b ..."]:
  """Unscaled Grad-CAM heat maps in float32 or wider.

  Args:
    score: maps -> explained score [b]; each sample's score must depend only on
      its own maps.
    maps: [b ... c], channels last.
  """
  gradient = jax.grad(lambda a: score(a).sum())(maps)
  wide = jnp.promote_types(maps.dtype, jnp.float32)
  places = tuple(range(1, maps.ndim - 1))
  weights = gradient.astype(wide).mean(axis=places, keepdims=True)
  return jax.nn.relu((weights * maps.astype(wide)).sum(axis=-1))


def resized(
  heat: Float[np.ndarray, "h w"], height: int, width: int
) -> Float[np.ndarray, "height width"]:
  """``heat`` resized bilinearly; its entries are at the centres of cells."""
  made = jax.image.resize(jnp.asarray(heat), (height, width), "linear")
  return np.asarray(made)


def joined_inside(fusion: str) -> bool:
  """Whether a fusion exchanges information between the encoders."""
  return hasattr(registry.fusion_class(fusion), "encode")


def without_maps(setup: Setup, modality: str) -> str:
  """The reason why a modality has no maps [.. h w c]; empty if it has."""
  spec = setup.dataset.spec.modalities[modality]
  if spec.kind not in _AXES:
    return f"{spec.kind} has no height and width"
  name = setup.encoders[modality]["name"]
  if spec.ragged:
    return "its samples differ in length"
  if modality in setup.modules:
    return "its encoder is a module of your own, which has no stages"
  encoder = _encoder(setup, modality)
  if not hasattr(encoder, "stages"):
    return f"its encoder {name} has no stages"
  x = jax.ShapeDtypeStruct((1, *spec.shape), spec.dtype)
  maps = jax.eval_shape(
    lambda x: encoder.init_with_output(
      jax.random.key(0), x, False, 0, encoder.stages
    )[0],
    x,
  )
  if maps.ndim != _AXES[spec.kind]:
    return f"its encoder {name} returns no maps of height and width"
  return ""


def explainer(
  setup: Setup, modality: str, stage: int = -1, predicted: bool = False
) -> Explain:
  """The jitted Grad-CAM of a run's modality.

  Args:
    setup: setup of the run, with a fusion that comes after the encoders.
    modality: a modality that has maps, see ``without_maps``.
    stage: stage of its encoder, from 0; negative numbers count from the end.
    predicted: explain the predicted class rather than the given one.

  Raises:
    ValueError: the encoder has no such stage.
  """
  encoder, problem = _encoder(setup, modality), setup.problem
  stages = encoder.stages
  if not -stages <= stage < stages:
    raise InputError(
      f"the encoder of {modality!r} has {stages} stages: stage must lie in "
      f"[{-stages}, {stages - 1}], got {stage}"
    )
  cut = stage % stages + 1

  @jax.jit
  def explain(state: TrainState, inputs, classes, present=None):
    own = classifier.encoder_variables(state.params, state.stats, modality)
    whole = (state.params, state.stats)
    outputs, _ = problem.forward(*whole, inputs, None, False, present)
    logits = setup.method.predict(outputs, state.method)
    chosen = jnp.argmax(logits, axis=-1) if predicted else classes

    def score(maps):
      z = encoder.apply(own, maps, False, cut)
      features = {**outputs.features, modality: z}
      features = dict(classifier.without_missing(features, present))
      fused = problem.fuse(*whole, features, None, False, present)
      extra = dict(fused.extra)
      made = Outputs(fused.logits, fused.unimodal, features, extra, present)
      return _of_class(setup.method.predict(made, state.method), chosen)

    maps = encoder.apply(own, inputs[modality], False, 0, cut)
    return cam(score, maps), logits

  return explain


def _encoder(setup: Setup, modality: str) -> Any:
  return registry.make_encoder(**setup.encoders[modality])


def _of_class(
  logits: Float[Array, "b k"], classes: Int[Array, " b"]
) -> Float[Array, " b"]:
  return jnp.take_along_axis(logits, classes[:, None], axis=-1)[:, 0]
