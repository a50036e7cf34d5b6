"""Pickles of arrays, read without running anything that they name.

A pickle is a small program. This is a machine for those of its instructions
that make numbers, texts, lists, tuples, dicts, sets and arrays of NumPy
(``values``). Any other class or function is refused by its name as soon as it
is read, and none is ever imported. Protocols 0 to 5, of Python 2 and 3.
"""

from __future__ import annotations

import codecs
import mmap
import os
import pathlib
import struct
from collections.abc import Callable
from typing import Any

from data_pipelines.errors import DataError, InputError
from data_pipelines.sets._sequences import values
from data_pipelines.transforms.files import signatures

_LARGE = 1024  # bytes that are not copied
_DIGITS = 1024  # bytes of a whole number
# Python 2 calls it by another name.
_RENAMED = {"__builtin__": "builtins"}
_ADVICE = (
  "only arrays of NumPy, numbers, texts, lists, tuples, dicts and sets are "
  "read. Nothing of the file was run. If you trust it, write it anew where it "
  "was made, with numpy.asarray of each value"
)


def read(path: str | os.PathLike) -> Any:
  """The content of a pickle; arrays stay in the file until they are used.

  Raises:
    DataError: there is no such file, it is no pickle or a damaged one, or it
      names a class or function that is not admitted.
  """
  path = pathlib.Path(path).expanduser()
  try:
    with path.open("rb") as file:
      if not os.fstat(file.fileno()).st_size:
        raise InputError("it is an empty file: its content was lost")
      data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if data[0] not in _STARTS:
      raise signatures.unreadable("", path, "it is no pickle")
    return values.plain(_Machine(memoryview(data)).run())
  except OSError as error:
    text = error.strerror or str(error)
    raise DataError(f"{path} cannot be read: {text}") from error
  except InputError as error:
    raise DataError(f"{path}: {error}") from error
  except RecursionError as error:
    raise DataError(f"{path}: containers lie too deep in others") from error
  except (ValueError, TypeError, OverflowError, struct.error) as error:
    raise DataError(f"{path}: the pickle is damaged ({error})") from error


class _Machine:
  """Runs one pickle.

  Attributes:
    stack: what has been made and not yet been used.
    marks: sizes of ``stack`` at the marks that are open.
    memo: what is used again, by number.
  """

  def __init__(self, data: memoryview):
    self._data, self._at = data, 0
    self.stack: list[Any] = []
    self.marks: list[int] = []
    self.memo: dict[int, Any] = {}

  def run(self) -> Any:
    """The value that the pickle makes."""
    while True:
      code = self.take(1)[0]
      if code == _STOP:
        return self.pop()
      act = _ACTS.get(code)
      if act is None:
        raise InputError(f"the pickle is damaged (no instruction {code:#x})")
      act(self)

  def take(self, size: int) -> memoryview:
    """The next bytes."""
    left = len(self._data) - self._at
    if not 0 <= size <= left:
      raise InputError(
        f"the file is cut off or damaged: {size} bytes should follow, there "
        f"are {left}"
      )
    self._at += size
    return self._data[self._at - size : self._at]

  def number(self, form: str) -> Any:
    """The next number in a form of ``struct``."""
    return struct.unpack(form, self.take(struct.calcsize(form)))[0]

  def line(self) -> bytes:
    """The bytes up to the next end of a line."""
    start, step, found = self._at, 4096, b""
    while b"\n" not in found:
      size = min(step, len(self._data) - start - len(found))
      if not size:
        raise InputError("the file is cut off or damaged: a line has no end")
      at = start + len(found)
      found += bytes(self._data[at : at + size])
      step *= 2
    found = found[: found.index(b"\n")]
    self._at = start + len(found) + 1
    return found

  def push(self, value: Any) -> None:
    """Puts a value on the stack."""
    self.stack.append(value)

  def pop(self) -> Any:
    """Takes the last value, of those behind the last mark."""
    if len(self.stack) <= (self.marks[-1] if self.marks else 0):
      raise InputError("the pickle is damaged (a value is missing)")
    return self.stack.pop()

  def top(self, kind: type) -> Any:
    """The last value, which must be of a kind."""
    value = self.pop()
    self.stack.append(value)
    if not isinstance(value, kind):
      raise InputError(f"the pickle is damaged (no {kind.__name__} to add to)")
    return value

  def since_mark(self) -> list[Any]:
    """Takes all values behind the last mark."""
    if not self.marks:
      raise InputError("the pickle is damaged (a mark is missing)")
    start = self.marks.pop()
    found, self.stack[start:] = self.stack[start:], []
    return found


