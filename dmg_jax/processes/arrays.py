"""Arrays whose parts may live in other processes, brought to the host."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


def gather(tree: Any) -> Any:
  """A pytree of arrays as NumPy arrays, with the rows of all processes.

  All processes must call it on the same values, in the same order: arrays that
  are split among them are exchanged.
  """
  leaves, structure = jax.tree.flatten(tree)
  split = [i for i, x in enumerate(leaves) if _split(x)]
  if split:
    own = [leaves[i] for i in split]
    whole = _replicated(own[0].sharding.mesh)(own)
    for i, x in zip(split, whole, strict=True):
      leaves[i] = x
  return jax.tree.unflatten(structure, jax.device_get(leaves))


def _split(x: Any) -> bool:
  """Whether some rows of an array are only in other processes."""
  if not isinstance(x, jax.Array):
    return False
  return not (x.is_fully_addressable or x.is_fully_replicated)


@functools.cache
def _replicated(mesh: Mesh) -> Callable[[Any], Any]:
  """The identity, with results whole on every device."""
  return jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))
