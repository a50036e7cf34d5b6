"""A single run of a work directory, restored when something of it is needed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.core.progress import quietly
from dmg_jax.errors import unknown
from dmg_jax.evaluation import contributions, metrics, readouts
from dmg_jax.serving import predictor
from dmg_jax.serving.predictor import Predictor
from dmg_jax.training import experiment, restore, run_folder
from dmg_jax.types import Batch, TrainState


class Opened:
  """Data, model and weights of a run; each is made once, on first use.

  Args:
    folder: of a single run.
    changes: {field of the config: other value}, nested.
    quiet: nothing is printed while data are prepared again.
    encoders: {modality: Flax module}, those of the user's own that the run was
      trained with.
    like: a run that differs from this one in its seed alone; data, model and
      compiled programs are shared with it.
  """

  def __init__(
    self,
    folder: Path,
    changes: Mapping[str, Any],
    quiet: bool = True,
    like: Opened | None = None,
    encoders: Mapping[str, Any] | None = None,
  ):
    self.folder, self.changes = folder, changes
    self._quiet, self._like, self._encoders = quiet, like, encoders

  @functools.cached_property
  def stored(self) -> dict[str, Any]:
    """Contents of ``config.json``."""
    return restore.stored(self.folder)

  @functools.cached_property
  def setup(self) -> experiment.Setup:
    """Data, model and method.

    Raises:
      ValueError: other data than those of the run.
      core.DataError: the data are not there or damaged.
    """
    if self._like is None:
      with quietly() if self._quiet else contextlib.nullcontext():
        return restore.configured(self.folder, self.changes, self._encoders)
    setup = self._like.setup
    run_folder.check_data(setup.dataset.fingerprint, self.folder)
    return setup.with_seed(self.stored["config"]["seed"])

  @functools.cached_property
  def state(self) -> TrainState:
    """The checkpoint that the run ends with.

    Raises:
      ValueError: there is none.
    """
    return restore.chosen(self.folder, self.setup)

  @functools.cached_property
  def predictor(self) -> Predictor:
    """The run as a function of new samples."""
    return predictor.of_run(self.setup, self.state)

  @functools.cached_property
  def _eval_step(self) -> Callable[..., Any]:
    if self._like is not None:
      return self._like._eval_step
    return metrics.make_eval_step(self.setup.problem, self.setup.method)

  @functools.cached_property
  def _readout_step(self) -> Callable[..., Any]:
    if self._like is not None:
      return self._like._readout_step
    return readouts.make_step(self.setup.problem, self.setup.method)

  def evaluation(self, split: str) -> metrics.Evaluation:
    """Metrics and probabilities of a split.

    Raises:
      ValueError: the data have no such split, with those that they have.
    """
    return metrics.evaluate(self._eval_step, self.state, self._batches(split))

  def _batches(self, split: str) -> Iterable[Batch]:
    sizes = self.setup.dataset.spec.sizes
    there = [s for s, size in sizes.items() if size]
    if split not in there:
      raise unknown("split", split, there)
    return self.setup.batches(split)

  @functools.cached_property
  def _subset_step(self) -> Callable[..., Any]:
    if self._like is not None:
      return self._like._subset_step
    return contributions.make_step(self.setup.problem, self.setup.method)

  def contributions(self, split: str) -> dict[str, Any]:
    """What each modality contributes on a split; raises as ``evaluation``."""
    names = self.setup.problem.modalities
    seen = contributions.look(
      self._subset_step,
      self.state,
      self._batches(split),
      names,
      contributions.most_frequent(self.setup.dataset),
    )
    return contributions.measures(seen, names)

  def readouts(self) -> dict[str, Any]:
    """As ``evaluation.readouts.of_run``."""
    readouts.check_finished(self.folder)
    return readouts.of_run(
      self.folder, self.setup, self.state, self._readout_step
    )
