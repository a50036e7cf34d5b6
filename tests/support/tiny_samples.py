"""Tiny samples in memory, and fields of a config that keep models tiny."""

from __future__ import annotations

from typing import Any

import numpy as np

SMALL = {
  "encoders.array.features": 4,
  "encoders.array.widths": (4,),
  "encoders.text.features": 4,
  "encoders.text.width": 4,
}


def samples(n: int = 24, seed: int = 0) -> tuple[dict[str, Any], np.ndarray]:
  """{"sensor": numbers, "note": texts} and labels that both tell."""
  rng = np.random.default_rng(seed)
  y = np.array(["down", "up"])[np.arange(n) % 2]
  sensor = rng.normal(size=(n, 3)) + 2 * (y == "up")[:, None]
  note = [f"it went {label} {rng.choice(['a', 'b'])}" for label in y]
  return {"sensor": sensor, "note": note}, y
