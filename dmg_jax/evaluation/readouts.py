r"""The unimodal read-outs of a finished run, linear probe included.

A *read-out* is a way to obtain the prediction of a single modality from a fused
model; a linear probe is one of several. With features z_m, fused logits
:math:`o = F(z_1, \dots, z_M)` and the concat head
:math:`F = \sum_m W_m^\top z_m + b` as the example:

==========================  ==================================================
``own``                     the fusion's own. R1, split head:
                            :math:`W_m^\top z_m + b/M`; R2, own head:
                            :math:`U_m^\top z_m + c_m`; R5, shared head:
                            :math:`W^\top z_m + b`
``feature_ablation``, R3    :math:`F(0, \dots, z_m, \dots, 0)`; for concat
                            R1 :math:`+\, b\,(1 - 1/M)`
``input_ablation``, R4      :math:`F(z_1(0), \dots, z_m(x_m), \dots, z_M(0))`:
                            the other inputs are zero (pictures: mid-grey)
``linear_probe``            a new linear classifier on z_m, see ``probe``
==========================  ==================================================

What each read-out depends on:

- R1 and R3 use a head that was trained on the sum over modalities, so they can
  underrate an encoder. R3 includes the whole bias, which reflects the class
  frequencies; R1 includes a share of 1/M.
- R2 is as good as the loss that U_m was trained with.
- R4 runs the other encoders on zeros: their biases and BatchNorm statistics add
  the features of an input that never occurs, a constant, to every prediction.
- The probe is fitted to the labels of train: it measures what can be read from
  the features, not how the fused model uses them.
- If the encoders exchange information (``channel``), z_m does not depend on m
  alone: R2 and the probe see the others through the gates, R3 is left out, and
  only R4 shows m alone.

Where samples lack modalities, the scores of one count the samples that have it.
R3 and R4 apply the method's own prediction rule to the ablated features. The
entry ``fused`` of the result holds the fused prediction as ``own`` and a probe
on the concatenated features. Chance is the most frequent class of train.
Everything runs in evaluation mode, and the same run gives the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dmg_jax import processes
from dmg_jax.errors import InputError
from dmg_jax.evaluation import readout_scores
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.model import registry
from dmg_jax.report.tables.readouts import FILE, NAMES
from dmg_jax.tracking.logging import write_json
from dmg_jax.training import restore, run_folder
from dmg_jax.training.experiment import Setup
from dmg_jax.types import Batch, Method, Problem, TrainState

Arrays = dict[str, Any]
# ({modality: features kept}, {modality: input shown}), each 1 or 0.
Flags = tuple[dict[str, float], dict[str, float]]


def of_runs(
  folders: Sequence[Path],
  changes: Mapping[str, Any],
  encoders: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
  """All read-outs of runs, also written to ``readouts.json`` of each run.

  Args:
    folders: folders of single runs that differ only in their seeds.
    changes, encoders: as in ``restore.restore``.

  Yields:
    {"dataset", "recipe", "seed", "fusion", "samples", "names": {read-out: its
    name}, "scores": {"fused" or modality: {read-out: {"accuracy",
    "macro_f1", "balanced_accuracy"}}}, "chance": {the same scores}, "absent":
    {"fused" or modality: {read-out: reason}}, "notes"}. A probe also has
    ``strength``, ``val_accuracy`` and ``converged``.

  Raises:
    ValueError: a run is not finished, was not evaluated on test, or used other
      data.
  """
  for folder in folders:
    check_finished(folder)
  shared = restore.configured(folders[0], changes, encoders)
  step = make_step(shared.problem, shared.method)
  for folder in folders:
    run_folder.check_data(shared.dataset.fingerprint, folder)
    setup = shared.with_seed(restore.stored(folder)["config"]["seed"])
    yield of_run(folder, setup, restore.chosen(folder, setup), step)


def of_run(
  folder: Path, setup: Setup, state: TrainState, step: Callable[..., Arrays]
) -> dict[str, Any]:
  """The read-outs of one run, also written; arguments as ``read``."""
  made = read(setup, state, step)
  if processes.first():
    write_json(folder / FILE, made)
  return made


def check_finished(folder: Path) -> None:
  """Refuses a run that has no results on test.

  Raises:
    ValueError: it is not finished, or has ended on val.
  """
  path = folder / "results.json"
  if not path.exists():
    raise InputError(
      f"{folder} is not finished, and read-outs are evaluated on test: finish "
      "training it first"
    )
  if "test" not in json.loads(path.read_text(encoding="utf-8")):
    raise InputError(
      f"{folder} was not evaluated on test (eval.test=false), but read-outs "
      "are: train it with eval.test=true"
    )


def read(
  setup: Setup, state: TrainState, step: Callable[..., Arrays]
) -> dict[str, Any]:
  """The read-outs of a model, from one pass over each split."""
  config, spec = setup.config, setup.dataset.spec
  own = registry.readout(config.fusion.name)
  names = {**NAMES, "own": "own head" if own.startswith("R3") else own}
  talk = hasattr(registry.fusion_class(config.fusion.name), "encode")
  whole, *_ = variants = _variants(setup.problem.modalities)
  splits = {
    split: passes(step, state, setup.batches(split), which)
    for split, which in (
      ("train", {whole: variants[whole]}),
      ("val", {whole: variants[whole]}),
      ("test", variants),
    )
  }
  test, labels = splits["test"], splits["test"][whole]["labels"]
  found = readout_scores.of_heads(test, own, config.fusion.name, talk)
  found = readout_scores.merged(
    found,
    readout_scores.of_probes(
      {k: v[whole] for k, v in splits.items()}, setup.class_weights
    ),
  )
  good, absent = readout_scores.split(found)
  return {
    "dataset": spec.name,
    "recipe": config.recipe,
    "seed": config.seed,
    "fusion": config.fusion.name,
    "samples": len(labels),
    "names": names,
    "scores": good,
    "chance": readout_scores.chance(splits["train"][whole]["labels"], labels),
    "absent": absent,
    "notes": readout_scores.notes(setup.problem.modalities, own, talk, good),
  }


def _variants(modalities: Sequence[str]) -> dict[tuple[str, str], Flags]:
  """{(read-out, modality): flags}; the first entry is the whole model."""
  ones = dict.fromkeys(modalities, 1.0)
  made: dict[tuple[str, str], Flags] = {("own", FUSED): (ones, ones)}
  for m in modalities:
    alone = {j: float(j == m) for j in modalities}
    made["feature_ablation", m] = alone, ones
    made["input_ablation", m] = ones, alone
  return made


def make_step(problem: Problem, method: Method) -> Callable[..., Arrays]:
  """The jitted ``(params, stats, method state, batch, keep, shown) -> ..``.

  One compiled program serves every ablation: ``keep`` and ``shown`` are
  {modality: 1 or 0} for all samples. It returns ``fused`` and ``unimodal``
  logits, ``features`` and the batch's ``labels``, ``mask``, ``index`` and
  ``present``.
  """

  @jax.jit
  def step(params, stats, memory, batch: Batch, keep, shown):
    keep, shown = jax.tree.map(
      lambda x: x * jnp.ones_like(batch.mask), (keep, shown)
    )
    outputs, _ = problem.forward(
      params, stats, batch.inputs, None, False, batch.present, keep, shown
    )
    return {
      "fused": method.predict(outputs, memory),
      "unimodal": outputs.unimodal,
      "features": outputs.features,
      "labels": batch.labels,
      "mask": batch.mask,
      "index": batch.index,
      "present": batch.present or {},
    }

  return step


def passes(
  step: Callable[..., Arrays],
  state: TrainState,
  batches: Iterable[Batch],
  variants: Mapping[tuple[str, str], Flags],
) -> dict[tuple[str, str], Arrays]:
  """Outputs of ``step`` for each ablation, arrays [n ...] in sample order."""
  parts: dict[tuple[str, str], list[Arrays]] = {v: [] for v in variants}
  for batch in batches:
    for name, flags in variants.items():
      own = state.params, state.stats, state.method
      parts[name].append(processes.gather(step(*own, batch, *flags)))
  return {name: _joined(found) for name, found in parts.items()}


def _joined(parts: list[Arrays]) -> Arrays:
  whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
  real = whole["mask"] > 0
  order = np.argsort(whole["index"][real], kind="stable")
  return jax.tree.map(lambda x: x[real][order], whole)
