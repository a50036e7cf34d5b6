"""Checks of a config before any work is done."""

from __future__ import annotations

import dataclasses
from typing import Any

from data_pipelines.core import hidden
from dmg_jax.config import class_weights
from dmg_jax.errors import InputError, UnsuitableError, unknown
from dmg_jax.evaluation import metrics, selection
from dmg_jax.model import fine_tuning, own, precision, registry
from dmg_jax.tracking import trackers
from dmg_jax.training import optim, sharding
from dmg_jax.training.optim import Plateau
from dmg_jax.types import Method

# A locked ConfigDict; checkers cannot know its fields.
Config = Any

SELECT = ("best", "last")
SAMPLERS = ("balanced", "shuffle")
SPLITS = ("outer", "test", "train", "val")
AUTO = ("auto", "off", "on")
_SIZES = ("features", "width", "widths", "blocks", "hidden", "types")
DTYPES = ("", "bfloat16", "float16", "float32")

# Field -> (lowest, highest), both allowed but for those in _OPEN.
_RANGES = {
  "seed": (0, 2**31 - 1),
  "seeds": (1, 10_000),
  "train.epochs": (1, 10**6),
  "train.batch_size": (1, 10**7),
  "train.accumulate": (1, 10**6),
  "train.steps_per_execution": (1, 10**4),
  "train.inner_batch_size": (1, 10**7),
  "train.outer_batch_size": (1, 10**7),
  "train.checkpoint_steps": (0, 10**9),
  "train.log_steps": (1, 10**9),
  "train.modality_dropout": (0, 1),
  "eval.batch_size": (1, 10**7),
  "data.drop_seed": (0, 2**31 - 1),
  "loader.workers": (-1, 1000),
  "optimiser.learning_rate": (0, 1e38),
  "optimiser.momentum": (0, 1),
  "optimiser.warmup_epochs": (0, 10**6),
  "optimiser.weight_decay": (0, 1e6),
  "optimiser.clip_norm": (0, 1e9),
}
# Fields that one of the bounds is not allowed for.
_OPEN = {
  "train.modality_dropout": 1,
  "optimiser.learning_rate": 0,
  "optimiser.momentum": 1,
  "optimiser.clip_norm": 0,
}


def check(config: Config) -> Method:
  """Checks names and ranges, builds nothing large; returns the method.

  Raises:
    ValueError: the first thing that is wrong, with the choices.
    ModuleNotFoundError: the package of ``track`` is missing.
  """
  for path, (low, high) in _RANGES.items():
    _check_range(path, get(config, path), low, high, _OPEN.get(path))
  last = config.seed + config.seeds - 1
  _check_range("seed + seeds - 1", last, *_RANGES["seed"])
  _check_keep(config.train.get("keep", ()))
  for path, choices in (
    ("train.select", SELECT),
    ("train.select_by", tuple(selection.NAMES)),
    ("train.sampler", SAMPLERS),
    ("eval.split", SPLITS),
    ("loader.resident", AUTO),
    ("vmap_seeds", AUTO),
    ("report", ("on", "off")),
    (precision.FIELD, tuple(precision.PRECISIONS)),
    ("sharding", sharding.HOW),
    ("track", ("", *trackers.TRACKERS)),
  ):
    if get(config, path) not in choices:
      shown = [c or "'' (none)" for c in choices]
      raise unknown(path, str(get(config, path)), shown)
  trackers.require(config.track)
  if get(config, "optimiser.name") not in optim.OPTIMISERS:
    raise unknown("optimiser", config.optimiser.name, optim.OPTIMISERS)
  if config.optimiser.schedule not in optim.SCHEDULES:
    raise unknown("schedule", config.optimiser.schedule, optim.SCHEDULES)
  Plateau(**config.optimiser.plateau.to_dict())
  if config.optimiser.schedule == "step":
    optim.check_step(**config.optimiser.step.to_dict())
  registry.make_fusion(num_classes=2, **config.fusion.to_dict())
  for modality, options in config.encoders.items():
    _check_encoder(modality, options)
  metrics.check_names(tuple(config.encoders))
  class_weights.parse(config.train.class_weights)
  hidden.rates(config.data.get("drop", ""))
  hidden.splits_of(config.data.get("drop_splits", ""))
  method = registry.make_method(**config.method.to_dict())
  _check_sampler(config, method)
  return method