def _named(module: str, name: str) -> values.Named:
  """The function or class of that name, if it is admitted."""
  full = f"{_RENAMED.get(module, module)}.{name}"
  if full not in values.ADMITTED:
    raise InputError(f"it holds {module}.{name}: {_ADVICE}")
  return values.Named(full)


def _global(m: _Machine) -> None:
  module, name = m.line().decode("utf-8"), m.line().decode("utf-8")
  m.push(_named(module, name))


def _stack_global(m: _Machine) -> None:
  name, module = m.pop(), m.pop()
  if not isinstance(name, str) or not isinstance(module, str):
    raise InputError("the pickle is damaged (a name is no text)")
  m.push(_named(module, name))


def _instance(m: _Machine) -> None:
  _global(m)
  raise InputError(f"it holds an object of {m.pop().name}: {_ADVICE}")


def _object(m: _Machine) -> None:
  names = [x.name for x in m.stack if isinstance(x, values.Named)]
  name = names[-1] if names else "a class without a name"
  raise InputError(f"it holds an object of {name}: {_ADVICE}")


def _outside(m: _Machine) -> None:
  raise InputError(
    "it refers to objects outside the file, as files of torch.save do: "
    f"{_ADVICE}"
  )


def _reduce(m: _Machine) -> None:
  args, function = m.pop(), m.pop()
  m.push(values.called(function, args))


def _build(m: _Machine) -> None:
  state, value = m.pop(), m.pop()
  if not isinstance(value, values.Array | values.Type):
    raise InputError(f"it sets attributes of an object: {_ADVICE}")
  value.set_state(state)
  m.push(value)


def _bytes(form: str, text: bool) -> Callable[[_Machine], None]:
  """Bytes, or a text of Python 2, behind their length."""

  def act(m: _Machine) -> None:
    found = m.take(m.number(form))
    if len(found) > _LARGE:
      m.push(values.Chunk(found, text))
    else:
      m.push(str(found, "latin-1") if text else bytes(found))

  return act


def _unicode(form: str) -> Callable[[_Machine], None]:
  return lambda m: m.push(str(m.take(m.number(form)), "utf-8", "surrogatepass"))


def _number(form: str) -> Callable[[_Machine], None]:
  return lambda m: m.push(m.number(form))


def _long(form: str) -> Callable[[_Machine], None]:
  def act(m: _Machine) -> None:
    size = m.number(form)
    if size > _DIGITS:
      raise InputError(f"a whole number of {size} bytes")
    m.push(int.from_bytes(m.take(size), "little", signed=True))

  return act


def _int_line(m: _Machine) -> None:
  text = m.line()
  special = {b"00": False, b"01": True}
  if len(text) > _DIGITS:
    raise InputError(f"a whole number of {len(text)} digits")
  number = text.removesuffix(b"L")
  m.push(special[text] if text in special else int(number))


def _string_line(m: _Machine) -> None:
  text = m.line().strip()
  if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
    raise InputError("the pickle is damaged (a text without quotes)")
  m.push(codecs.escape_decode(text[1:-1])[0].decode("latin-1"))


def _constant(value: Any) -> Callable[[_Machine], None]:
  return lambda m: m.push(value)


def _empty(kind: type) -> Callable[[_Machine], None]:
  return lambda m: m.push(kind())


