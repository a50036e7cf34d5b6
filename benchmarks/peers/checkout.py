"""Imports single files of a checkout; what they need and lack is stubbed.

Numbered, as the page says:

1. ``Tensor.cuda`` and ``Module.cuda`` do nothing.
2. A package that is not installed is an empty one, whose every name is a class
   that takes any arguments. Only data sets, logs and unused losses need them.
3. torch's search for anomalies, which a script switches on, is off again.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar

from data_pipelines.errors import DataError

# Packages that may be missing, none of which computes what is measured.
ABSENT = (
  "dynaconf", "geomloss", "lightning", "lightning_utilities", "loguru",
  "tensorboard", "thop", "torchaudio", "torchvision",
)  # fmt: skip


class _AnyType(type):
  """The type of a class that has every name."""

  def __getattr__(cls, name: str):
    if name.startswith("__"):
      raise AttributeError(name)
    return cls


class Anything(metaclass=_AnyType):
  """Takes any arguments, has every name, does nothing."""

  def __init__(self, *_, **__):
    pass

  def __call__(self, *_, **__):
    return None

  def __getattr__(self, name: str):
    if name.startswith("__"):
      raise AttributeError(name)
    return self


class Empty(types.ModuleType):
  """A module whose every name is ``Anything``."""

  __path__: ClassVar[list[str]] = []

  def __getattr__(self, name: str):
    if name.startswith("__"):
      raise AttributeError(name)
    return Anything


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """The last finder: it makes what nobody else found."""

  def __init__(self, names: Iterable[str]):
    self._names, self.made = tuple(names), set()

  def find_spec(self, name, path=None, target=None):
    del path, target
    whole = name in self._names or name.split(".")[0] in ABSENT
    return importlib.machinery.ModuleSpec(name, self) if whole else None

  def create_module(self, spec):
    self.made.add(spec.name.split(".")[0])
    return Empty(spec.name)

  def exec_module(self, module):
    del module


def check(root: Path, files: Iterable[str]) -> None:
  """Refuses a checkout that lacks a file, by its name.

  Raises:
    DataError: it does, or there is no such folder.
  """
  if not root.is_dir():
    raise DataError(f"no folder {root}: name the clone with --checkout")
  for name in files:
    if not (root / name).is_file():
      raise DataError(
        f"the checkout {root} has no file {name}: is it the right repository?"
      )


@contextlib.contextmanager
def opened(
  root: Path,
  *,
  packages: Iterable[str] = (),
  empty: Iterable[str] = (),
) -> Iterator[set[str]]:
  """Modules of a checkout can be imported; afterwards they are forgotten.

  Args:
    root: the checkout.
    packages: folders whose ``__init__`` is passed over: it imports all.
    empty: modules that are stubbed, like ``ABSENT``.

  Yields:
    The packages that were stubbed so far.
  """
  import torch

  before, path = set(sys.modules), list(sys.path)
  finder = _Finder(empty)
  cuda = torch.Tensor.cuda, torch.nn.Module.cuda
  torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment]
  torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[assignment]
  sys.path.insert(0, str(root))
  sys.meta_path.append(finder)
  try:
    for name in empty:
      sys.modules[name] = Empty(name)
    for name in packages:
      module = types.ModuleType(name)
      module.__path__ = [str(root.joinpath(*name.split(".")))]
      sys.modules[name] = module
    yield finder.made
  finally:
    sys.meta_path.remove(finder)
    sys.path[:] = path
    torch.Tensor.cuda, torch.nn.Module.cuda = cuda
    torch.autograd.set_detect_anomaly(False)
    for name in set(sys.modules) - before:
      if _belongs(sys.modules[name], root):
        del sys.modules[name]


def load(name: str) -> types.ModuleType:
  """Imports a module inside ``opened``.

  Raises:
    DataError: it imports something that is neither here nor stubbed.
  """
  import torch

  try:
    module = importlib.import_module(name)
  except ImportError as error:
    raise DataError(
      f"{name} of the checkout cannot be imported: {error}; install it, or "
      "name a checkout of the revision on the page"
    ) from error
  torch.autograd.set_detect_anomaly(False)
  return module


def _belongs(module: types.ModuleType, root: Path) -> bool:
  """Whether a module is the checkout's or a stub."""
  file = getattr(module, "__file__", None)
  places = list(getattr(module, "__path__", []) or [])
  found = [file] if file else places
  ours = any(Path(p).is_relative_to(root) for p in found)
  return isinstance(module, Empty) or ours
