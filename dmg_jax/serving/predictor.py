"""A trained run as a Python object: files and texts in, probabilities out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.manifest import faults, memory
from data_pipelines.manifest.unlabelled import ADVICE
from data_pipelines.transforms.preprocess import Preprocessor, of
from dmg_jax.errors import InputError
from dmg_jax.evaluation import metrics
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.serving import prediction_table, program
from dmg_jax.training import experiment
from dmg_jax.types import TrainState

Arrays = Mapping[str, np.ndarray]
# {modality: [b ...]} -> {"fused" or modality: [b k]}
Function = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Probabilities of n samples.

  Attributes:
    classes: names, in order of the probabilities.
    probabilities: {"fused" or modality: float [n k]}, rows sum to 1.
    ids: of the samples, if they have any.
    targets: names of the right classes, if they were given.
    notes: on samples without an id, and on ids that several have.

  Example:

    >>> import dmg_jax, numpy as np
    >>> p = np.array([[0.2, 0.8], [0.6, 0.4]])
    >>> dmg_jax.Prediction(("cat", "dog"), {"fused": p}).labels
    ['dog', 'cat']
  """

  classes: tuple[str, ...]
  probabilities: dict[str, np.ndarray]
  ids: Sequence[str] | None = None
  targets: Sequence[str] | None = None
  notes: tuple[str, ...] = ()

  @property
  def labels(self) -> list[str]:
    """Name of the class with the largest fused probability, [n]."""
    best = self.probabilities[FUSED].argmax(axis=-1)
    return [self.classes[int(i)] for i in best]

  def write(self, path: str | Path) -> None:
    """Writes a table, CSV or Parquet by the ending: a row a sample.

    Raises:
      ValueError: another ending.
      ModuleNotFoundError: Parquet without pyarrow.
    """
    path = Path(path).expanduser()
    prediction_table.check(path)
    count = len(self.probabilities[FUSED])
    ids = self.ids or [str(i + 1) for i in range(count)]
    prediction_table.write(
      path, ids, self.targets, self.probabilities, self.classes
    )


