"""Builds a config from the defaults, a recipe and its keys.

``configs/<data set>.py:<recipe>[,key=value...]``: the first word is a recipe,
and keys are options of its method or names in ``SHORT``. A small ``batch_size``
also lowers the batch sizes of the outer level and of evaluation. Some data sets
have a small setting for laptops, ``quick=true``. The key
``encoder.image=resnet.ResNet`` chooses the encoder of a modality or of a kind,
whose options are then fields: ``--config.encoders.image.depth=50``. So are they
keys behind the recipe: ``encoder.image.depth=50``.

From Python, ``RecipeKeys`` builds the same string from a recipe and values.

The registry of models is imported late, so that a misspelt recipe is reported
before JAX is loaded.
"""

from __future__ import annotations

import ast
import copy
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from data_pipelines.core import hidden
from dmg_jax.config import class_weights
from dmg_jax.config.defaults import DEFAULTS
from dmg_jax.config.recipes import RECIPES, Recipe
from dmg_jax.errors import InputError, unknown

# A ConfigDict; type checkers cannot know its fields.
Config = Any

# {key: path} of fields that may follow a recipe, in addition to the options of
# its method.
SHORT = {
  "seed": "seed",
  "seeds": "seeds",
  "vmap_seeds": "vmap_seeds",
  "epochs": "train.epochs",
  "batch_size": "train.batch_size",
  "learning_rate": "optimiser.learning_rate",
  "weight_decay": "optimiser.weight_decay",
  "schedule": "optimiser.schedule",
  "class_weights": "train.class_weights",
  "modality_dropout": "train.modality_dropout",
  "sampler": "train.sampler",
  "select_by": "train.select_by",
  "drop": hidden.FIELD,
  "missing": "data.missing",  # Of your own data alone.
  "fusion": "fusion.name",
}
# The prefix of the key for the encoder of a modality or kind.
ENCODER = "encoder."
# The encoder of arrays of different length, if that of arrays reads none.
SEQUENCE = "sequence"


class RecipeKeys(str):
  """A recipe with its keys, as an argument of a config file's ``get_config``.

  It is the string after the colon on the command line, and it keeps the values
  that it was built from, because these may contain commas.

  Attributes:
    recipe: name of the recipe.
    given: {key: value}.
  """

  recipe: str
  given: dict[str, Any]

  def __new__(cls, recipe: str, given: Mapping[str, Any]):
    """Builds the string from the recipe and its keys."""
    given = {k: _plain(v) for k, v in given.items()}
    pairs = [f"{k}={_text(v)}" for k, v in given.items()]
    made = super().__new__(cls, ",".join([recipe, *pairs]))
    made.recipe, made.given = recipe, given
    return made


def _plain(value: Any) -> Any:
  """``value`` as a Python number if it is a NumPy number."""
  return value.item() if hasattr(value, "item") else value


def _text(value: Any) -> str:
  """``value`` as written after a recipe; the function ``value`` reads it."""
  return str(value).lower() if value in (True, False, None) else str(value)


def base(arg: str | None = "") -> Config:
  """A config without data set and recipe.

  Args:
    arg: the string after the colon, to be checked first: a misspelt recipe is
      then reported before the libraries are loaded. Not checked if empty.

  Raises:
    ValueError: the recipe is missing or unknown, or a part is not
      ``key=value``.
  """
  if arg != "":
    parse(arg)
  return ConfigDict(copy.deepcopy(DEFAULTS))


def options(factory: Callable[..., Any], skip: tuple[str, ...] = ()) -> dict:
  """{name: default} of a function's keyword-only arguments or a class's fields.

  A default of ``None`` becomes a typed placeholder.
  """
  hints = typing.get_type_hints(factory)
  is_class = inspect.isclass(factory)
  found = {}
  for name, p in inspect.signature(factory).parameters.items():
    if name in skip:
      continue
    if p.kind is not inspect.Parameter.KEYWORD_ONLY and not is_class:
      continue
    if p.default is None:
      union = typing.get_args(hints[name])
      kind = next(t for t in union if t is not types.NoneType)
      kind = typing.get_origin(kind) or kind
      found[name] = config_dict.placeholder(kind)
    elif p.default is not inspect.Parameter.empty:
      found[name] = p.default
  return found


