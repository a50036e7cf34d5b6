"""What a pickle may hold: texts, numbers, containers, and arrays of NumPy.

A pickle names functions that rebuild its objects. Those of NumPy's arrays stand
here as functions of our own, which check what they are given; nothing that a
pickle names is ever imported or called.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from data_pipelines.errors import InputError

# Codes of booleans, numbers, bytes and texts; O is told apart.
_TYPE = re.compile(r"([<>=|]?)(b1|[iu][1248]|f[248]|\?|[SUa]\d{1,6}|O8?|O4)")
_DEPTH = 100  # of containers in containers


class Chunk(NamedTuple):
  """Many bytes of the file, not copied.

  Attributes:
    data: the bytes.
    text: whether they are a text of Python 2, in Latin-1.
  """

  data: memoryview
  text: bool

  def __hash__(self) -> int:
    raise InputError(f"a key of {len(self.data)} bytes")


class Named(NamedTuple):
  """A function or class that a pickle names, one of ``ADMITTED``."""

  name: str


class Type:
  """The type of an array; ``set_state`` gives it the order of its bytes."""

  def __init__(self, code: str):
    self._code = code

  def set_state(self, state: Any) -> None:
    """Takes ``(version, byte order, part, names, fields, ...)``."""
    if not isinstance(state, tuple) or len(state) < 5:
      raise InputError("a type of numbers without its state")
    if any(x is not None for x in state[2:5]):
      raise InputError("an array of records: save each field as an array")
    order = _text(state[1])
    if order in ("<", ">") and self._code[:1] not in ("<", ">", "O"):
      self._code = order + self._code.lstrip("=|")

  @property
  def dtype(self) -> np.dtype:
    """The type, one of plain numbers, bytes, texts or objects."""
    if not _TYPE.fullmatch(self._code):
      raise InputError(
        f"an array of type {self._code!r}: only booleans, integers, floats and "
        "texts are read"
      )
    return np.dtype(
      "O" if self._code.lstrip("|").startswith("O") else self._code
    )


class Array:
  """An array; ``set_state`` gives it its content, once."""

  def __init__(self):
    self.values: np.ndarray | None = None
    self.items: list[Any] | None = None  # Of objects, in place of values.
    self.shape: tuple[int, ...] = ()

  def set_state(self, state: Any) -> None:
    """Takes ``(version, shape, type, Fortran order, bytes or list)``."""
    if self.values is not None or self.items is not None:
      raise InputError("an array that is filled twice")
    if isinstance(state, tuple) and len(state) == 5:
      state = state[1:]
    if not isinstance(state, tuple) or len(state) != 4:
      raise InputError("an array without its state")
    shape, kind, fortran, data = state
    self.fill(data, kind, shape, "F" if fortran else "C")

  def fill(self, data: Any, kind: Any, shape: Any, order: str) -> None:
    """Checks sizes, then takes the content as it lies in the file."""
    if not isinstance(kind, Type):
      raise InputError("an array whose type is no type of NumPy")
    if not isinstance(shape, tuple) or not all(
      type(n) is int and n >= 0 for n in shape
    ):
      raise InputError(f"an array of shape {shape!r}")
    count, dtype = math.prod(shape), kind.dtype
    if dtype.kind == "O":
      if not isinstance(data, list) or len(data) != count or order != "C":
        raise InputError(f"an array of objects that does not fill {shape}")
      self.items, self.shape = data, shape
      return
    raw = _bytes(data)
    if len(raw) != count * dtype.itemsize:
      raise InputError(
        f"an array of shape {shape} and type {dtype} with {len(raw)} bytes "
        f"instead of {count * dtype.itemsize}"
      )
    flat = np.frombuffer(raw, dtype) if count else np.empty(0, dtype)
    made = flat.reshape(shape, order="F" if order == "F" else "C")
    made.flags.writeable = False
    self.values = made


def _reconstruct(kind: Any = None, *_: Any) -> Array:
  if kind != Named("numpy.ndarray"):
    raise InputError("an array of a class that is not numpy.ndarray")
  return Array()


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> Array:
  made = Array()
  made.fill(data, kind, shape, str(order))
  return made


def _scalar(kind: Any, data: Any = b"") -> Any:
  made = Array()
  made.fill(data, kind, (), "C")
  if made.values is None:
    raise InputError("a number that is an object")
  return made.values[()].item()


def _dtype(code: Any, *_: Any) -> Type:
  return Type(_text(code))


def _encode(text: Any, encoding: Any) -> bytes:
  """The bytes that Python 3 writes as a text for old protocols."""
  if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
    raise InputError(f"bytes as a text in {encoding!r}")
  return text.encode("latin-1")


def _no_bytes() -> bytes:
  return b""


def _set(items: Any) -> set[Any]:
  if not isinstance(items, list):
    raise InputError("a set that is not made of a list")
  return set(items)


def _frozen_set(items: Any) -> frozenset[Any]:
  return frozenset(_set(items))


_Function = Callable[..., Any]
_CALLED: Mapping[str, _Function] = {
  "numpy.dtype": _dtype,
  "_codecs.encode": _encode,
  "builtins.bytes": _no_bytes,
  "builtins.set": _set,
  "builtins.frozenset": _frozen_set,
  **{
    f"numpy.{core}.{name}": function
    for core in ("core", "_core")
    for name, function in (
      ("multiarray._reconstruct", _reconstruct),
      ("multiarray.scalar", _scalar),
      ("numeric._frombuffer", _from_buffer),
    )
  },
}
ADMITTED = {*_CALLED, "numpy.ndarray"}


def called(function: Any, args: Any) -> Any:
  """What a pickle asks a function to make."""
  if not isinstance(function, Named) or function.name not in _CALLED:
    raise InputError("a call of something that is no function")
  if not isinstance(args, tuple):
    raise InputError(f"a call of {function.name} without arguments")
  try:
    return _CALLED[function.name](*args)
  except TypeError as error:
    raise InputError(f"a call of {function.name} that does not fit") from error


def plain(value: Any) -> Any:
  """The value with arrays in place of what stands for them.

  Raises:
    ValueError: a container holds itself, containers lie too deep, or an array
      has no content.
  """
  return _Plain().of(value, 0)


class _Plain:
  """Turns each container once, however often it is used."""

  def __init__(self):
    self._made: dict[int, Any] = {}
    self._open: set[int] = set()

  def of(self, value: Any, depth: int) -> Any:
    if isinstance(value, Chunk):
      return str(value.data, "latin-1") if value.text else bytes(value.data)
    if isinstance(value, Named | Type):
      raise InputError("a function or type of numbers as a value")
    if not isinstance(value, Array | list | tuple | dict | set | frozenset):
      return value
    key = id(value)
    if key in self._made:
      return self._made[key]
    if key in self._open or depth > _DEPTH:
      raise InputError("a container that holds itself, or too many in another")
    self._open.add(key)
    self._made[key] = made = self._container(value, depth + 1)
    self._open.discard(key)
    return made

  def _container(self, value: Any, depth: int) -> Any:
    if isinstance(value, Array):
      return (
        value.values if value.items is None else self._objects(value, depth)
      )
    if isinstance(value, dict):
      items = value.items()
      return {self.of(k, depth): self.of(x, depth) for k, x in items}
    return type(value)(self.of(x, depth) for x in value)

  def _objects(self, array: Array, depth: int) -> np.ndarray:
    if array.items is None:
      raise InputError("an array without content")
    made = np.empty(len(array.items), object)
    for i, item in enumerate(array.items):
      made[i] = self.of(item, depth)
    return made.reshape(array.shape)


def _text(value: Any) -> str:
  if isinstance(value, Chunk):
    value = bytes(value.data)
  if isinstance(value, bytes):
    value = value.decode("latin-1")
  if not isinstance(value, str):
    raise InputError(f"{type(value).__name__} in place of a text")
  return value


def _bytes(value: Any) -> bytes | memoryview:
  if isinstance(value, Chunk):
    return value.data
  if isinstance(value, str):  # Of Python 2, or of protocol 2.
    return value.encode("latin-1")
  if not isinstance(value, bytes):
    raise InputError(f"{type(value).__name__} in place of an array's bytes")
  return value
