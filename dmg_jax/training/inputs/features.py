"""Features of frozen encoders, computed once instead of in every step.

A frozen encoder gives a sample the same features in every step, as long as
nothing random comes before it. A run then computes them once for each split,
batch by batch on the devices, and trains on a data set that has features in
place of the inputs, with a model that passes them on. The state is that of the
whole model, so checkpoints and everything that reads them are the same.

Results are those without the cache up to rounding: the encoder is compiled by
itself, and for batches of another size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from data_pipelines import core
from data_pipelines.core import featured
from dmg_jax import processes
from dmg_jax.model import classifier, registry
from dmg_jax.training import experiment, resident
from dmg_jax.training.checkpoint import Checkpoints
from dmg_jax.training.experiment import Setup
from dmg_jax.types import Problem, TrainState

LIMIT = core.CACHE_BYTES  # Bytes of all features that a run may keep.

Note = Callable[[str], None]


class _Given(nn.Module):
  """Features that have been computed before."""

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    del train
    return x


class Cache:
  """Runs of one config on features; all share one problem.

  Args:
    setup: of any of the runs.
    note: told what is cached and what is not, once.
  """

  def __init__(self, setup: Setup, note: Note):
    self._setup, self._problem = setup, None
    self.modalities, said = chosen(setup)
    for line in said:
      note(line)
    self._note = note

  def of(self, setups: Sequence[Setup], folder: Path, step: int) -> list[Setup]:
    """The runs on features, where their encoders are frozen.

    Args:
      setups: a single run; several at once have each their own weights, and are
        returned as they are.
      folder: of the run.
      step: of its checkpoint to go on from, or 0.
    """
    if not self.modalities:
      return list(setups)
    if len(setups) > 1:
      self._note(
        "features of frozen encoders are not cached: seeds are trained at once "
        "and differ in their weights (vmap_seeds=off caches them)"
      )
      return list(setups)
    return [self._on_features(setups[0], folder, step)]

  def _on_features(self, setup: Setup, folder: Path, step: int) -> Setup:
    fresh = setup.fresh()
    state = fresh
    if step:
      score = setup.config.train.select_by
      checkpoints = Checkpoints(folder, score=score, readonly=True)
      state = checkpoints.restore(step, fresh)
      checkpoints.close()
    data = compute(setup, state, self.modalities)
    if self._problem is None:
      self._problem = bound(setup, state, self.modalities, data)
    where = resident.Home(data, setup.mesh) if setup.home is not None else None
    return dataclasses.replace(
      setup,
      problem=self._problem,
      features=data,
      home=where,
      start=_first(fresh, setup),
    )


def _first(fresh: TrainState, setup: Setup) -> Callable[[int], TrainState]:
  """``setup.start`` that does not draw again what has been drawn."""
  drawn = {setup.config.seed: fresh}

  def start(seed: int) -> TrainState:
    return drawn.pop(seed, None) or setup.start(seed)

  return start


def chosen(setup: Setup) -> tuple[tuple[str, ...], list[str]]:
  """The modalities whose features are cached, and sentences on the frozen."""
  frozen, why = setup.problem.frozen, {}
  if not frozen:
    return (), []
  for m in frozen:
    reason = _obstacle(setup, m)
    if reason:
      why.setdefault(reason, []).append(m)
  kept = [m for m in frozen if not any(m in ms for ms in why.values())]
  size = sum(setup.dataset.spec.sizes.values()) * sum(
    4 * setup.problem.sizes[m] for m in kept
  )
  if size > LIMIT:
    reason = f"they take {size / 2**30:.1f} GiB, more than {LIMIT / 2**30:g}"
    why[reason], kept = kept, []
  said = [
    f"features of the frozen encoder of {', '.join(ms)} are computed in every "
    f"step: {reason}"
    for reason, ms in why.items()
  ]
  if kept:
    said.append(
      f"features of the frozen encoder of {', '.join(kept)} are computed once: "
      f"{size / 2**20:.3g} MiB"
    )
  return tuple(kept), said


def _obstacle(setup: Setup, modality: str) -> str:
  """Why features of a modality cannot be cached; empty if they can."""
  spec = setup.dataset.spec.modalities[modality]
  fusion = registry.fusion_class(setup.config.fusion.name)
  if modality in setup.dataset.augment:
    return "its samples are augmented at random"
  if hasattr(fusion, "encode"):
    return f"the fusion {setup.config.fusion.name} reads inside the encoder"
  if setup.method.ablates_inputs:
    return f"{setup.config.method.name} ablates inputs"
  if spec.ragged:
    return "its samples differ in length"
  return ""


def compute(
  setup: Setup, state: TrainState, modalities: Sequence[str]
) -> core.Dataset:
  """The data set of a run with the features of these modalities.

  Args:
    setup: of the run, on its inputs.
    state: with the weights of the frozen encoders.
    modalities: of frozen encoders.
  """
  encode = _encoder(setup, modalities)
  own = {
    m: classifier.encoder_variables(state.params, state.stats, m)
    for m in modalities
  }
  specs = setup.dataset.spec.modalities
  optional = [m for m in modalities if specs[m].optional]
  features, present = {}, {}
  for split in setup.dataset.sources:
    if split == "test" and not setup.config.eval.test:
      continue
    found = {m: [] for m in modalities}
    there = {m: [] for m in optional}
    for batch in setup.batches(split):
      inputs = {m: batch.inputs[m] for m in modalities}
      made = encode(own, inputs), batch.present or {}, batch.mask
      z, masks, mask = processes.gather(made)
      real = mask > 0
      for m in modalities:
        rows = z[m][real]
        if m in masks:
          rows = np.where(masks[m][real][:, None] > 0, rows, 0)
        found[m].append(rows.astype(z[m].dtype))
      for m in optional:
        there[m].append(masks[m][real])
    features[split] = {m: np.concatenate(x) for m, x in found.items()}
    present[split] = {m: np.concatenate(x) for m, x in there.items()}
  return featured.replaced(_rest(setup, modalities), features, present)


def _rest(setup: Setup, modalities: Sequence[str]) -> core.Dataset:
  """The data set; if it decodes samples, without decoding these modalities."""
  data = setup.dataset
  others = tuple(m for m in data.spec.modalities if m not in modalities)
  if not others or data.cached("train"):
    return data
  method = dataclasses.replace(setup.method, modalities=others)
  sources = experiment.load(setup.config, method).sources
  return dataclasses.replace(data, sources=sources)


def _encoder(setup: Setup, modalities: Sequence[str]) -> Callable[..., Any]:
  """The compiled ``({modality: variables}, inputs) -> {modality: [b d]}``."""
  made = {
    m: setup.modules[m]
    if m in setup.modules
    else registry.make_encoder(**setup.encoders[m])
    for m in modalities
  }

  @jax.jit
  def encode(variables: Mapping[str, Any], inputs: Mapping[str, Any]):
    return {m: e.apply(variables[m], inputs[m], False) for m, e in made.items()}

  return encode


def bound(
  setup: Setup,
  state: TrainState,
  modalities: Sequence[str],
  data: core.Dataset,
) -> Problem:
  """The problem on features; states fit it and that of the setup alike."""
  config, spec = setup.config, setup.dataset.spec
  model = registry.make_classifier(
    setup.encoders, config.fusion.to_dict(), len(spec.classes), setup.modules
  )
  encoders = {**model.encoders, **{m: _Given() for m in modalities}}
  return classifier.bind(
    model.clone(encoders=encoders),
    state.params,
    state.stats,
    {
      m: np.zeros((2, *s.shape), s.dtype)
      for m, s in data.spec.modalities.items()
    },
    setup.problem.samples,
    setup.problem.readout,
  )
