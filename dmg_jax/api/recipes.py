"""The table of recipes as data."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from dmg_jax.config import compose
from dmg_jax.config.recipes import RECIPES
from dmg_jax.model import registry

BASE = "concat"


@dataclasses.dataclass(frozen=True)
class RecipeInfo:
  """What there is to know of a recipe before it is used.

  Attributes:
    name: for ``fit(..., recipe=name)``.
    aliases: other names of the same recipe.
    category: baseline, fusion, objective, gradient, ...
    equation: in one line.
    fusion: its name.
    readout: how the fusion obtains unimodal logits.
    method: its name.
    options: {option of the method: its value in this recipe}; all of them can
      be set as keys.
    modalities: how many it works with.
    source: authors and venue.
    defaults: where the recipe's options come from.
  """

  name: str
  aliases: tuple[str, ...]
  category: str
  equation: str
  fusion: str
  readout: str
  method: str
  options: dict[str, Any]
  modalities: str
  source: str
  defaults: str


def recipes() -> list[RecipeInfo]:
  """All recipes, in the order of the documentation's table.

  ``pandas.DataFrame(dmg_jax.recipes())`` is the same as a table.

  Example:

    >>> import dmg_jax
    >>> by_name = {r.name: r for r in dmg_jax.recipes()}
    >>> by_name["lb"].category, by_name["joint"].aliases
    ('matching', ('concat',))
    >>> by_name["ogm_ge"].options["alpha"]
    0.8
  """
  found: dict[str, RecipeInfo] = {}
  for name, recipe in RECIPES.items():
    key = repr(recipe._replace(source=""))
    if key in found:
      names = (*found[key].aliases, name)
      found[key] = dataclasses.replace(found[key], aliases=names)
      continue
    fusion = _module("fusion", recipe.fusion)
    method = _module("methods", recipe.method)
    # Joint training on a fusion is known by the fusion.
    plain = recipe.method == "joint" and recipe.fusion != BASE
    card = fusion.CARD if plain else method.CARD
    found[key] = RecipeInfo(
      name=name,
      aliases=(),
      fusion=recipe.fusion,
      readout=fusion.READOUT,
      method=recipe.method,
      options=_options(method.make, recipe.options),
      defaults=recipe.source,
      **card._asdict(),
    )
  return list(found.values())


def _options(factory: Any, changed: Any) -> dict[str, Any]:
  """All options with their values; ``None`` where the method chooses."""
  made = compose.ConfigDict(compose.options(factory))
  made.update(changed)
  return made.to_dict()


def _module(package: str, name: str) -> Any:
  return importlib.import_module(f"{registry.PACKAGES[package]}.{name}")
