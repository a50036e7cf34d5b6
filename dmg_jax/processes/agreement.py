"""What processes tell each other, by collectives over all devices."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dmg_jax import errors
from dmg_jax.errors import InputError, UserError

T = TypeVar("T")
_LEAST = 256  # Bytes of a message; longer ones double, so few are compiled.
_alone = False  # While the first decides, it asks nobody.


def several() -> bool:
  """Whether the run has more than one process."""
  # Asked first, as the other question would start a device.
  return jax.distributed.is_initialized() and jax.process_count() > 1


def first() -> bool:
  """Whether this is the process that writes and prints."""
  return not several() or jax.process_index() == 0


def place() -> tuple[int, int]:
  """Which process this is, and how many there are."""
  return jax.process_index(), jax.process_count()


def agree(value: T) -> T:
  """The first process's value, in all processes: what JSON can hold.

  All must call it, in the same order.
  """
  if not several() or _alone:
    return value
  text = b""
  if first():
    text = json.dumps(value, default=lambda x: x.tolist()).encode()
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
  room = _LEAST
  while room < size:
    room *= 2
  sent = np.zeros(room, np.uint8)
  sent[: len(text)] = np.frombuffer(text, np.uint8)
  told = np.asarray(multihost_utils.broadcast_one_to_all(sent), np.uint8)
  return value if first() else json.loads(told[:size].tobytes())


def decided(find: Callable[[], T]) -> T:
  """What ``find`` gives in the first process, in all processes.

  It is for what depends on the disk or on a clock. The others do not call
  ``find``, so it must not need them: inside it, ``decided`` and ``agree`` ask
  nobody.

  Raises:
    UserError: the first process's, in all.
  """
  if not several() or _alone:
    return find()
  found: Any = None
  mistake: UserError | None = None
  if first():
    try:
      found = _by_itself(find)
    except UserError as error:
      mistake = error
  said = None if mistake is None else [type(mistake).__name__, str(mistake)]
  told = agree({"found": found, "error": said})
  if told["error"] is not None:
    raise mistake or _error(*told["error"])
  return told["found"]


def _error(name: str, text: str) -> UserError:
  """The error that the first process has raised."""
  kind = getattr(errors, name, InputError)
  try:
    return kind(text)
  except TypeError:  # One that is made of more than its text.
    return InputError(text)


def by_first(do: Callable[[], object]) -> None:
  """Calls ``do`` in the first process; the others wait. As ``decided``."""

  def done() -> None:
    do()

  decided(done)


def _by_itself(find: Callable[[], T]) -> T:
  global _alone
  _alone = True
  try:
    return find()
  finally:
    _alone = False


def in_turn(make: Callable[[], T]) -> T:
  """``make`` in the first process, then in the others.

  So what the first one makes on a disk that they share is there for the others.

  Raises:
    UserError: the first process's, in all; or a process's own.
  """
  if not several() or _alone:
    return make()
  made: list[T] = []

  def begin() -> None:
    made.append(make())

  decided(begin)
  return made[0] if made else make()


class AnyOf:
  """Whether any process has said yes: the same answer in all of them.

  With several processes the answer is that of the call before: so none waits
  for the devices. All must call it at the same points.
  """

  def __init__(self):
    self._asked: jax.Array | None = None

  def __call__(self, yes: bool) -> bool:
    if not several():
      return yes
    before, self._asked = self._asked, _any(yes)
    return before is not None and bool(np.asarray(before))


def _any(yes: bool) -> jax.Array:
  split, reduced = _over_devices()
  own = np.full(jax.local_device_count(), yes)
  return reduced(jax.make_array_from_process_local_data(split, own))


@functools.cache
def _over_devices() -> tuple[NamedSharding, Callable[[Any], jax.Array]]:
  mesh = Mesh(np.array(jax.devices()), ("d",))
  whole = NamedSharding(mesh, P())
  return NamedSharding(mesh, P("d")), jax.jit(jnp.any, out_shardings=whole)
