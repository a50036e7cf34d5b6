"""A config from defaults, a recipe and its keys.

``configs/<data set>.py:<recipe>[,key=value...]``: the first word is a recipe,
the keys are options of its method or one of ``SHORT``. A small ``batch_size``
also lowers the batches of the outer level and of evaluation. Some data sets
have a version for a laptop, ``quick=true``. ``encoder.image=resnet.ResNet``
chooses the encoder of a modality or a kind; its options are fields then:
``--config.encoders.image.depth=50``.

From Python, ``choice`` makes the same string from a recipe and values.

The registry of models is imported late, so that a misspelt recipe is reported
before jax is loaded.
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

from dmg_jax.config.defaults import DEFAULTS
from dmg_jax.config.recipes import RECIPES, Recipe
from dmg_jax.errors import InputError, unknown

# A ConfigDict; checkers cannot know its fields.
Config = Any

# What a recipe string may set besides its method's options: name -> path.
SHORT = {
  "seed": "seed",
  "seeds": "seeds",
  "vmap_seeds": "vmap_seeds",
  "epochs": "train.epochs",
  "batch_size": "train.batch_size",
  "learning_rate": "optimiser.learning_rate",
  "weight_decay": "optimiser.weight_decay",
  "schedule": "optimiser.schedule",
  "fusion": "fusion.name",
}
# Before a modality or kind: the key of its encoder.
ENCODER = "encoder."


class Choice(str):
  """A recipe with its keys, as ``get_config`` of a config file takes them.

  It is the string that stands behind the colon on the command line, and keeps
  the values that it was made of: they may hold commas.

  Attributes:
    recipe: its name.
    given: {key: value}.
  """

  recipe: str
  given: dict[str, Any]

  def __new__(cls, recipe: str, given: Mapping[str, Any]):
    """The string is made from both."""
    given = {k: _plain(v) for k, v in given.items()}
    pairs = [f"{k}={_text(v)}" for k, v in given.items()]
    made = super().__new__(cls, ",".join([recipe, *pairs]))
    made.recipe, made.given = recipe, given
    return made


def _plain(value: Any) -> Any:
  """A number of NumPy, which a search over parameters yields, as Python's."""
  return value.item() if hasattr(value, "item") else value


def _text(value: Any) -> str:
  """As it is written behind a recipe; ``value`` reads it."""
  return str(value).lower() if value in (True, False, None) else str(value)


def base(arg: str | None = "") -> Config:
  """A config without data set and recipe.

  Args:
    arg: the string after the colon, if it is to be checked at once: a recipe's
      name that is misspelt is told before the libraries are loaded.

  Raises:
    ValueError: no or an unknown recipe, or a part that is not ``key=value``.
  """
  if arg != "":
    parse(arg)
  return ConfigDict(copy.deepcopy(DEFAULTS))


def options(factory: Callable[..., Any], skip: tuple[str, ...] = ()) -> dict:
  """Keyword-only arguments of a function, or fields of a module, defaults.

  An option whose default is ``None`` becomes a typed placeholder.
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
  """``3``, ``.5``, ``true``, ``none`` as Python values, else the string."""
  words = {"true": True, "false": False, "none": None}
  if text.lower() in words:
    return words[text.lower()]
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def parse(arg: str | None) -> tuple[str, dict[str, Any]]:
  """``"lb,seeds=3"`` to ``("lb", {"seeds": 3})``.

  Raises:
    ValueError: no or an unknown recipe, or a part that is not ``key=value``.
  """
  if isinstance(arg, Choice):
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
  """``["a=1", "b=x"]`` to ``{"a": "1", "b": "x"}``, in that order.

  Raises:
    ValueError: a part that is not ``key=value``; it names what it is after.
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
  """The config with recipe and keys of ``arg`` set, locked.

  Args:
    config: of the data set.
    arg: the string after the colon.
    quick: {path: value} of the form for a laptop, which the key ``quick=true``
      asks for, e.g. ``{"train.epochs": 2}``; a dictionary replaces the whole
      of its path. Other keys of ``arg`` are set after it.

  Raises:
    ValueError: unknown recipe or key, or a value of another type, each with
      the choices.
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
      raise InputError(f"recipe {name!r} needs {key}=..., as {name},{key}=...")
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
  """Options of the method and ``SHORT`` ones; ``others`` are keys, too."""
  own = [k for k in config.method if k != "name"]
  for key, value in given.items():
    if key not in own and key not in SHORT:
      known = [*own, *SHORT, *others]
      known += [ENCODER + slot for slot in config.encoders]
      raise unknown(f"key of recipe {config.recipe!r}", key, known)
    path = f"method.{key}" if key in own else SHORT[key]
    assign(config, path, value)


def _choose_encoders(config: Config, given: dict[str, Any]) -> None:
  """Takes the encoders' keys out and sets what they name.

  One that can be told the number of its features takes that of the config's
  encoders, if it is the same for all: matching compares features. Those with
  none or 0 have what their network ends with.
  """
  sizes = {e.get("features") for e in config.encoders.values()} - {None, 0}
  for key in [k for k in given if k.startswith(ENCODER)]:
    slot = key.removeprefix(ENCODER)
    # A manifest's modalities are known to the file alone.
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


def _lower_batches(config: Config) -> None:
  """Batches that would take more memory than those of training."""
  most, train = 4 * config.train.batch_size, config.train
  train.outer_batch_size = min(train.outer_batch_size, most)
  config.eval.batch_size = min(config.eval.batch_size, most)


def _quicken(config: Config, wanted: Any, quick: Mapping[str, Any]) -> None:
  """Sets what differs in the form for a laptop, if it is wanted."""
  if not isinstance(wanted, bool):
    raise InputError(f"quick must be true or false, got {wanted!r}")
  for path, value in quick.items() if wanted else ():
    parent, _, name = path.rpartition(".")
    if isinstance(value, Mapping):
      config[parent][name] = ConfigDict(dict(value))
    else:
      assign(config, path, value)


def _fusion(recipe: Recipe, name: str) -> Config:
  """The fusion's name and options; those of the recipe are for its own."""
  from dmg_jax.model import registry

  skip = ("parent", "name", "num_classes")
  chosen = {"name": name, **options(registry.fusion_class(str(name)), skip)}
  if name == recipe.fusion:
    chosen.update(recipe.fusion_options)
  return ConfigDict(chosen)


def assign(config: Config, path: str, value: Any) -> None:
  """Sets the field ``a.b.c``.

  Raises:
    ValueError: a value of another type.
  """
  *parents, name = path.split(".")
  node = config
  for part in parents:
    node = node[part]
  kind, optional = node.get_type(name), node[name] is None
  # To Python a truth value is a number, and to ml_collections nothing fits all.
  wrong = not optional if value is None else isinstance(value, bool)
  try:
    if wrong and kind is not bool:
      raise TypeError
    node[name] = value
  except (TypeError, ValueError) as error:
    raise InputError(
      f"{name} must be of type {kind.__name__}, got {value!r}"
    ) from error


def encoder(name: str, **changes: Any) -> dict[str, Any]:
  """An encoder's config: its name and all options, defaults filled in."""
  from dmg_jax.model import registry

  cls = registry.encoder_class(name)
  skip = ("parent", "name", "vocab_size")
  return {"name": name, **options(cls, skip), **changes}
