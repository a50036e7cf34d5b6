"""Files of a trained run for others: encoders' weights, the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from data_pipelines import core
from data_pipelines.disk.faults import writing
from data_pipelines.transforms import preprocess
from dmg_jax.evaluation import metrics
from dmg_jax.model import classifier, own, registry
from dmg_jax.model.encoders import pretrained
from dmg_jax.model.encoders.pretrained import Pretrained
from dmg_jax.serving import predictor as predicting
from dmg_jax.serving import program, replaceable
from dmg_jax.training import experiment
from dmg_jax.types import TrainState


def check(folder: Path, setup: experiment.Setup) -> None:
  """Refuses a folder with other files where an export would write.

  Raises:
    ValueError: such files are there; the message names one.
  """
  replaceable.check_export(
    folder,
    setup.encoders,
    (pretrained.WEIGHTS, pretrained.CONFIG),
    (program.PROGRAM, program.FACTS),
    ("classes", "modalities", "outputs", "calling_convention"),
  )


def encoders(
  folder: Path, setup: experiment.Setup, state: TrainState
) -> list[str]:
  """Encoders as safetensors in ``folder/<modality>``; a sentence for each.

  Raises:
    WriteError: they cannot be written; of each there is all or nothing.
  """
  said = []
  for m, options in setup.encoders.items():
    if m in setup.modules:
      variables = classifier.encoder_variables(state.params, state.stats, m)
      with writing(folder / m, f"the encoder of {m}"):
        pretrained.write_tensors(folder / m, own.tensors(variables), options)
      said.append(f"written: {folder / m}")
      continue
    encoder = registry.make_encoder(**options)
    if not isinstance(encoder, Pretrained):
      said.append(f"not written: {m} ({options['name']} has no export)")
      continue
    variables = classifier.encoder_variables(state.params, state.stats, m)
    with writing(folder / m, f"the encoder of {m}"):
      pretrained.write(folder / m, encoder, variables)
    said.append(f"written: {folder / m}")
  return said


def predictor(
  folder: Path, setup: experiment.Setup, state: TrainState
) -> list[str]:
  """The whole model as ``program`` describes; sentences on what was done."""
  try:
    program.require()
  except ModuleNotFoundError as error:
    return [f"not written: {program.PROGRAM} ({error})"]
  config, spec = setup.config, setup.dataset.spec
  variables, function = predicting.model(setup, state)
  shapes = {m: (s.shape, s.dtype) for m, s in spec.modalities.items()}
  optional = list(predicting.may_lack(setup))
  buckets = {m: s.buckets for m, s in spec.modalities.items() if s.ragged}
  made, notes = program.lower(
    variables, function, shapes, config.eval.batch_size, optional, buckets
  )
  batch, steps = made.in_avals[0].shape[0], program.steps(made, buckets)
  facts = {
    "classes": list(spec.classes),
    "modalities": _modalities(setup.dataset, steps),
    **({"present": optional} if optional else {}),
    "outputs": [metrics.FUSED, *setup.problem.modalities],
    "batch": batch if isinstance(batch, int) else str(batch),
    "platforms": list(made.platforms),
    "notes": notes,
    "jax": jax.__version__,
    "calling_convention": made.calling_convention_version,
    "recipe": config.recipe,
    "dataset": spec.name,
    "readout": setup.problem.readout,
    "seed": config.seed,
    "step": int(state.step),
  }
  program.write(folder, made, facts)
  said = [f"written: {folder / program.PROGRAM}, {program.FACTS}"]
  return said + [f"predictor: {note}" for note in notes]


def _modalities(
  dataset: core.Dataset, steps: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
  """{modality: kind, shape, dtype, preprocessing}; null if it is not known.

  A ragged one has ``buckets`` and ``steps``, see ``program``.
  """
  made = {
    m: preprocess.describe(spec, dataset.preprocessing.get(m))
    for m, spec in dataset.spec.modalities.items()
  }
  for m, count in steps.items():
    made[m]["steps"] = count
  return made
