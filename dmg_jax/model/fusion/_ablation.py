"""Read-out R3: one modality at a time, with the other features at zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

Features = Mapping[str, Float[Array, "b _"]]

READOUT = "R3 feature ablation"


def alone(
  head: Callable[[Features], Float[Array, "b k"]], features: Features
) -> dict[str, Float[Array, "b k"]]:
  """{modality: logits of ``head`` with all other features at zero}."""
  return {
    m: head(
      {j: z if j == m else jnp.zeros_like(z) for j, z in features.items()}
    )
    for m in features
  }
