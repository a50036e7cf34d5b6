"""Read-out R3: each modality alone, the features of the others at zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

Features = Mapping[str, Float[Array, "b _"]]

READOUT = "R3 feature ablation"


def alone(
  head: Callable[[Features], Float[Array, "b k"]], features: Features
) -> dict[str, Float[Array, "b k"]]:
  """{modality: ``head`` of the features with all others at zero}."""
  return {
    m: head(
      {j: z if j == m else jnp.zeros_like(z) for j, z in features.items()}
    )
    for m in features
  }
