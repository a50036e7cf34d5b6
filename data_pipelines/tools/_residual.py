"""Pictures without their first principal components."""

from __future__ import annotations

import numpy as np

from data_pipelines.errors import InputError


def check(energy: float) -> None:
  """Raises ``InputError`` for a share that is not in [0, 1)."""
  if not 0 <= energy < 1:
    raise InputError(f"energy must lie in [0, 1), got {energy!r}")


def without_components(
  pictures: np.ndarray, train: np.ndarray, energy: float
) -> tuple[np.ndarray, int]:
  """What is left of pictures when a share of their energy is removed.

  With μ and V, the mean and the principal directions of the training pictures
  by falling variance λ, r = x − μ − Σ_{i<k} v_i v_iᵀ (x − μ), for the smallest
  k with Σ_{i<k} λ_i ≥ ``energy`` · Σ λ.

  Args:
    pictures: [n h w] uint8.
    train: numbers of the training pictures.
    energy: share of the variance to remove, in [0, 1).

  Returns:
    r [n h·w] float32, brightness in [0, 1]; and k.

  Raises:
    InputError: the share is out of its range.
  """
  check(energy)
  x = pictures.reshape(len(pictures), -1) / 255
  x = x - x[train].mean(axis=0)
  _, sizes, directions = np.linalg.svd(x[train], full_matrices=False)
  share = np.cumsum(sizes**2) / max(np.sum(sizes**2), 1e-12)
  k = int(np.searchsorted(share, energy)) + 1 if energy else 0
  kept = directions[:k]
  return (x - x @ kept.T @ kept).astype(np.float32), k