def _tuple(size: int) -> Callable[[_Machine], None]:
  def act(m: _Machine) -> None:
    m.push(tuple([m.pop() for _ in range(size)][::-1]))

  return act


def _pairs(found: list[Any]) -> dict[Any, Any]:
  if len(found) % 2:
    raise InputError("the pickle is damaged (a key without a value)")
  return dict(zip(found[::2], found[1::2], strict=True))


def _append(m: _Machine) -> None:
  value = m.pop()
  m.top(list).append(value)


def _appends(m: _Machine) -> None:
  found = m.since_mark()
  m.top(list).extend(found)


def _set_item(m: _Machine) -> None:
  value, key = m.pop(), m.pop()
  m.top(dict)[key] = value


def _set_items(m: _Machine) -> None:
  found = _pairs(m.since_mark())
  m.top(dict).update(found)


def _add_items(m: _Machine) -> None:
  found = m.since_mark()
  m.top(set).update(found)


def _remember(m: _Machine, number: int) -> None:
  m.memo[number] = m.top(object)


def _recall(m: _Machine, number: int) -> None:
  if number not in m.memo:
    raise InputError(f"the pickle is damaged (nothing has number {number})")
  m.push(m.memo[number])


_STOP = ord(".")
_ACTS: dict[int, Callable[[_Machine], Any]] = {
  ord(code): act
  for code, act in {
    "\x80": lambda m: m.number("<B"),
    "\x95": lambda m: m.number("<Q"),
    "(": lambda m: m.marks.append(len(m.stack)),
    "0": _Machine.pop,
    "1": _Machine.since_mark,
    "2": lambda m: m.push(m.top(object)),
    "N": _constant(None),
    "\x88": _constant(True),
    "\x89": _constant(False),
    "I": _int_line,
    "L": _int_line,
    "J": _number("<i"),
    "K": _number("<B"),
    "M": _number("<H"),
    "\x8a": _long("<B"),
    "\x8b": _long("<i"),
    "F": lambda m: m.push(float(m.line())),
    "G": _number(">d"),
    "S": _string_line,
    "T": _bytes("<i", True),
    "U": _bytes("<B", True),
    "V": lambda m: m.push(m.line().decode("raw-unicode-escape")),
    "X": _unicode("<I"),
    "\x8c": _unicode("<B"),
    "\x8d": _unicode("<Q"),
    "B": _bytes("<I", False),
    "C": _bytes("<B", False),
    "\x8e": _bytes("<Q", False),
    "\x96": _bytes("<Q", False),
    "}": _empty(dict),
    "]": _empty(list),
    ")": _empty(tuple),
    "\x8f": _empty(set),
    "d": lambda m: m.push(_pairs(m.since_mark())),
    "l": lambda m: m.push(m.since_mark()),
    "t": lambda m: m.push(tuple(m.since_mark())),
    "\x91": lambda m: m.push(frozenset(m.since_mark())),
    "\x85": _tuple(1),
    "\x86": _tuple(2),
    "\x87": _tuple(3),
    "a": _append,
    "e": _appends,
    "s": _set_item,
    "u": _set_items,
    "\x90": _add_items,
    "p": lambda m: _remember(m, int(m.line())),
    "q": lambda m: _remember(m, m.number("<B")),
    "r": lambda m: _remember(m, m.number("<I")),
    "\x94": lambda m: _remember(m, len(m.memo)),
    "g": lambda m: _recall(m, int(m.line())),
    "h": lambda m: _recall(m, m.number("<B")),
    "j": lambda m: _recall(m, m.number("<I")),
    "c": _global,
    "\x93": _stack_global,
    "R": _reduce,
    "b": _build,
    "i": _instance,
    **dict.fromkeys(("o", "\x81", "\x92"), _object),
    **dict.fromkeys(
      ("P", "Q", "\x82", "\x83", "\x84", "\x97", "\x98"), _outside
    ),
  }.items()
}
_STARTS = {0x80, *b"(}]cli"}