def value(text: str) -> Any:
  """The Python value of ``3``, ``.5``, ``true`` or ``none``, else ``text``."""
  words = {"true": True, "false": False, "none": None}
  if text.lower() in words:
    return words[text.lower()]
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def parse(arg: str | None) -> tuple[str, dict[str, Any]]:
  """Turns ``"lb,seeds=3"`` into ``("lb", {"seeds": 3})``.

  Raises:
    ValueError: the recipe is missing or unknown, or a part is not
      ``key=value``.
  """
  if isinstance(arg, RecipeKeys):
    if arg.recipe not in RECIPES:
      raise unknown("recipe", arg.recipe, RECIPES)
    return arg.recipe, dict(arg.given)
  recipe, *pairs = (arg or "").split(",")
  if not recipe:
    raise InputError(
      "no recipe given: write configs/<file>.py:<recipe>, with one of "
      + ", ".join(sorted(RECIPES))
    )
  if recipe not in RECIPES:
    raise unknown("recipe", recipe, RECIPES)
  return recipe, {k: value(v) for k, v in keys(pairs, "the recipe").items()}


def keys(pairs: Iterable[str], after: str) -> dict[str, str]:
  """Turns ``["a=1", "b=x"]`` into ``{"a": "1", "b": "x"}``, in that order.

  Raises:
    ValueError: a part is not ``key=value``; the message says that it was
      expected after ``after``.
  """
  given = {}
  for pair in pairs:
    key, equals, text = pair.partition("=")
    if not equals or not key or not text:
      raise InputError(f"expected key=value after {after}, got {pair!r}")
    given[key] = text
  return given


def with_recipe(
  config: Config, arg: str | None, quick: Mapping[str, Any] | None = None
) -> Config:
  """Sets the recipe and keys of ``arg`` in a config, locks and returns it.

  Args:
    config: config of the data set.
    arg: the string after the colon.
    quick: {path: value} that ``quick=true`` sets, e.g. ``{"train.epochs": 2}``;
      a dictionary replaces the whole node at its path. Other keys of ``arg``
      are set afterwards.

  Raises:
    ValueError: a recipe or key is unknown, or a value has another type; the
      message lists the choices.
  """
  from dmg_jax.model import registry

  name, given = parse(arg)
  if quick is not None:
    _quicken(config, given.pop("quick", False), quick)
  _choose_encoders(config, given)
  recipe = RECIPES[name]
  factory = registry.method_factory(recipe.method)
  config.recipe, config.variant = name, str(arg or "")
  config.fusion = _fusion(recipe, given.pop("fusion", recipe.fusion))
  config.method = {"name": recipe.method, **options(factory)}
  required = set(inspect.signature(factory).parameters) - set(config.method)
  for key in sorted(required):
    if key not in given:
      raise InputError(f"recipe {name!r} needs {key}: write {name},{key}=...")
    config.method[key] = given.pop(key)
  config.lock()
  config.method.update(recipe.options)
  _set_keys(config, given, () if quick is None else ("quick",))
  if "batch_size" in given:
    _lower_batches(config)
  return config


def _set_keys(
  config: Config, given: Mapping[str, Any], others: tuple[str, ...]
) -> None:
  """Sets options of the method and keys of ``SHORT``.

  ``others`` are further valid keys, for the error message.
  """
  own = [k for k in config.method if k != "name"]
  short = [k for k in SHORT if k != "missing" or "missing" in config.data]
  for key, value in given.items():
    if key not in own and key not in short:
      known = [*own, *short, *others]
      known += [ENCODER + slot for slot in config.encoders]
      raise unknown(f"key of recipe {config.recipe!r}", key, known)
    path = f"method.{key}" if key in own else SHORT[key]
    assign(config, path, value)


def _choose_encoders(config: Config, given: dict[str, Any]) -> None:
  """Removes the keys of encoders from ``given`` and sets these encoders.

  If all encoders of the config have the same number of features, a new encoder
  with that option gets it, too, because matching needs equal sizes. Encoders
  with no such option, or with 0, keep the size of their last layer.
  """
  sizes = {e.get("features") for e in config.encoders.values()} - {None, 0}
  chosen = [k for k in given if k.startswith(ENCODER)]
  for key in sorted(chosen, key=lambda k: k.count(".")):  # Its options last.
    slot, dot, option = key.removeprefix(ENCODER).partition(".")
    if dot:
      _set_option(config, slot, option, given.pop(key))
      continue
    # Only the manifest itself names its modalities.
    if slot not in config.encoders and config.data.name != "manifest":
      keys = [ENCODER + slot for slot in config.encoders]
      raise unknown("key", key, keys)
    try:
      made = encoder(str(given.pop(key)))
    except ValueError as error:
      raise InputError(f"{key}: {error}") from error
    if "features" in made and len(sizes) == 1:
      made["features"] = next(iter(sizes))
    config.encoders[slot] = ConfigDict(made)


