"""Notices at once that another process of the run has died.

Each process holds a connection to the first one. The system closes it when a
process dies, however it died; a machine that is gone is noticed by keep-alive
packets, within half a minute. The first tells the others, and all of them end
with one line. Without it they would wait in a collective, on GPUs until JAX's
own heartbeat aborts them.

A process that ends says so first: ``DONE`` when its work is done, and
``FAILED`` after an error, which it has printed itself.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dmg_jax.errors import InputError

DONE, FAILED = b"done", b"failed"
# Seconds: a process that fails by itself prints its own error meanwhile.
GRACE = 5.0
_CODE = 1
_SECONDS, _ALL = 10, 60  # To reach one; until all have come.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def _end(line: str) -> None:
  """Ends this process, whatever its other threads wait for."""
  with contextlib.suppress(OSError):
    os.write(sys.stderr.fileno(), f"error: {line}\n".encode())
  os._exit(_CODE)


def lost(index: int, count: int) -> str:
  """What is said about a process that died."""
  return (
    f"process {index} of {count} ended before the run was done; its own output "
    "says why. Run the same commands again: they go on from the last checkpoint"
  )


class Lifeline:
  """The connections between the first process and the others.

  Args:
    index: of this process.
    count: of all.
    share: tells all processes a value of the first one, of JSON types.
    hosts: names of the first process's machine, if they are known; the names
      and addresses that it has itself are tried next.
    end: called with a line when another process has died.
  """

  def __init__(
    self,
    index: int,
    count: int,
    share: Callable[[Any], Any],
    hosts: Sequence[str] = (),
    end: Callable[[str], None] = _end,
  ):
    self._index, self._count, self._end = index, count, end
    self._gone: set[int] = set()
    self._ending = threading.Event()
    self._peers: dict[int, socket.socket] = {}
    if index == 0:
      server = socket.create_server(("", 0), backlog=count)
      word = secrets.randbelow(2**31)
      share([server.getsockname()[1], word, _names()])
      self._accept(server, word)
    else:
      port, word, names = share(None)
      self._peers[0] = _connected([*hosts, *names], port)
      self._peers[0].sendall(f"{word} {index}\n".encode())
    for peer, connection in self._peers.items():
      _keep_alive(connection)
      threading.Thread(
        target=self._watch, args=(peer, connection), daemon=True
      ).start()

  def _accept(self, server: socket.socket, word: int) -> None:
    """Waits for the others; who does not know the word is not one of them."""
    server.settimeout(_ALL)
    with server:
      while len(self._peers) < self._count - 1:
        connection, _ = server.accept()
        connection.settimeout(_SECONDS)
        said = _first_line(connection).split()
        if len(said) == 2 and said[0] == str(word).encode():
          self._peers[int(said[1])] = connection
        else:
          connection.close()

  def _watch(self, peer: int, connection: socket.socket) -> None:
    """Reads what a process says until it has gone."""
    connection.settimeout(None)
    # A connection that is reset is that of a process that died, too.
    with (
      contextlib.suppress(OSError),
      connection,
      connection.makefile("rb") as lines,
    ):
      for line in lines:
        self._hear(peer, line)
    if peer not in self._gone:
      self._died(peer)

  def _hear(self, peer: int, line: bytes) -> None:
    word, *rest = line.split()
    if word == b"lost":
      self._end(lost(int(rest[0]), self._count))
    self._gone.add(peer)
    if word == FAILED:
      time.sleep(GRACE)
      self._died(peer)

  def _died(self, peer: int) -> None:
    """Tells the others and ends, unless this process is ending itself."""
    self._gone.add(peer)
    if self._ending.is_set():
      return
    self._say(f"lost {peer}".encode())
    self._end(lost(peer, self._count))

  def _say(self, word: bytes) -> None:
    for connection in self._peers.values():
      with contextlib.suppress(OSError):
        connection.sendall(word + b"\n")

  def close(self, failed: bool) -> None:
    """Says that this process ends; after an error, waits for the others.

    The first one must outlive the others: JAX aborts them when it is gone.
    """
    self._ending.set()
    self._say(FAILED if failed else DONE)
    until = time.monotonic() + 2 * GRACE
    while failed and self._index == 0 and time.monotonic() < until:
      if len(self._gone) >= self._count - 1:
        return
      time.sleep(0.05)


def _names() -> list[str]:
  """Name and addresses of this machine, as others may reach it."""
  name = socket.gethostname()
  found = [name]
  with contextlib.suppress(OSError):
    for *_, address in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
      found.append(str(address[0]))
  with (
    contextlib.suppress(OSError),
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way,
  ):
    way.connect(("192.0.2.1", 9))  # Sends nothing; finds the way out.
    found.append(way.getsockname()[0])
  return list(dict.fromkeys(found))


def _connected(hosts: Sequence[str], port: int) -> socket.socket:
  """A connection to the first host that answers.

  Raises:
    ValueError: none does.
  """
  for host in hosts:
    with contextlib.suppress(OSError):
      return socket.create_connection((host, port), timeout=_SECONDS)
  raise InputError(
    f"process 0 cannot be reached at port {port} of {', '.join(hosts)}: "
    "processes of one run need free ports between their machines"
  )


def _first_line(connection: socket.socket) -> bytes:
  """Reads a short line and no more."""
  said = b""
  while len(said) < 64 and not said.endswith(b"\n"):
    byte = connection.recv(1)
    if not byte:
      break
    said += byte
  return said


def _keep_alive(connection: socket.socket) -> None:
  connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
  for name, value in _KEEP_ALIVE.items():
    option = getattr(socket, name, None)
    if option is not None:
      connection.setsockopt(socket.IPPROTO_TCP, option, value)
