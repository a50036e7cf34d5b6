"""Reads and writes named arrays in one file, atomically and without pickles."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmg_jax.errors import InputError
from dmg_jax.tracking.logging import replace


def save(path: Path, content: Mapping[str, Any]) -> Path:
  """Writes ``{name: array}`` atomically and returns ``path``.

  Raises:
    WriteError: it cannot be written.
  """
  file = io.BytesIO()
  np.savez_compressed(file, **content)
  replace(path, file.getvalue(), "--workdir")
  return path


def load(path: Path) -> dict[str, np.ndarray] | None:
  """``{name: array}`` as ``save`` wrote it; ``None`` if there is no file.

  Raises:
    ValueError: the file is damaged.
  """
  if not path.exists():
    return None
  try:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as found:
      return {name: found[name] for name in found.files}
  except Exception as error:  # zipfile, zlib and numpy raise different ones.
    raise InputError(f"{path} is damaged: delete it") from error
