"""Config files: Python files with ``get_config``, found by their path."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from dmg_jax.errors import InputError

_GRIDS = ("tables", "figures")  # Not of one data set.


def load(path: Path) -> ModuleType:
  """The config file as a module, run anew.

  Raises:
    ValueError: it is not a Python file.
  """
  spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
  if spec is None or spec.loader is None:
    raise InputError(f"config file {str(path)!r} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def config_files(folder: Path) -> list[Path]:
  """The files of a folder that have a ``get_config``."""
  return [
    p
    for p in sorted(folder.glob("*.py"))
    if p.stem[0] != "_" and "\ndef get_config" in p.read_text("utf-8")
  ]


def datasets(folder: Path) -> list[str]:
  """Names of the data sets that a folder has configs of."""
  return [p.stem for p in config_files(folder) if p.stem not in _GRIDS]
