"""From a config to everything a run needs, checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import catalog, core
from data_pipelines.loader import Loader
from dmg_jax import build, classifier, evaluate, optim, sharding, steps
from dmg_jax.types import Apply, Batch, Method, Problem, TrainState

# A locked ConfigDict; checkers cannot know its fields.
Config = Any

SELECT = ("best", "last")
SPLITS = ("outer", "test", "train", "val")

# Field -> (lowest, highest), both allowed but for those in _OPEN.
_RANGES = {
  "seed": (0, 2**31 - 1),
  "seeds": (1, 10_000),
  "train.epochs": (1, 10**6),
  "train.batch_size": (1, 10**7),
  "train.outer_batch_size": (1, 10**7),
  "train.checkpoint_steps": (0, 10**9),
  "train.log_steps": (1, 10**9),
  "eval.batch_size": (1, 10**7),
  "optimiser.learning_rate": (0, 1e38),
  "optimiser.momentum": (0, 1),
  "optimiser.warmup_epochs": (0, 10**6),
  "optimiser.weight_decay": (0, 1e6),
  "optimiser.clip_norm": (0, 1e9),
}
# Fields that one of the bounds is not allowed for.
_OPEN = {
  "optimiser.learning_rate": 0,
  "optimiser.momentum": 1,
  "optimiser.clip_norm": 0,
}


def check(config: Config) -> Method:
  """Checks names and ranges, builds nothing large; returns the method.

  Raises:
    ValueError: the first thing that is wrong, with the choices.
  """
  for path, (low, high) in _RANGES.items():
    _check_range(path, _get(config, path), low, high, _OPEN.get(path))
  last = config.seed + config.seeds - 1
  _check_range("seed + seeds - 1", last, *_RANGES["seed"])
  for path, choices in (("train.select", SELECT), ("eval.split", SPLITS)):
    if _get(config, path) not in choices:
      raise build.unknown(path, str(_get(config, path)), choices)
  if _get(config, "optimiser.name") not in optim.OPTIMISERS:
    raise build.unknown("optimiser", config.optimiser.name, optim.OPTIMISERS)
  if config.optimiser.schedule not in optim.SCHEDULES:
    raise build.unknown("schedule", config.optimiser.schedule, optim.SCHEDULES)
  build.make_fusion(num_classes=2, **config.fusion.to_dict())
  for modality, options in config.encoders.items():
    _check_encoder(modality, options)
  evaluate.check_names(tuple(config.encoders))
  return build.make_method(**config.method.to_dict())


def _check_range(path, value, low, high, excluded=None) -> None:
  """``None`` means that the field is not set."""
  if value is None or (low <= value <= high and value != excluded):
    return
  left, right = (
    "(" if excluded == low else "[",
    ")" if excluded == high else "]",
  )
  raise ValueError(
    f"{path} must lie in {left}{low:g}, {high:g}{right}, got {value!r}"
  )


def _check_encoder(modality: str, options: Config) -> None:
  """Its name, its options' names, and sizes and probabilities."""
  cls = build.encoder_class(options.name)
  for name, value in options.items():
    # The default, which may be 0 or empty: as the architecture has it.
    unset = [f.default for f in dataclasses.fields(cls) if f.name == name]
    path = f"encoders.{modality}.{name}"
    if name == "dropout":
      _check_range(path, value, 0, 1, excluded=1)
    if name in ("features", "width", "widths") and value not in unset:
      sizes = value if isinstance(value, tuple | list) else (value,)
      if not sizes or not all(isinstance(x, int) and x > 0 for x in sizes):
        raise ValueError(
          f"{path} must be made of whole numbers of at least 1, got {value!r}"
        )
  build.make_encoder(**_with_vocabulary(options.to_dict(), 2))


def _get(config: Config, path: str) -> Any:
  for name in path.split("."):
    config = config[name]
  return config


def _with_vocabulary(options: dict[str, Any], size: int | None):
  """The data's number of words, or that of the weights, if larger."""
  cls = build.encoder_class(options["name"])
  if "vocab_size" not in {f.name for f in dataclasses.fields(cls)}:
    return options
  own = options.get("vocab_size", size)
  if size is not None and own < size:
    raise ValueError(
      f"the weights of encoder {options['name']!r} know {own} words, the data "
      f"have {size}: use the tokenizer that belongs to the weights"
    )
  return {**options, "vocab_size": own}


