"""Reads and writes named arrays in one file, atomically and without pickles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmg_jax.errors import InputError


def save(path: Path, content: Mapping[str, Any]) -> Path:
  """Writes ``{name: array}`` atomically and returns ``path``."""
  part = path.with_name(f"{path.name}.{os.getpid()}.part")
  with part.open("wb") as file:
    np.savez_compressed(file, **content)
  os.replace(part, path)
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
