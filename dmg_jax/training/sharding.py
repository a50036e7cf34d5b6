"""Data parallelism: batches split along ``b``, the state whole or split, too.

With ``sharding=replicated`` every device has the whole state. With ``fsdp``
weights and moments of the optimiser are divided among the devices and gathered
where a forward pass needs them (Rajbhandari et al., "ZeRO: Memory Optimizations
Toward Training Trillion Parameter Models", SC 2020). Both give the same numbers
up to rounding, as another number of devices does.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dmg_jax.errors import InputError
from dmg_jax.types import Batch, Problem, TrainState

HOW = ("replicated", "fsdp")
# Arrays of fewer entries are whole everywhere: to divide them saves nothing.
SMALL = 1024


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


def state_sharding(
  mesh: Mesh, state: Any, how: str = HOW[0], several: bool = False
) -> Any:
  """Where each array of a state, or of a part of it, lies.

  Args:
    mesh: of the devices.
    state: arrays or their shapes.
    how: of ``HOW``. With ``fsdp`` an array is divided along its longest axis of
      those that the devices can share evenly.
    several: the first axis of every array is that of replicas.
  """

  def one(x):
    return NamedSharding(mesh, _spec(x.shape, mesh.size, how, int(several)))

  return jax.tree.map(one, state)


def _spec(shape: tuple[int, ...], count: int, how: str, skip: int) -> P:
  """Of an array; its first ``skip`` axes are not divided."""
  size = functools.reduce(lambda a, b: a * b, shape[skip:], 1)
  fit = [i for i in range(skip, len(shape)) if shape[i] % count == 0]
  if how != "fsdp" or count == 1 or size < SMALL or not fit:
    return P()
  longest = max(fit, key=lambda i: shape[i])
  return P(*(None,) * longest, "b")


def put(
  mesh: Mesh, state: Any, how: str = HOW[0], several: bool = False
) -> Any:
  """The state, placed as ``state_sharding`` says."""
  return jax.device_put(state, state_sharding(mesh, state, how, several))


def keep(
  step: Callable[..., Any], mesh: Mesh, how: str, several: bool
) -> Callable[..., Any]:
  """A step whose new state lies where the old one did.

  Args:
    step: ``(state, ...) -> (state, metrics)``.
    mesh, how, several: as for ``state_sharding``.
  """
  if how == HOW[0]:
    return step

  def kept(state: TrainState, *rest: Any):
    state, metrics = step(state, *rest)
    where = state_sharding(mesh, state, how, several)
    return jax.lax.with_sharding_constraint(state, where), metrics

  return kept


def gathered(problem: Problem, mesh: Mesh, how: str) -> Problem:
  """The problem, whose functions gather divided weights before they run.

  Without it the compiler may divide products along features instead of samples.
  """
  if how == HOW[0]:
    return problem
  whole = NamedSharding(mesh, P())

  def gathering(function):
    def call(params, stats, *rest, **named):
      params, stats = jax.lax.with_sharding_constraint((params, stats), whole)
      return function(params, stats, *rest, **named)

    return call

  forward, fuse = gathering(problem.forward), gathering(problem.fuse)
  return dataclasses.replace(problem, forward=forward, fuse=fuse)


def make_place(mesh: Mesh, stacked: int = 0) -> Callable[[Batch], Batch]:
  """Host batch (this process's part) to a global batch on the mesh.

  Batches have so many axes in front that are not split: of replicas, of steps.
  """
  split = NamedSharding(mesh, P(*(None,) * stacked, "b"))

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
