"""Builds everything that a run needs from its config, and checks it first."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import core
from data_pipelines.core import catalog, sequences
from data_pipelines.load.loader import Loader
from dmg_jax import processes
from dmg_jax.config import class_weights, compose
from dmg_jax.errors import InputError, unknown
from dmg_jax.evaluation import metrics
from dmg_jax.model import classifier, fine_tuning, own, precision, registry
from dmg_jax.training import optim, resident, sharding, steps, validation
from dmg_jax.training.inputs import accumulate
from dmg_jax.training.optim import Plateau
from dmg_jax.types import Apply, Batch, Method, Problem, TrainState

# A locked ConfigDict; checkers cannot know its fields.
Config = Any


@dataclasses.dataclass(frozen=True)
class Setup:
  """A run, ready to be compiled: data, model, method, optimiser."""

  config: Config
  dataset: core.Dataset
  problem: Problem
  method: Method
  # The state of a seed before the first step.
  start: Callable[[int], TrainState]
  apply: Apply
  mesh: jax.sharding.Mesh
  # As configured, but at most the size of the split; the inner batch is at
  # most the training batch.
  batch_size: int
  inner_batch_size: int
  outer_batch_size: int
  parameters: dict[str, int]
  # {modality: its encoder's name and options}, those of the weights filled in.
  encoders: dict[str, dict[str, Any]]
  # {modality: what was loaded of which weights}.
  pretrained: dict[str, str]
  # {modality: encoder of the user's own}.
  modules: dict[str, own.Own] = dataclasses.field(default_factory=dict)
  home: resident.Home | None = None
  plateau: Plateau | None = None
  # [k], weights of the classes in every cross-entropy.
  class_weights: np.ndarray | None = None
  # [n], by which training samples are drawn with replacement.
  chances: np.ndarray | None = None
  # Runs that share the machine, this one among them.
  runs: int = 1
  # What ``problem`` reads in place of ``dataset``, see ``inputs.features``.
  features: core.Dataset | None = None

  @property
  def trained(self) -> int:
    """Number of weights that are trained."""
    frozen = self.problem.frozen
    return sum(n for o, n in self.parameters.items() if o not in frozen)

  def fresh(self) -> TrainState:
    """The state before the first step."""
    return self.start(self.config.seed)

  def with_seed(self, seed: int, runs: int = 1) -> Setup:
    """The run of another seed, with the same data, model and method."""
    config: Config = ConfigDict(self.config.to_dict())
    config.update(seed=seed, seeds=1)
    return dataclasses.replace(self, config=config, runs=runs)

  @property
  def place(self) -> Callable[[Batch], Batch]:
    """Puts a batch on the devices."""
    return sharding.make_place(self.mesh)

  def loader(
    self,
    split: str,
    batch_size: int,
    *,
    shuffle: bool = False,
    chances: np.ndarray | None = None,
    augment: bool = False,
  ) -> Loader | resident.Resident:
    """Batches of a split.

    Args:
      split: one of the data set's.
      batch_size: over all processes together.
      shuffle: in a new order in each epoch.
      chances: with ``shuffle``, draws samples by these, see ``Loader``.
      augment: with the data set's training augmentation.
    """
    loader = Loader(
      self.features or self.dataset,
      split,
      batch_size,
      seed=self.config.seed,
      shuffle=shuffle,
      chances=chances,
      augment=augment,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      workers=self.workers,
    )
    return self.home.loader(loader, split) if self.home else loader

  @property
  def workers(self) -> int:
    """Processes that decode: as configured, or none for what is in memory."""
    workers = self.config.loader.workers
    if workers >= 0 or (self.features or self.dataset).cached("train"):
      return max(workers, 0)
    return max(((os.cpu_count() or 2) - 1) // self.runs, 1)

  def batches(self, split: str) -> Iterator[Batch]:
    """One pass over a split, on the devices."""
    size = self.config.eval.batch_size
    for batch in self.loader(split, size).padded():
      yield self.place(batch)


def with_modules(
  config: Config, modules: Mapping[str, Any] | None
) -> tuple[Config, dict[str, own.Own]]:
  """The config with encoders of the user's own entered, and those encoders.

  Args:
    config: of a run. One that has been trained with such encoders, as
      ``config.json`` holds it, must have been so with the same.
    modules: {modality: Flax module}, see ``own.wrap``.

  Raises:
    ValueError: what cannot be an encoder; or other modules than the run's.
  """
  encoders = {m: own.wrap(m, module) for m, module in (modules or {}).items()}
  for m, options in config.encoders.to_dict().items():
    if options["name"] == own.NAME and m not in encoders:
      raise own.missing(m, options)
  if not encoders:
    return config, encoders
  changed: Config = ConfigDict(config.to_dict())
  enter(changed, encoders)
  return changed, encoders


def enter(config: Config, encoders: Mapping[str, own.Own]) -> None:
  """Enters encoders of the user's own into a config, which may be locked."""
  with config.unlocked():
    for m, encoder in encoders.items():
      there = config.encoders[m].to_dict() if m in config.encoders else {}
      options = own.checked_options(m, encoder, there)
      config.encoders[m] = ConfigDict(options)


