"""A process that dies is noticed by all others; one that is done is not."""

import contextlib
import queue
import socket
import threading
import time

import pytest

from dmg_jax.processes import Lifeline, lifeline


class Ends:
  """What each process was told at its end, in place of its end."""

  def __init__(self, count):
    self.lines = [queue.Queue() for _ in range(count)]

  def told(self, index, seconds=5):
    return self.lines[index].get(timeout=seconds)

  def nothing(self, index):
    time.sleep(0.3)
    return self.lines[index].empty()


@pytest.fixture
def group():
  """``make(count) -> (lifelines, ends)``, as of so many processes."""

  def make(count):
    numbers, ends = queue.Queue(), Ends(count)
    made = [None] * count

    def share(own):
      if own is None:
        return numbers.get(timeout=10)
      for _ in range(count - 1):
        numbers.put(own)
      return own

    def join(index):
      made[index] = Lifeline(
        index, count, share, ("127.0.0.1",), ends.lines[index].put
      )

    threads = [threading.Thread(target=join, args=(i,)) for i in range(count)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join(10)
    return made, ends

  return make


def kill(line):
  """What the system does with the connections of a process that dies."""
  line._ending.set()  # Nobody of the dead reads on.
  for connection in line._peers.values():
    with contextlib.suppress(OSError):  # The other end has closed it.
      connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("victim", [1, 2])
def test_all_notice_that_one_died(group, victim):
  lines, ends = group(3)
  kill(lines[victim])
  for index in {0, 1, 2} - {victim}:
    assert ends.told(index).startswith(f"process {victim} of 3 ended before")


def test_the_first_one_dies(group):
  lines, ends = group(3)
  kill(lines[0])
  for index in (1, 2):
    assert ends.told(index).startswith("process 0 of 3 ended before")


def test_who_is_done_is_not_mourned(group):
  lines, ends = group(3)
  for index in (2, 0, 1):
    lines[index].close(failed=False)
    kill(lines[index])
  assert all(ends.nothing(i) for i in range(3))


def test_an_error_ends_those_that_do_not_have_it(group, monkeypatch):
  monkeypatch.setattr(lifeline, "GRACE", 0.2)
  lines, ends = group(3)
  lines[1].close(failed=True)
  for index in (0, 2):
    assert ends.told(index).startswith("process 1 of 3")


def test_an_error_of_all_is_told_once_by_each(group, monkeypatch):
  monkeypatch.setattr(lifeline, "GRACE", 0.5)
  lines, ends = group(3)
  closing = [
    threading.Thread(target=line.close, args=(True,)) for line in lines
  ]
  for thread in closing:
    thread.start()
  for thread in closing:
    thread.join(5)
  time.sleep(1)
  assert all(ends.nothing(i) for i in range(3))
