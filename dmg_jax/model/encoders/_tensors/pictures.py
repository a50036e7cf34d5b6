"""What files of vision transformers share, of transformers and of timm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dmg_jax.errors import InputError
from dmg_jax.model.encoders._tensors import exact

# The kernel of the patches, which reveals the prefix of all names.
TIMM = "patch_embed.proj.weight"
HUGGING = "embeddings.patch_embeddings.projection.weight"


def is_timm(tensors: Iterable[str]) -> bool:
  """Whether the names are timm's."""
  return any(n == TIMM or n.endswith(f".{TIMM}") for n in tensors)


def channels_of(
  tensors: Mapping[str, np.ndarray], prefixes: Iterable[str]
) -> int:
  """Input channels of the patches' kernel.

  Raises:
    ValueError: there is no such kernel.
  """
  anchor = TIMM if is_timm(tensors) else HUGGING
  kernel = exact.plain(tensors, anchor, prefixes)[anchor]
  return kernel.shape[1] if kernel.ndim == 4 else 3


def patches_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
  """Width of tokens and side of patches, from the shapes of a file of timm.

  Raises:
    ValueError: patches are not square.
  """
  width, _, patch, across = shapes[TIMM]
  if patch != across:
    raise InputError(f"patch must be one number, got {[patch, across]}")
  return width, patch


def normalisation_of(config: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
  """``mean`` and ``std`` from a config.json of timm, those that are there."""
  known = config.get("pretrained_cfg", {})
  return {key: tuple(known[key]) for key in ("mean", "std") if key in known}