def _check_sampler(config, method: Method) -> None:
  """A method with an order of its own leaves none to a sampler."""
  if config.train.sampler != "shuffle" and method.order is not None:
    raise UnsuitableError(
      f"{config.method.name} chooses the order of its samples itself, so "
      f"train.sampler={config.train.sampler} cannot: leave it at shuffle, or "
      "set train.class_weights instead"
    )


def _check_range(path, value, low, high, excluded=None) -> None:
  """Raises if the value is outside; ``None`` is a field that is not set."""
  if value is None or (low <= value <= high and value != excluded):
    return
  left, right = (
    "(" if excluded == low else "[",
    ")" if excluded == high else "]",
  )
  raise InputError(
    f"{path} must lie in {left}{low:g}, {high:g}{right}, got {value!r}"
  )


def _check_keep(epochs: Any) -> None:
  """Epochs whose checkpoint is not deleted; old configs have none."""
  counts = [isinstance(e, int) and e > 0 for e in epochs]
  if not all(counts):
    raise InputError(
      "train.keep must be a list of epochs, whole numbers from 1 on, as in "
      f"(1, 10), got {tuple(epochs)!r}"
    )


def _check_encoder(modality: str, options: Config) -> None:
  """Its name, its options' names, and sizes and probabilities."""
  _check_fine_tuning(modality, options)
  if options.name == own.NAME:
    return  # A module of the user's own: its options are the user's, too.
  fields = dataclasses.fields(registry.encoder_class(options.name))
  defaults = {f.name: f.default for f in fields}
  for name, value in options.items():
    path = f"encoders.{modality}.{name}"
    if name == "dropout":
      _check_range(path, value, 0, 1, excluded=1)
    if name == "dtype":
      _check_dtype(path, value)
    # If 0 or none is the default, it means the architecture's own size.
    sized = name in _SIZES
    if sized and (value or defaults.get(name)):
      sizes = value if isinstance(value, tuple | list) else (value,)
      if not sizes or not all(isinstance(x, int) and x > 0 for x in sizes):
        raise InputError(
          f"{path} must be made of whole numbers of at least 1, got {value!r}"
        )
  complete = precision.chosen(options.to_dict(), "float32", False)
  registry.make_encoder(**registry.with_vocabulary(complete, 2))


def _check_fine_tuning(modality: str, options: Config) -> None:
  """How the encoder is trained, see ``fine_tuning``."""
  given, path = fine_tuning.of(options.to_dict()), f"encoders.{modality}"
  if not isinstance(given["frozen"], bool):
    raise InputError(
      f"{path}.frozen must be true or false, got {given['frozen']!r}"
    )
  if given["learning_rate_scale"] == 0:
    raise InputError(
      f"{path}.learning_rate_scale must be more than 0: set {path}.frozen=true "
      "for an encoder that is not trained"
    )
  for name, most in (("learning_rate_scale", 1e6), ("layer_decay", 1)):
    _check_range(f"{path}.{name}", given[name], 0, most, excluded=0)
    if given["frozen"] and given[name] != 1:
      raise InputError(
        f"{path} is frozen and so has no learning rate: leave {name} at 1, or "
        f"set {path}.frozen=false"
      )
  names = [] if options.name == own.NAME else [options.name]
  if given["layer_decay"] != 1 and not _with_layers(names):
    raise InputError(
      f"{path}.layer_decay is for transformers, and {options.name} has no "
      "layers: leave it at 1, or choose one of "
      + ", ".join(_with_layers(registry.encoders()))
    )


def _with_layers(names: list[str]) -> list[str]:
  """Those encoders whose layers can have rates of their own."""
  hook = fine_tuning.HOOK
  return [n for n in names if hasattr(registry.encoder_class(n), hook)]


def _check_dtype(path: str, name: Any) -> None:
  if name not in DTYPES:
    shown = [d or "'' (as precision)" for d in DTYPES]
    raise unknown(path, str(name), shown)


def get(config: Config, path: str) -> Any:
  """The field ``a.b.c`` of a config."""
  for name in path.split("."):
    config = config[name]
  return config
