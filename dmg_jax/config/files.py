"""Config files: Python files that define ``get_config``."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from dmg_jax.errors import InputError, nearest

_GRIDS = ("tables", "figures")  # Configs that belong to no single data set.


def load(path: Path) -> ModuleType:
  """The config file as a module, executed anew on every call.

  Raises:
    ValueError: the path is not that of a Python file.
  """
  spec = importlib.util.spec_from_file_location(f"_config_{path.stem}", path)
  if spec is None or spec.loader is None:
    raise InputError(f"config file {str(path)!r} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def get_config(file: str, arg: str | None) -> Any:
  """The config that a config file returns for ``<recipe>[,key=value...]``.

  Raises:
    ValueError: the file does not exist, does not define ``get_config``, or its
      ``get_config`` raises it.
  """
  path = Path(file)
  if not path.is_file():
    there = [p.as_posix() for p in config_files(Path("configs"))]
    raise InputError(f"no config file {file!r}{nearest(file, there)}")
  module = load(path)
  if not hasattr(module, "get_config"):
    raise InputError(f"config file {file!r} has no get_config(arg)")
  return module.get_config(arg)


def config_files(folder: Path) -> list[Path]:
  """The Python files of a folder that define ``get_config``, sorted by name."""
  return [
    p
    for p in sorted(folder.glob("*.py"))
    if p.stem[0] != "_" and "\ndef get_config" in p.read_text("utf-8")
  ]


def datasets(folder: Path) -> list[str]:
  """Names of the data sets that have a config file in ``folder``."""
  return [p.stem for p in config_files(folder) if p.stem not in _GRIDS]
