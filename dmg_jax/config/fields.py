"""Checks and sets fields of a config by path, e.g. ``train.epochs``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from dmg_jax.config.compose import ENCODER, Config, assign
from dmg_jax.config.recipes import RECIPES
from dmg_jax.errors import InputError, close_to, nearest

_OF_TABLE = re.compile(
  r"figure\.(name|title)$|(sets\.[^.]+\.)?(table\.|variant$"
  r"|rows\.[^.]+\.(recipe|label|variant|method\.name|fusion\.name)$)"
)
_OF_RECIPE = ("recipe", "variant", "method.name", "fusion.name")
_ENCODER = re.compile(r"(?:sets\.[^.]+\.)?encoders\.([^.]+)\.name$")
_MANY = ("rows.", "sets.")


def paths(config: Config, parent: str = "") -> Iterable[str]:
  """The paths of all fields of a config."""
  for key in config:
    value = config.get_oneway_ref(key).get()
    if isinstance(value, ConfigDict):
      yield from paths(value, f"{parent}{key}.")
    else:
      yield f"{parent}{key}"


def check(config: Config, path: str, value: Any = "") -> None:
  """Checks that a field exists and may be set on its own.

  Args:
    config: config with a recipe.
    path: path of the field.
    value: the value it shall get, for the message.

  Raises:
    ValueError: there is no such field (the message suggests the closest), or
      the field follows from the recipe or a key (the message names it).
  """
  fields = sorted(paths(config))
  if path not in fields:
    # A table repeats fields for each row: list them only for such a field.
    rows = path.startswith(_MANY)
    shown = [f for f in fields if f.startswith(_MANY) == rows]
    raise InputError(f"unknown field config.{path}{_nearest(path, shown)}")
  grid = "table" in config or "figure" in config
  if grid and _OF_TABLE.match(path):
    keys = "FIGURE" if "figure" in config else "TABLE"
    raise InputError(
      f"config.{path} cannot be set directly: it follows from the text "
      f"after the config file's colon, as in {keys},dataset=NAME,rows=A+B"
    )
  if path in _OF_RECIPE:
    from dmg_jax.model import registry  # Late: it loads JAX.

    fusion = path == "fusion.name"
    near = nearest(value, registry.known("fusion") if fusion else RECIPES)
    how = f"{config.recipe},fusion=" if fusion else ":"
    raise _set_after_colon(path, f"{how}NAME; {value!r} was given{near}")
  if slot := _ENCODER.match(path):
    first = config.variant.partition(",")[0]
    how = f"{first},{ENCODER}{slot[1]}={value or 'NAME'}"
    raise _set_after_colon(path, how)


def _nearest(path: str, fields: Iterable[str]) -> str:
  """The closest field, and the others of its group; there are some hundred."""
  groups: dict[str, list[str]] = {}
  for field in fields:
    group, dot, _ = field.partition(".")
    groups.setdefault(group + dot, []).append(field)
  close = close_to(path, itertools.chain(*groups.values()))
  for name, own in groups.items():
    if path.startswith(name) or f"'{name}" in close:
      return f"{close} (choose from {', '.join(own)})"
  return f"{close} (fields begin with {', '.join(groups)})"


def set_all(config: Config, changes: Mapping[str, Any]) -> None:
  """Sets the fields ``{path: value}`` of a config, in order.

  Raises:
    ValueError: as ``check``, or a value has another type.
  """
  for path, value in changes.items():
    check(config, path, value)
    assign(config, path, value)


def _set_after_colon(field: str, how: str) -> InputError:
  return InputError(
    f"config.{field} has options of its own and is set after the config file's "
    f"colon, as in {how}"
  )