class Predictor:
  """Preprocessing and model of a run.

  Attributes:
    classes: names.
    preprocessors: {modality: its preprocessing}; ``.spec.kind`` is its kind.
    batch_size: samples that go through the model at once, at most.

  Example:

    >>> import dmg_jax, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(24, 3))
    >>> y = np.where(x[:, 0] > 0, "up", "down")
    >>> run = dmg_jax.fit({"sensor": x}, y, recipe="joint", epochs=1)
    >>> predictor = run.predictor  # As dmg_jax.load of an export returns it.
    >>> predictor.classes
    ('down', 'up')
    >>> predictor.preprocessors["sensor"](x[0]).shape
    (3,)
  """

  def __init__(
    self,
    classes: Sequence[str],
    preprocessors: Mapping[str, Preprocessor],
    function: Function,
    batch_size: int,
    fixed: bool = False,
  ):
    """``fixed``: the function takes batches of ``batch_size`` alone."""
    self.classes = tuple(classes)
    self.preprocessors = dict(preprocessors)
    self._function, self.batch_size = function, batch_size
    self._fixed = fixed

  def predict(self, inputs: Mapping[str, Any]) -> Prediction:
    """Probabilities of samples, preprocessed as the run's own.

    Args:
      inputs: {modality: a list, one entry per sample}: texts, paths of files,
        or arrays (``Preprocessor.__call__`` says which).

    Raises:
      ValueError: a modality is missing or unknown, or lists differ in length.
      core.DataError: entries that cannot be used, all of them.
    """
    self._check(inputs)
    arrays, problems = {}, []
    for m, preprocessor in self.preprocessors.items():
      found = []
      for i, value in enumerate(inputs[m]):
        try:
          found.append(preprocessor(value))
        except ValueError as error:
          column = f"{m}:{preprocessor.spec.kind}"
          problems.append(faults.Fault(i + 1, column, str(error)))
      arrays[m] = found
    if problems:
      raise faults.failure("the inputs", problems, ADVICE, memory.COUNTED)
    size = self.batch_size
    total = len(next(iter(arrays.values())))
    return self.run(
      {m: np.stack(x[i : i + size]) for m, x in arrays.items()}
      for i in range(0, total, size)
    )

  def run(self, batches: Iterable[Arrays]) -> Prediction:
    """Probabilities of preprocessed batches, each at most ``batch_size``."""
    parts = [self._run(batch) for batch in batches]
    heads = parts[0] if parts else dict.fromkeys((FUSED, *self.preprocessors))
    none = np.zeros((0, len(self.classes)), np.float32)
    return Prediction(
      self.classes,
      {h: np.concatenate([none, *(p[h] for p in parts)]) for h in heads},
    )

  def _run(self, batch: Arrays) -> dict[str, np.ndarray]:
    """Padded to a power of two, so that few programs are compiled."""
    count = len(next(iter(batch.values())))
    size = min(1 << (count - 1).bit_length(), self.batch_size)
    size = self.batch_size if self._fixed else size
    padded = {
      m: np.concatenate([x, np.zeros((size - count, *x.shape[1:]), x.dtype)])
      for m, x in batch.items()
    }
    made = self._function(padded)
    heads = (FUSED, *(h for h in made if h != FUSED))
    return {h: np.asarray(made[h])[:count] for h in heads}

  def _check(self, inputs: Mapping[str, Any]) -> None:
    known = self.preprocessors
    wanted = ", ".join(f"{m} ({p.spec.kind})" for m, p in known.items())
    if set(inputs) != set(known):
      raise InputError(
        f"the run's modalities are {wanted}; got {', '.join(inputs) or 'none'}"
      )
    for m, values in inputs.items():
      if isinstance(values, str | bytes | Path):
        raise InputError(f"{m} must be a list with one entry per sample")
    lengths = {m: len(values) for m, values in inputs.items()}
    if len(set(lengths.values())) > 1:
      shown = ", ".join(f"{m!r} has {n}" for m, n in lengths.items())
      raise InputError(f"all columns must have as many rows: {shown}")


def of_run(setup: experiment.Setup, state: TrainState) -> Predictor:
  """The predictor of a restored run, on one device.

  Raises:
    ValueError: its data set does not say how new samples are made.
  """
  variables, function = model(setup, state)
  compiled = jax.jit(function)
  placed = jax.device_put(variables, jax.devices()[0])
  return Predictor(
    setup.dataset.spec.classes,
    of(setup.dataset),
    lambda inputs: compiled(placed, inputs),
    setup.config.eval.batch_size,
  )


def model(
  setup: experiment.Setup, state: TrainState
) -> tuple[Any, Callable[[Any, Mapping[str, Any]], dict[str, Any]]]:
  """Variables on the host, and the pure ``(variables, inputs) -> {head: p}``.

  A head is ``fused`` or a modality; p [b k] are softmax probabilities.
  """
  problem, method = setup.problem, setup.method

  def function(variables, inputs):
    params, stats, memory = variables
    inputs = jax.tree.map(jnp.asarray, dict(inputs))
    outputs, _ = problem.forward(params, stats, inputs, None, False)
    heads = {FUSED: method.predict(outputs, memory), **outputs.unimodal}
    return jax.tree.map(metrics.softmax, heads)

  return jax.device_get((state.params, state.stats, state.method)), function


def load(folder: Path, batch_size: int | None = None) -> Predictor:
  """The predictor that ``export`` wrote into a folder.

  Args:
    folder: with ``program.FACTS`` in it.
    batch_size: samples that go through the model at once, at most; one that
      the program fixes comes first.

  Raises:
    ValueError: the files are damaged.
  """
  facts, function = program.read(folder)
  fixed = facts["batch"] if isinstance(facts["batch"], int) else 0
  own = {m: Preprocessor.from_json(s) for m, s in facts["modalities"].items()}
  size = fixed or batch_size or _BATCH
  return Predictor(facts["classes"], own, function, size, bool(fixed))
