"""Figure 4: Grad-CAM over epochs for two rows, side by side.

Each line shows one modality of a test sample: the input, and for each row the
locations that support the class, after the first epoch and after a quarter,
half and all of training (``train.keep`` of the runs). Below a sample stands the
fused probability of that class. Pictures, spectrograms (time to the right,
frequency upward) and the middle frames of videos are shown; other modalities
are left out, and so is what a sample lacks. The samples are chosen at random by
``figure.seed``, or named by ``figure.samples``. Each row is represented by its
first finished seed.

The NPZ file has the unscaled maps, ``<row>/<modality>`` [epochs samples h w]
(videos: [.. t h w]); the CSV file has the predictions of the runs.

Deviations from the paper:

1. The paper does not say whose logit is explained; here it is that of the
   label, or the largest with ``figure.target=predicted``.
2. The paper shows one selected picture of Twitter2015 at the first, seventh and
   last epoch for CONCAT and its method; here samples are not hand-picked.
3. Each map is divided by its own largest value, as is usual. A map without
   positive entries has no colour.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipelines import core
from dmg_jax.errors import InputError, unknown
from dmg_jax.evaluation.metrics import softmax
from dmg_jax.figures import _panels, _samples, gradcam
from dmg_jax.figures._parts import Drawing, Grid, grids
from dmg_jax.figures._samples import Samples
from dmg_jax.model import registry
from dmg_jax.tables import cells
from dmg_jax.training import experiment, restore
from dmg_jax.training.experiment import Config, Setup

TARGETS = ("label", "predicted")


class Seen(NamedTuple):
  """Maps and predictions of one row.

  Attributes:
    row: name of the row.
    label: label of the row in the figure.
    seed: seed of the run.
    samples: the test samples.
    kinds: {modality: kind} of the modalities with maps.
    heat: {modality: [epochs n ... h w]}.
    probabilities: fused probabilities, [epochs n k].
    classes: names of the classes.
    notes: sentences on modalities that are left out.
  """

  row: str
  label: str
  seed: int
  samples: Samples
  kinds: dict[str, str]
  heat: dict[str, np.ndarray]
  probabilities: np.ndarray
  classes: tuple[str, ...]
  notes: list[str]

  @property
  def predicted(self) -> np.ndarray:
    """Index of the most probable class, [epochs n]."""
    return self.probabilities.argmax(axis=-1)

  def targets(self, target: str) -> np.ndarray:
    """Index of the class that is explained, [epochs n]."""
    if target == "predicted":
      return self.predicted
    return np.broadcast_to(self.samples.labels, self.predicted.shape)


def prepare(config: Config) -> None:
  """Checks the options and makes the runs keep checkpoints of shown epochs.

  Raises:
    ValueError: epochs, rows or samples cannot be shown.
    core.DataError: the data cannot be read.
  """
  options = config.figure
  if options.target not in TARGETS:
    raise unknown("figure.target", options.target, TARGETS)
  last = config.train.epochs
  for epoch in options.epochs:
    if not isinstance(epoch, int) or not 1 <= epoch <= last:
      raise InputError(
        f"figure.epochs must be whole numbers in [1, {last}], as in "
        f"(1, {last}); got {tuple(options.epochs)!r}"
      )
  for row in config.table.rows:
    fusion = config.rows[row].fusion.name
    if gradcam.joined_inside(fusion):
      raise InputError(
        f"row {row!r}: its fusion {fusion!r} exchanges information between "
        "encoders, but figure4 explains single encoders: choose other rows"
      )
  config.train.keep = tuple(sorted({*config.train.keep, *epochs(config)}))
  if ids(config):  # Checked before training, which takes long.
    _places(config, _dataset(config))


def epochs(config: Config) -> tuple[int, ...]:
  """The epochs that are shown, ascending."""
  if config.figure.epochs:
    return tuple(sorted(set(config.figure.epochs)))
  last = config.train.epochs
  return tuple(sorted({1, -(-last // 4), -(-last // 2), last}))


def ids(config: Config) -> list[str]:
  """Ids of the samples that were requested."""
  return [x.strip() for x in config.figure.samples.split(",") if x.strip()]


def draw(config: Config, workdir: Path) -> Drawing | None:
  """The figure from all finished runs; ``None`` if there are none.

  Raises:
    ValueError: a run lacks the checkpoint of an epoch, or no modality has maps.
    core.DataError: the data cannot be read.
  """
  grid = grids(config, workdir)[0]
  own = [_seen(config, grid, row) for row in grid.config.table.rows]
  seen = [one for one in own if one is not None]
  if not seen:
    return None
  notes = list(dict.fromkeys(note for one in seen for note in one.notes))
  panels = _lines_of(seen)
  if not panels:
    raise InputError(f"figure4 has nothing to show: {'; '.join(notes)}")
  target, shown = config.figure.target, epochs(config)
  columns = [_panels.PanelColumn(o.label, o.heat, o.kinds, _below(o, target))
             for o in seen]  # fmt: skip
  figure = _panels.draw(columns, shown, panels)
  lines = [line for one in seen for line in _lines(one, target, shown)]
  arrays = {f"{o.row}/{m}": x for o in seen for m, x in o.heat.items()}
  arrays["epochs"] = np.array(shown)
  arrays["samples"] = np.array(seen[0].samples.ids)
  return Drawing(figure, lines, notes, arrays)


def _seen(config: Config, grid: Grid, row: str) -> Seen | None:
  """Maps of a row's first finished seed; ``None`` if there is none yet."""
  own = [c for c in cells.finals(grid.config, grid.folder) if c.row == row]
  done = [c for c in own if cells.results(grid.config, c) is not None]
  if not done:
    return None
  changes = {**restore.changes(config), "loader": {"resident": "off"}}
  setup = restore.configured(done[0].folder, changes)
  samples = _samples.read(setup.dataset, _places(config, setup.dataset))
  why = {m: gradcam.without_maps(setup, m) for m in setup.problem.modalities}
  label = grid.config.rows[row].label
  states = restore.at_epochs(done[0].folder, setup, epochs(config))
  heat, probabilities = _explain(config, setup, samples, why, states)
  specs = setup.dataset.spec.modalities
  return Seen(
    row,
    label,
    done[0].seed,
    samples,
    {m: specs[m].kind for m in heat},
    heat,
    probabilities,
    setup.dataset.spec.classes,
    [f"{m} is left out: {reason}" for m, reason in why.items() if reason]
    + _coarse(heat)
    + _lacking(samples, heat),
  )


