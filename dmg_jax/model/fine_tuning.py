r"""How an encoder is trained: not at all, or at rates of its own.

Every encoder has three options besides those of its architecture:

- ``frozen``: its weights and batch statistics stay as they are. It always runs
  in evaluation mode, and its weights are no part of ``TrainState.params``: they
  have no gradient, no moments and no decay.
- ``learning_rate_scale``: factor of its updates, after the optimiser.
- ``layer_decay``: transformers only. With γ, the update of a weight is
  multiplied by

  .. math:: \gamma^{L - \ell}

  where ℓ is 0 for embeddings, i + 1 for layer i (from 0) and L = layers + 1 for
  what comes after the layers. An encoder that has the method
  ``layers_above(path) -> L - ℓ`` can be trained so; ``path`` are the names of a
  weight, from the encoder on.

Reference: Clark et al., "ELECTRA", ICLR 2020, appendix B; Bao et al., "BEiT",
ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jaxtyping import PyTree

OPTIONS: dict[str, Any] = {
  "frozen": False,
  "learning_rate_scale": 1.0,
  "layer_decay": 1.0,
}
HOOK = "layers_above"


def of(options: Mapping[str, Any]) -> dict[str, Any]:
  """These options of an encoder; those that a run older than them lacks."""
  return {k: options.get(k, usual) for k, usual in OPTIONS.items()}


def architecture(options: Mapping[str, Any]) -> dict[str, Any]:
  """All other options of an encoder, its name among them."""
  return {k: v for k, v in options.items() if k not in OPTIONS}


def frozen(encoders: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
  """The modalities whose encoder is frozen, in the order of ``encoders``."""
  return tuple(m for m, options in encoders.items() if of(options)["frozen"])


def rates(
  owner: PyTree[str],
  encoders: Mapping[str, Mapping[str, Any]],
  modules: Mapping[str, Any],
) -> PyTree[float]:
  """The factor of each weight's update.

  Args:
    owner: as ``Problem.owner``.
    encoders: {modality: options}.
    modules: {modality: its encoder}.
  """

  def rate(path, name):
    if name not in encoders:
      return 1.0
    own = of(encoders[name])
    factor = own["learning_rate_scale"]
    if own["layer_decay"] == 1:
      return factor
    names = tuple(entry.key for entry in path[1:])
    return factor * own["layer_decay"] ** getattr(modules[name], HOOK)(names)

  return jax.tree_util.tree_map_with_path(rate, owner)
