"""Memory of large arrays, kept by the process between steps.

XLA takes the temporary memory of a step from ``malloc`` in one piece and gives
it back after the step. The C library of Linux maps a piece of that size anew
each time and unmaps it, and the kernel fills every page with zeros at its first
use: 0.4 ms a MiB, a sixth of a step of two ResNet-18. Here
it takes large pieces from its heap instead, and keeps what is free there.
"""

from __future__ import annotations

import ctypes
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MOST = 2**31 - 1


def keep() -> bool:
  """Keeps freed memory for the next step; to be called before JAX is loaded.

  Nothing happens without glibc. What is free stays with the process until it
  ends, so that its size is the largest that it has had.

  Returns:
    Whether it was done.
  """
  if not sys.platform.startswith("linux"):
    return False
  try:
    mallopt = ctypes.CDLL(None).mallopt
  except (AttributeError, OSError):
    return False
  # One heap for all threads: those of threads are at most 64 MiB each.
  settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST))
  return all(mallopt(name, value) == 1 for name, value in settings)