def _set_option(config: Config, slot: str, option: str, value: Any) -> None:
  """Sets an option of the encoder of a modality or kind."""
  key = f"{ENCODER}{slot}"
  if slot not in config.encoders:
    there = ", ".join(config.encoders)
    raise InputError(
      f"{key}.{option}: the config has no encoder {slot!r} (it has those of "
      f"{there}): choose it first, {key}=NAME,{key}.{option}={_text(value)}"
    )
  encoder = config.encoders[slot]
  known = [k for k in encoder if k != "name"]
  if option not in known:
    raise unknown(f"option of {key} ({encoder.name})", option, known)
  try:
    assign(encoder, option, value)
  except ValueError as error:
    raise InputError(f"{key}: {error}") from error


def _lower_batches(config: Config) -> None:
  """Limits outer and evaluation batches to four times the training batch."""
  most, train = 4 * config.train.batch_size, config.train
  train.outer_batch_size = min(train.outer_batch_size, most)
  config.eval.batch_size = min(config.eval.batch_size, most)


def _quicken(config: Config, wanted: Any, quick: Mapping[str, Any]) -> None:
  """Sets the fields of ``quick`` if ``wanted`` is true."""
  if not isinstance(wanted, bool):
    raise InputError(f"quick must be true or false, got {wanted!r}")
  for path, value in quick.items() if wanted else ():
    parent, _, name = path.rpartition(".")
    if isinstance(value, Mapping):
      config[parent][name] = ConfigDict(dict(value))
    else:
      assign(config, path, value)


def _fusion(recipe: Recipe, name: str) -> Config:
  """The fusion's name and options; recipe options need the recipe's fusion."""
  from dmg_jax.model import registry

  skip = ("parent", "name", "num_classes")
  chosen = {"name": name, **options(registry.fusion_class(str(name)), skip)}
  if name == recipe.fusion:
    chosen.update(recipe.fusion_options)
  return ConfigDict(chosen)


def assign(config: Config, path: str, value: Any) -> None:
  """Sets the field at a path such as ``a.b.c``.

  A tuple of numbers may be a list or, as on the command line, ``1+2+3``.

  Raises:
    ValueError: the value has another type.
  """
  if path == class_weights.FIELD and isinstance(value, Mapping):
    value = class_weights.to_text(value)
  if path == hidden.FIELD and isinstance(value, Mapping):
    value = hidden.to_text(value)
  *parents, name = path.split(".")
  node = config
  for part in parents:
    node = node[part]
  kind, optional = node.get_type(name), node[name] is None
  if kind is tuple:
    value = _tuple(name, value)
  # Python counts bools as numbers, and ml_collections accepts None everywhere.
  wrong = not optional if value is None else isinstance(value, bool)
  try:
    if wrong and kind is not bool:
      raise TypeError
    node[name] = value
  except (TypeError, ValueError) as error:
    raise InputError(
      f"{name} must be of type {kind.__name__}, got {value!r}"
    ) from error


def _tuple(name: str, value: Any) -> Any:
  """``1+2+3``, a number or a list as a tuple; anything else as it is."""
  if isinstance(value, list):
    return tuple(value)
  if isinstance(value, bool) or not isinstance(value, str | int | float):
    return value
  try:
    parts = str(value).split("+")
    return tuple(int(x) if x.isdecimal() else float(x) for x in parts)
  except ValueError as error:
    raise InputError(
      f"{name} must be numbers joined by +, such as 1+0.5; got {value!r}"
    ) from error


def encoder(name: str, **changes: Any) -> dict[str, Any]:
  """The config of an encoder: its name and all options with defaults."""
  from dmg_jax.model import fine_tuning, precision, registry

  cls = registry.encoder_class(name)
  skip = ("parent", "name", "vocab_size")
  own = {**precision.filled(options(cls, skip)), **fine_tuning.OPTIONS}
  return {"name": name, **own, **changes}