def _coarse(heat: dict[str, np.ndarray]) -> list[str]:
  """Notes on maps with a very low resolution."""
  return [
    f"{m}: maps of {x.shape[-2]} × {x.shape[-1]} have a very low resolution; "
    "use larger inputs, or an earlier stage by --config.figure.stage"
    for m, x in heat.items()
    if x.shape[-2] * x.shape[-1] < 9
  ]


def _lacking(samples: Samples, modalities: Iterable[str]) -> list[str]:
  """Notes on modalities that shown samples lack."""
  return [
    f"{m} is left out of sample {name}, which lacks it"
    for m in modalities
    for i, name in enumerate(samples.ids)
    if not samples.has(i, m)
  ]


def _explain(
  config: Config,
  setup: Setup,
  samples: Samples,
  why: dict[str, str],
  states: Iterable[Any],
) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Maps {modality: [epochs n ... h w]} and probabilities [epochs n k]."""
  stage, by_prediction = config.figure.stage, config.figure.target != "label"
  explain = {
    m: gradcam.explainer(setup, m, stage, by_prediction)
    for m, reason in why.items()
    if not reason
  }
  heat: dict[str, list[Any]] = {m: [] for m in explain}
  probabilities = []
  for state in states:
    # On one device, because these few samples cannot be sharded.
    state, logits = jax.device_get(state), None
    for m, function in explain.items():
      given = samples.inputs, samples.labels, samples.present
      found, logits = function(state, *given)
      heat[m].append(np.asarray(found))
    if logits is not None:
      probabilities.append(np.asarray(softmax(logits)))
  shape = (0, len(samples.ids), len(setup.dataset.spec.classes))
  stacked = np.stack(probabilities) if probabilities else np.zeros(shape)
  return {m: np.stack(x) for m, x in heat.items()}, stacked


def _places(config: Config, dataset: core.Dataset) -> list[int]:
  options = config.figure
  return _samples.choose(dataset, ids(config), options.count, options.seed)


def _dataset(config: Config) -> core.Dataset:
  """The data set, loaded with the method of the first row."""
  row = config.table.rows[0]
  method = registry.make_method(**config.rows[row].method.to_dict())
  return experiment.load(config, method)


def _below(one: Seen, target: str) -> np.ndarray:
  """Probability of the explained class, [epochs n]."""
  classes = one.targets(target)[..., None]
  return np.take_along_axis(one.probabilities, classes, axis=-1)[..., 0]


def _lines_of(seen: list[Seen]) -> list[_panels.PanelRow]:
  """One line per modality and sample, with pictures from a row that has it."""
  lines = []
  first = seen[0].samples
  kinds = {m: o for o in reversed(seen) for m in o.kinds}
  for i, name in enumerate(first.ids):
    label = seen[0].classes[int(first.labels[i])]
    own = {m: o for m, o in sorted(kinds.items()) if o.samples.has(i, m)}
    for m, one in own.items():
      picture = _samples.picture(one.samples.inputs[m][i], one.kinds[m])
      last = m == max(own)
      lines.append(_panels.PanelRow(i, m, name, label, picture, last))
  return lines


def _lines(one: Seen, target: str, shown: tuple[int, ...]) -> list[dict]:
  """Predictions of a row's run, one line per epoch and sample."""
  targets, below = one.targets(target), _below(one, target)
  return [
    {
      "row": one.row,
      "label": one.label,
      "seed": one.seed,
      "epoch": epoch,
      "sample": name,
      "class": one.classes[int(one.samples.labels[i])],
      "predicted": one.classes[int(one.predicted[e, i])],
      "explained": one.classes[int(targets[e, i])],
      "probability": float(below[e, i]),
    }
    for e, epoch in enumerate(shown)
    for i, name in enumerate(one.samples.ids)
    if len(one.probabilities)
  ]