@dataclasses.dataclass(frozen=True)
class Setup:
  """A run, ready to be compiled: data, model, method, optimiser."""

  config: Config
  dataset: core.Dataset
  problem: Problem
  method: Method
  fresh: Callable[[], TrainState]
  apply: Apply
  place: Callable[[Batch], Batch]
  parameters: dict[str, int]
  # {modality: its encoder's name and options}, those of the weights filled in.
  encoders: dict[str, dict[str, Any]]
  # {modality: what was loaded of which weights}.
  pretrained: dict[str, str]

  def loader(self, split: str, batch_size: int, train: bool) -> Loader:
    """Batches of a split: shuffled and augmented, or in order and padded."""
    return Loader(
      self.dataset,
      split,
      batch_size,
      seed=self.config.seed,
      shuffle=train,
      augment=train,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def batches(self, split: str) -> Iterator[Batch]:
    """One pass over a split, on the devices."""
    size = self.config.eval.batch_size
    for batch in self.loader(split, size, train=False).padded():
      yield self.place(batch)


def assemble(config: Config) -> Setup:
  """Builds all that ``config`` names.

  Raises:
    ValueError: a name, value or combination that cannot work.
  """
  method = check(config)
  # Weights are found before the data are prepared, which may take hours.
  options = build.complete_encoders(config.encoders.to_dict())
  complete = ConfigDict({"encoders": options})
  dataset = load(config, method)
  spec = dataset.spec
  evaluate.check_names(tuple(spec.modalities))
  _check_batches(config, method, spec)
  encoders = {m: _encoder(complete, m, s) for m, s in spec.modalities.items()}
  model = build.make_classifier(
    encoders, config.fusion.to_dict(), len(spec.classes)
  )
  example = _example(spec)
  params, stats = classifier.init(model, example, jax.random.key(config.seed))
  params, stats, loaded = build.load_weights(encoders, params, stats)
  readout = build.readout(config.fusion.name)
  problem = classifier.bind(
    model, params, stats, example, spec.sizes["train"], readout
  )
  mesh = sharding.make_mesh(config.train.batch_size)
  init_opt, apply = _optimiser(config, problem, spec)

  def fresh() -> TrainState:
    own, own_stats = jax.tree.map(lambda x: x.copy(), (params, stats))
    state = steps.init_state(
      problem, method, own, own_stats, init_opt, config.seed
    )
    return sharding.replicate(mesh, state)

  return Setup(
    config=config,
    dataset=dataset,
    problem=problem,
    method=method,
    fresh=fresh,
    apply=apply,
    place=sharding.make_place(mesh),
    parameters=_count(params, problem),
    encoders=encoders,
    pretrained=loaded,
  )


def _check_batches(config, method, spec) -> None:
  """Every split has a batch, and every device a part of it."""
  drawn = {"train.batch_size": "train"}
  if method.outer_step is not None:
    drawn["train.outer_batch_size"] = method.outer_split
  for path, split in drawn.items():
    size, most = _get(config, path), spec.sizes[split]
    if size > most:
      raise ValueError(
        f"{path} must be at most {most}, the size of split {split!r}, got "
        f"{size}"
      )
  for path in (*drawn, "eval.batch_size"):
    sharding.make_mesh(_get(config, path))


def load(config: Config, method: Method) -> core.Dataset:
  """The data set with the modalities that the method is built with."""
  options = config.data.to_dict()
  name, folder = options.pop("name"), options.pop("dir")
  return catalog.dataset(name, folder, options, modalities=method.modalities)


def encoder_options(config: Config, modality: str, kind: str) -> Config:
  """The encoder of a modality: named like it, else like its kind.

  Raises:
    ValueError: the config has neither.
  """
  for key in (modality, kind):
    if key in config.encoders:
      return config.encoders[key]
  raise ValueError(
    f"no encoder for modality {modality!r} or its kind {kind!r}: the config "
    f"has encoders for {', '.join(config.encoders)}"
  )


def _encoder(config, modality, spec):
  options = encoder_options(config, modality, spec.kind).to_dict()
  return _with_vocabulary(options, spec.vocab_size)


def _example(spec: core.Spec) -> dict[str, np.ndarray]:
  return {
    m: np.zeros((2, *s.shape), s.dtype) for m, s in spec.modalities.items()
  }


def _optimiser(config, problem, spec):
  per_epoch = spec.sizes["train"] // config.train.batch_size
  o = config.optimiser
  rate = optim.learning_rate(
    o.schedule,
    o.learning_rate,
    config.train.epochs * per_epoch,
    o.warmup_epochs * per_epoch,
  )
  return optim.make(
    problem.owner,
    rate,
    name=o.name,
    momentum=o.momentum,
    weight_decay=o.weight_decay,
    clip_norm=o.clip_norm,
  )


def _count(params, problem) -> dict[str, int]:
  counts: dict[str, int] = {}
  for p, o in zip(
    jax.tree.leaves(params), jax.tree.leaves(problem.owner), strict=True
  ):
    counts[o] = counts.get(o, 0) + p.size
  return counts
