"""Data parallelism: state on every device, batches split along ``b``."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dmg_jax.errors import InputError
from dmg_jax.types import Batch, TrainState


def make_mesh(batch_size: int) -> Mesh:
  """All devices in a row.

  Raises:
    ValueError: the global batch cannot be split evenly among them.
  """
  count = jax.device_count()
  if batch_size % count:
    raise InputError(
      f"a batch of {batch_size} cannot be split over {count} devices: make it "
      f"a multiple of {count}, or hide devices (CUDA_VISIBLE_DEVICES)"
    )
  # By process, as the loaders of the processes divide a batch.
  row = sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
  return jax.make_mesh((count,), ("b",), (AxisType.Auto,), devices=row)


def replicate(mesh: Mesh, state: TrainState) -> TrainState:
  """The state, whole on every device of the mesh."""
  return jax.device_put(state, NamedSharding(mesh, P()))


def make_place(mesh: Mesh, stacked: bool = False) -> Callable[[Batch], Batch]:
  """Host batch (this process's part) to a global batch on the mesh.

  ``stacked`` batches have an axis of replicas in front, which is not split.
  """
  split = NamedSharding(mesh, P(None, "b") if stacked else P("b"))

  def place(batch: Batch) -> Batch:
    if isinstance(batch.labels, jax.Array):  # Made on the devices.
      return jax.device_put(batch, split)
    if jax.process_count() == 1:
      return _transfer(split)(batch)
    put = functools.partial(jax.make_array_from_process_local_data, split)
    return jax.tree.map(put, batch)

  return place


def make_part(mesh: Mesh, size: int) -> Callable[[Batch], Batch]:
  """``batch -> its first size samples``, on the mesh of the batch.

  With several processes those may live in others than they are wanted in.
  """
  split = NamedSharding(mesh, P("b"))
  return jax.jit(
    lambda batch: jax.tree.map(lambda x: x[:size], batch), out_shardings=split
  )


@functools.cache
def _transfer(split: NamedSharding) -> Callable[[Batch], Batch]:
  """``jax.device_put``, but as a compiled call, which takes a tenth as long."""
  return jax.jit(lambda batch: batch, in_shardings=split, out_shardings=split)