def assemble(
  config: Config,
  dataset: core.Dataset | None = None,
  encoders: Mapping[str, Any] | None = None,
) -> Setup:
  """Builds all that ``config`` names.

  Args:
    config: of the run.
    dataset: what ``config.data`` names, all modalities, if it is loaded.
    encoders: {modality: Flax module of the user's own}, see ``own.wrap``.

  Raises:
    ValueError: a name, value or combination that cannot work.
  """
  config, modules = with_modules(config, encoders)
  method = validation.check(config)
  complete = _completed(config)  # Before the data, which may take hours.
  dataset = _of_method(dataset, method) or load(config, method)
  spec = dataset.spec
  metrics.check_names(tuple(spec.modalities))
  balance = _balance(config, dataset)
  modules = _checked_modules(config, modules, method, spec)
  sizes = batch_sizes(config, method, spec)
  chosen = {m: _encoder(complete, m, s) for m, s in spec.modalities.items()}
  problem, parameters, draw, loaded, rates = _problem(
    config, chosen, modules, spec
  )
  mesh = sharding.make_mesh(sizes["batch_size"])
  per_epoch = spec.sizes["train"] // sizes["batch_size"]
  init_opt, apply = _optimiser(config, problem, per_epoch, rates)
  plateau = _plateau(config)
  place = functools.partial(sharding.put, mesh, how=config.sharding)
  return Setup(
    config=config,
    dataset=dataset,
    problem=problem,
    method=method,
    start=_start(problem, method, draw, init_opt, plateau, place),
    apply=apply,
    mesh=mesh,
    **sizes,
    parameters=parameters,
    encoders=chosen,
    modules=modules,
    pretrained=loaded,
    home=_home(config, dataset, mesh),
    plateau=plateau,
    **balance,
  )


def _balance(config, dataset) -> dict[str, Any]:
  """Weights of the classes and chances of the samples, if there are any."""
  given = config.train.class_weights
  even = config.train.sampler == "balanced"
  if not given and not even:
    return {}
  labels, classes = core.labels(dataset.sources["train"]), dataset.spec.classes
  counts = np.bincount(labels, minlength=len(classes))
  return {
    "class_weights": class_weights.resolve(given, classes, counts),
    "chances": class_weights.even_chances(labels) if even else None,
  }


def _start(
  problem, method, draw, init_opt, plateau, place
) -> Callable[[int], TrainState]:
  """``seed -> state`` before the first step, on the devices."""

  def start(seed: int) -> TrainState:
    params, stats = draw(seed)
    params = place(params)  # Before the moments, which lie likewise.
    state = steps.init_state(problem, method, params, stats, init_opt, seed)
    if plateau is not None:
      state = state.replace(plateau=plateau.start())
    return place(state)

  return start


def _problem(config, encoders, modules, spec):
  """The problem, its size, a seed's first weights, what was loaded, rates."""
  model = registry.make_classifier(
    encoders, config.fusion.to_dict(), len(spec.classes), modules
  )
  x, readout = _example(spec), registry.readout(config.fusion.name)
  init = classifier.make_init(model, x)
  params, stats, loaded = registry.load_weights(
    encoders, *init(config.seed), modules
  )
  first = classifier.freeze(params, stats, model.frozen)
  problem = classifier.bind(model, *first, x, spec.sizes["train"], readout)

  drawn = {config.seed: first}

  def draw(seed: int):
    """Weights and batch statistics, on buffers that nothing else holds."""
    made = drawn.pop(seed, None)
    if made is not None:
      return made
    made = registry.load_weights(encoders, *init(seed), modules)[:2]
    return classifier.freeze(*made, model.frozen)

  rates = fine_tuning.rates(problem.owner, encoders, model.encoders)
  return problem, _count(params), draw, loaded, rates


def _home(config, dataset, mesh) -> resident.Home | None:
  """Where the data live: on the accelerator, if they may and fit."""
  choice = config.loader.resident
  wanted = choice == "on" or (choice == "auto" and resident.fits(dataset))
  return resident.Home(dataset, mesh) if wanted else None


def batch_sizes(config, method, spec) -> dict[str, int]:
  """Samples of a batch, which every device gets a part of.

  Raises:
    ValueError: the devices cannot share it evenly.
  """
  splits = {"batch_size": "train", "outer_batch_size": method.outer_split}
  sizes = {}
  for name, split in splits.items():
    size, most = config.train[name], spec.sizes[split]
    if size > most:  # The largest of the split that the devices can share.
      shared = jax.device_count()
      if name == "batch_size":
        shared *= config.train.accumulate
      size = max(most - most % shared, 1)
    sizes[name] = size
  inner = min(config.train.inner_batch_size, sizes["batch_size"])
  sizes["inner_batch_size"] = inner
  for name, size in sizes.items():
    if name == "batch_size" or method.outer_step is not None:
      sharding.make_mesh(size)
  sharding.make_mesh(config.eval.batch_size)
  accumulate.check(sizes, config.train.accumulate, jax.device_count())
  return sizes


