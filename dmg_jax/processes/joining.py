"""Which process this is, and how it joins the others.

By ``--coordinator_address``, ``--process_count`` and ``--process_index``; or by
``--distributed=auto``, which takes the variables that torchrun and launchers
like it set, else what ``jax.distributed`` detects: SLURM inside ``srun``, Open
MPI, MPI by mpi4py, Kubernetes, Cloud TPU. Never by itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np

from dmg_jax.errors import InputError, one_line
from dmg_jax.processes import agreement
from dmg_jax.processes.lifeline import Lifeline

AUTO, OFF = "auto", "off"
# As torchrun sets them; MPI launchers of PyTorch do so, too.
_TORCHRUN = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK")
_HEARTBEAT = 30  # Seconds without a sign after which JAX ends the processes.
_WAIT = 300  # Seconds to wait for the others at the start.
_lifeline: Lifeline | None = None


class Position(NamedTuple):
  """Where a process stands among those of its run.

  Attributes:
    address: host:port where the first process can be reached.
    count: of processes.
    index: of this one, from 0.
    device: the one local device it uses; ``None`` uses all.
  """

  address: str
  count: int
  index: int
  device: int | None = None


def position_of(
  address: str | None,
  count: int | None,
  index: int | None,
  distributed: str = OFF,
  variables: Mapping[str, str] = os.environ,
) -> Position | None:
  """The place that flags or a launcher name; ``None`` is for JAX to detect.

  Args:
    address, count, index: of the flags; all of them or none.
    distributed: ``auto`` or ``off``.
    variables: of the environment.

  Raises:
    ValueError: flags that are incomplete or out of range.
  """
  flags = {
    "--coordinator_address": address,
    "--process_count": count,
    "--process_index": index,
  }
  if any(v is not None for v in flags.values()):
    return _checked(flags)
  if distributed == AUTO and all(v in variables for v in _TORCHRUN):
    host, port, size, rank = (variables[v] for v in _TORCHRUN)
    local = variables.get("LOCAL_RANK")
    # The launcher itself listens at its port.
    return Position(
      f"{host}:{int(port) + 1}",
      int(size),
      int(rank),
      None if local is None else int(local),
    )
  return None


def _checked(flags: Mapping[str, str | int | None]) -> Position:
  missing = [name for name, value in flags.items() if value is None]
  if missing:
    raise InputError(
      f"{', '.join(missing)} missing: several processes need all of "
      f"{', '.join(flags)}; or --distributed=auto under a launcher"
    )
  address, count, index = flags.values()
  host, colon, port = str(address).rpartition(":")
  if not host or not colon or not port.isdigit():
    raise InputError(
      f"--coordinator_address={address} must be HOST:PORT, of the machine of "
      "process 0 and a port that is free there, as 10.0.0.1:1234"
    )
  if int(count or 0) < 1:
    raise InputError(f"--process_count must be at least 1, got {count}")
  if not 0 <= int(index or 0) < int(count or 0):
    raise InputError(
      f"--process_index must lie in [0, {count}), got {index}: the processes "
      "are numbered from 0"
    )
  return Position(str(address), int(count or 0), int(index or 0))


def join(place: Position | None) -> None:
  """Joins the other processes; before anything else uses a device.

  Args:
    place: of this process; ``None`` lets JAX detect it.

  Raises:
    ValueError: nothing was detected, the others did not come, or the processes
      differ in their number of devices.
  """
  global _lifeline
  given = {}
  if place is not None:
    given = {
      "coordinator_address": place.address,
      "num_processes": place.count,
      "process_id": place.index,
      "local_device_ids": place.device,
      "cluster_detection_method": "deactivate",
    }
  try:
    jax.distributed.initialize(
      **given,
      initialization_timeout=_WAIT,
      heartbeat_timeout_seconds=_HEARTBEAT,
    )
  except Exception as error:
    raise InputError(_why(place, error)) from error
  with _quiet_gloo():
    _check_devices()
  if agreement.several():
    host = None if place is None else place.address.rpartition(":")[0]
    _lifeline = Lifeline(
      jax.process_index(),
      jax.process_count(),
      agreement.agree,
      () if host is None else (host.strip("[]"),),
    )


def _why(place: Position | None, error: Exception) -> str:
  said = one_line(error)[:300]
  if place is None:
    return (
      "--distributed=auto found no launcher that it knows (torchrun; SLURM "
      "inside srun; Open MPI; Kubernetes; Cloud TPU): start the command by "
      "one, or give --coordinator_address, --process_count and --process_index "
      f"({said})"
    )
  return (
    f"process {place.index} could not join the others at {place.address} "
    f"within {_WAIT} seconds: check that all {place.count} processes were "
    f"started, that process 0 runs on that host and that its port is free "
    f"({said})"
  )


def _check_devices() -> None:
  """All processes have as many devices: batches are split evenly.

  Raises:
    ValueError: they do not.
  """
  counts = np.bincount([d.process_index for d in jax.devices()])
  if len(set(counts)) > 1:
    raise InputError(
      f"the processes have {', '.join(map(str, counts))} devices: give each "
      "as many (CUDA_VISIBLE_DEVICES)"
    )
  agreement.agree(None)  # The first collective makes the connections.


@contextlib.contextmanager
def _quiet_gloo() -> Iterator[None]:
  """Hides what the library of CPU collectives prints on standard output."""
  sys.stdout.flush()
  kept = os.dup(1)
  with open(os.devnull, "wb") as nothing:
    os.dup2(nothing.fileno(), 1)
  try:
    yield
  finally:
    os.dup2(kept, 1)
    os.close(kept)


def leave(code: int) -> int:
  """Tells the others that this process ends, with an exit code.

  After an error of several processes it does not return: JAX would wait for the
  others at the exit.
  """
  global _lifeline
  if _lifeline is not None:
    line, _lifeline = _lifeline, None
    line.close(failed=code != 0)
    if code:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)
  return code
