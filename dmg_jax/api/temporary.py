"""A folder that goes with what it belongs to."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path


class Temporary:
  """A new folder; deleted by ``close``, with this object, or at exit."""

  def __init__(self):
    self.path = Path(tempfile.mkdtemp(prefix="dmg_jax_"))
    self._end = weakref.finalize(self, _remove, self.path, os.getpid())

  def close(self) -> None:
    """Deletes the folder; more than once does nothing."""
    self._end()


def _remove(path: Path, process: int) -> None:
  """A forked process leaves its parent's folder alone."""
  if os.getpid() == process:
    shutil.rmtree(path, ignore_errors=True)
