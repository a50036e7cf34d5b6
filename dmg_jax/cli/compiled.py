"""Compiled programs that are kept for the next run.

They lie in the user's cache folder, apart for each version of jaxlib and each
kind of processor, and take at most ``LIMIT`` bytes: those that were used
longest ago go first.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from dmg_jax.errors import InputError

ON, OFF = "on", "off"
LIMIT = 4 * 2**30  # Bytes.


def keep(where: str) -> None:
  """Lets JAX keep what it compiles from here on.

  JAX's own settings win: ``JAX_COMPILATION_CACHE_DIR`` names another folder,
  and ``JAX_ENABLE_COMPILATION_CACHE=false`` keeps nothing. If the user's cache
  folder cannot be made, nothing is kept.

  Args:
    where: ``on`` for the user's cache folder, ``off``, or a folder.

  Raises:
    ValueError: a folder that cannot be made.
  """
  if where == OFF:
    jax.config.update("jax_enable_compilation_cache", False)
    return
  settings: Any = jax.config  # Checkers do not know its fields.
  if not settings.jax_enable_compilation_cache:
    return
  folder = default_folder() if where == ON else Path(where).expanduser()
  if where == ON and settings.jax_compilation_cache_dir:
    return
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    if where == ON:
      return
    raise InputError(
      f"--compilation_cache={where} cannot be made ({error.strerror}): name "
      "another folder, or on, or off"
    ) from error
  jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
  jax.config.update("jax_compilation_cache_max_size", LIMIT)
  # All programs: a run has many small ones.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def default_folder() -> Path:
  """``<cache folder of the user>/dmg_jax/<jaxlib>-<processor>``."""
  mac = Path.home() / "Library" / "Caches"
  usual = mac if sys.platform == "darwin" else Path.home() / ".cache"
  cache = Path(os.environ.get("XDG_CACHE_HOME") or usual)
  version = importlib.metadata.version("jaxlib")
  return cache / "dmg_jax" / f"{version}-{_processor()}"


def _processor() -> str:
  """A name for the instructions of this machine's processor.

  Home folders are shared by machines, and a program compiled for one may need
  what another does not have.
  """
  found = [platform.machine(), platform.processor()]
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found += sorted({x for x in lines if x.startswith(("flags", "Features"))})
  except OSError:
    pass
  return hashlib.sha256("\n".join(found).encode()).hexdigest()[:8]
