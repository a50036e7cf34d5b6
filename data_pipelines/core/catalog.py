"""Data sets by name.

A *pipeline* is a folder of ``data_pipelines.sets``, named like its data set, or
``data_pipelines.manifest``; it has

* ``prepare(data_dir, **options) -> PreparedSummary``: turns raw data into
  records on disk, once; does nothing when they are there, and never leaves
  half of them behind;
* ``load(data_dir, **options) -> Dataset``: calls ``prepare`` if need be.

Options are keyword-only parameters with a default. Every data set also has
those of ``HIDING``, which leave what is prepared as it is.
"""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_pipelines.core import Dataset, hidden
from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import unknown

# Options of every data set -> argument of ``hidden.hide``.
HIDING = {"drop": "drop", "drop_seed": "seed", "drop_splits": "splits"}
_SETS = "data_pipelines.sets"
# The user's own data: a data set like the others, in another place.
_OWN = {"manifest": "data_pipelines.manifest"}


def pipelines() -> list[str]:
  """Names of all data sets."""
  modules = pkgutil.iter_modules(importlib.import_module(_SETS).__path__)
  return sorted([*_OWN, *(m.name for m in modules if m.name[0] != "_")])


def dataset(
  name: str,
  data_dir: str | os.PathLike,
  options: Mapping[str, Any],
  modalities: Sequence[str] | None = None,
) -> Dataset:
  """Loads a data set by name, preparing it if need be.

  Args:
    name: of ``pipelines()``, e.g. ``"openmoji"``.
    data_dir: folder of all prepared data.
    options: keyword arguments of the module's ``load`` (or ``prepare``), and
      those of ``HIDING``.
    modalities: those to keep; ``None`` is all.

  Raises:
    ValueError: an unknown name, option or modality, with the choices.
    DataError: prepared data that are damaged.
  """
  module = _pipeline(name, options)
  loaded = module.load(data_dir, **_accepted(module.load, options))
  found = hide(loaded, options)
  return found if modalities is None else found.select(modalities)


def hide(dataset: Dataset, options: Mapping[str, Any]) -> Dataset:
  """The data set with the modalities hidden that ``options`` ask for.

  Raises:
    ValueError: as ``hidden.hide``.
  """
  if not options.get("drop"):
    return dataset
  hiding = {own: options[o] for o, own in HIDING.items() if o in options}
  return hidden.hide(dataset, **hiding)


def prepare(
  name: str, data_dir: str | os.PathLike, options: Mapping[str, Any]
) -> PreparedSummary:
  """Prepares a data set; arguments as in ``dataset``.

  Intact data are left alone; damaged data are rebuilt.
  """
  module = _pipeline(name, options)
  return module.prepare(data_dir, **_accepted(module.prepare, options))


def loader(name: str) -> Callable[..., Dataset]:
  """``load`` of the data set of that name, one of ``pipelines()``."""
  return _pipeline(name, {}).load


def _pipeline(name: str, options: Mapping[str, Any]):
  known = pipelines()
  if name not in known:
    raise unknown("data set", name, known)
  module = importlib.import_module(_OWN.get(name, f"{_SETS}.{name}"))
  choices = [*_options(module.load), *_options(module.prepare), *HIDING]
  for option in options:
    if option not in choices:
      raise unknown(f"option of data set {name!r}:", option, choices)
  return module


def _options(function: Callable) -> list[str]:
  parameters = inspect.signature(function).parameters.values()
  return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _accepted(function: Callable, options: Mapping[str, Any]):
  return {k: options[k] for k in _options(function) if k in options}