def load(config: Config, method: Method) -> core.Dataset:
  """The data set with the modalities that the method is built with."""
  options = config.data.to_dict()
  name, folder = options.pop("name"), options.pop("dir")
  return processes.in_turn(  # The first one prepares them.
    lambda: catalog.dataset(name, folder, options, modalities=method.modalities)
  )


def _of_method(
  dataset: core.Dataset | None, method: Method
) -> core.Dataset | None:
  """A data set that is loaded, with the modalities that a method takes."""
  if dataset is None or method.modalities is None:
    return dataset
  return dataset.select(method.modalities)


def encoder_options(
  config: Config, modality: str, kind: str, ragged: bool = False
) -> Config:
  """The encoder of a modality: named like it, else like its kind.

  A modality may be called like another kind, as ``text`` for arrays made from
  texts; then its kind comes first. If samples differ in length (``ragged``) and
  the encoder of the kind does not read such, it is that of ``sequence``.

  Raises:
    ValueError: the config has neither.
  """
  keys, names = [modality, kind], (*core.KINDS, compose.SEQUENCE)
  for key in reversed(keys) if modality in names else keys:
    if key not in config.encoders:
      continue
    found = config.encoders[key]
    if ragged and key == kind and not registry.reads_ragged(found.name):
      return config.encoders.get(compose.SEQUENCE, found)
    return found
  raise InputError(
    f"no encoder for modality {modality!r} or its kind {kind!r}: the config "
    f"has encoders for {', '.join(config.encoders)}"
  )


def _completed(config: Config) -> Config:
  """The encoders, with the options that their pretrained weights ask for."""
  given = {
    m: precision.chosen(options, config.precision, config.remat)
    for m, options in config.encoders.to_dict().items()
  }
  return ConfigDict({"encoders": registry.complete_encoders(given)})


def _check_encoders(config: Config, method: Method, spec: core.Spec) -> None:
  """Every encoder is that of a modality or a kind, or it is misspelt."""
  choices = (*spec.modalities, *core.KINDS, compose.SEQUENCE)
  for key in config.encoders:
    if key not in choices and method.modalities is None:  # All are loaded.
      raise unknown("modality or kind of an encoder", key, choices)


def _checked_modules(config, modules, method, spec):
  """Encoders of the user's own that the run has a modality for, traced."""
  _check_encoders(config, method, spec)
  inputs = _example(spec)
  for m in modules:
    if m not in inputs and method.modalities is None:
      raise unknown("modality of an own encoder", m, inputs)
  used = {m: encoder for m, encoder in modules.items() if m in inputs}
  for m, encoder in used.items():
    own.check(m, encoder, inputs[m])
  return used


def _encoder(config, modality, spec):
  found = encoder_options(config, modality, spec.kind, spec.ragged)
  options = found.to_dict()
  if options["name"] == own.NAME:
    return options
  registry.check_input(
    options["name"], modality, spec.kind, spec.shape, spec.ragged
  )
  return registry.with_vocabulary(options, spec.vocab_size)


def _example(spec: core.Spec) -> dict[str, Any]:
  """Inputs of two samples, the longest of their modality."""
  specs = spec.modalities
  return sequences.stacked(
    {m: [np.zeros(s.shape, s.dtype)] * 2 for m, s in specs.items()}, specs
  )


def _optimiser(config, problem, per_epoch, factors):
  o = config.optimiser
  rate = optim.learning_rate(
    o.schedule,
    o.learning_rate,
    config.train.epochs * per_epoch,
    o.warmup_epochs * per_epoch,
    {epoch * per_epoch: o.step.factor for epoch in o.step.epochs},
  )
  return optim.make(
    problem.owner,
    rate,
    name=o.name,
    momentum=o.momentum,
    weight_decay=o.weight_decay,
    clip_norm=o.clip_norm,
    frozen=problem.frozen,
    factors=factors,
  )


def _plateau(config) -> Plateau | None:
  if config.optimiser.schedule != "plateau":
    return None
  return Plateau(**config.optimiser.plateau.to_dict())


def _count(params) -> dict[str, int]:
  """{owner: entries of its weights}, those that are frozen among them."""
  counts: dict[str, int] = {}
  owner = classifier.owners(params)
  for p, o in zip(jax.tree.leaves(params), jax.tree.leaves(owner), strict=True):
    counts[o] = counts.get(o, 0) + p.size
  return counts
