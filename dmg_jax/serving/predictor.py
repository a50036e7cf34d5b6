"""A trained run as a Python object: files and texts in, probabilities out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.manifest import cells, faults, memory, rows
from data_pipelines.manifest.unlabelled import advice
from data_pipelines.transforms.preprocess import Preprocessor, of
from dmg_jax import missing
from dmg_jax.errors import InputError
from dmg_jax.evaluation import metrics
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.serving import batching, prediction_table, program
from dmg_jax.training import experiment
from dmg_jax.types import TrainState

# What ``batching.given`` makes -> {"fused" or modality: [b k]}
Function = Callable[[Mapping[str, Any]], Mapping[str, Any]]
_BATCH = 256


@dataclasses.dataclass(frozen=True)
class Prediction:
  """Probabilities of n samples.

  Attributes:
    classes: names, in order of the probabilities.
    probabilities: {"fused" or modality: float [n k]}, rows sum to 1. A
      modality's own are NaN where the sample lacks it; fused ones never are.
    ids: of the samples, if they have any.
    targets: names of the right classes, if they were given.
    notes: on samples without an id, and on ids that several have.
    missing: modalities that each sample lacks, [n]; ``None`` if the run knows
      no sample that lacks one.

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
  missing: Sequence[tuple[str, ...]] | None = None

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
      path, ids, self.targets, self.probabilities, self.classes, self.missing
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
    steps: batching.Steps | None = None,
  ):
    """What the function is bound to.

    Args:
      classes: names.
      preprocessors: {modality: its preprocessing}.
      function: of what ``batching.given`` makes.
      batch_size: samples at once, at most.
      fixed: whether it takes batches of ``batch_size`` alone.
      steps: {ragged modality: which numbers of steps it takes}.
    """
    self.classes = tuple(classes)
    self.preprocessors = dict(preprocessors)
    self._function, self.batch_size = function, batch_size
    self._fixed, self._steps = fixed, dict(steps or {})
    self._specs = {m: p.spec for m, p in self.preprocessors.items()}

  @property
  def optional(self) -> tuple[str, ...]:
    """The modalities that samples may lack, but not all of them."""
    return tuple(m for m, s in self._specs.items() if s.optional)

  def predict(self, inputs: Mapping[str, Any]) -> Prediction:
    """Probabilities of samples, preprocessed as the run's own.

    Args:
      inputs: {modality: a list, one entry per sample}: texts, paths of files,
        or arrays (``Preprocessor.__call__`` says which). ``None``, NaN, an
        array of NaN alone or a blank text say that the sample lacks one of
        ``optional``; a list that is not there, that all samples do.

    Raises:
      ValueError: a modality is missing or unknown, or lists differ in length.
      core.DataError: entries that cannot be used, all of them.
    """
    self._check(inputs)
    count = len(next(iter(inputs.values())))
    arrays, problems, empty = self._read(inputs, count)
    lacking = batching.lacking(arrays)
    told = {p.row for p in problems}
    problems += [
      faults.Fault(i + 1, "", rows.NOTHING)
      for i, gone in enumerate(lacking)
      if len(gone) == len(arrays) and i + 1 not in told
    ]
    if problems:
      said = advice(empty)
      raise faults.failure("the inputs", problems, said, memory.COUNTED)
    size = self.batch_size
    return self.run(
      {m: x[i : i + size] for m, x in arrays.items()}
      for i in range(0, count, size)
    )

  def _read(
    self, inputs: Mapping[str, Any], count: int
  ) -> tuple[dict[str, list[np.ndarray | None]], list[faults.Fault], list[str]]:
    """Arrays, ``None`` for what is missing; faults; modalities that lack some.

    A modality lacks an entry that is empty though the run knows no such sample.
    """
    arrays, problems, empty = {}, [], []
    for m, preprocessor in self.preprocessors.items():
      spec, found = preprocessor.spec, []
      for i, value in enumerate(inputs.get(m, [None] * count)):
        gone = cells.is_empty(value)
        try:
          found.append(None if gone and spec.optional else self._one(m, value))
        except ValueError as error:
          found.append(None)
          problems.append(faults.Fault(i + 1, f"{m}:{spec.kind}", str(error)))
          empty += [m] * gone
      arrays[m] = found
    return arrays, problems, empty

  def _one(self, m: str, value: Any) -> np.ndarray:
    made = self.preprocessors[m](value)
    if m in self._steps:
      batching.check_steps(m, len(made), self._steps[m])
    return made

  def run(self, batches: Iterable[batching.Samples]) -> Prediction:
    """Probabilities of preprocessed samples.

    Args:
      batches: {modality: arrays}, each of at most ``batch_size`` samples;
        ``None`` stands where a sample lacks one of ``optional``.
    """
    parts, lacking = [], []
    for batch in batches:
      parts.append(self._run(batch))
      lacking += batching.lacking(batch)
    heads = parts[0] if parts else dict.fromkeys((FUSED, *self.preprocessors))
    none = np.zeros((0, len(self.classes)), np.float32)
    return Prediction(
      self.classes,
      {h: np.concatenate([none, *(p[h] for p in parts)]) for h in heads},
      missing=tuple(lacking) if self.optional else None,
    )

  def _run(self, batch: batching.Samples) -> dict[str, np.ndarray]:
    parts, order = [], []
    for group in batching.groups(batch, self._specs):
      parts.append(
        self._once({m: [x[i] for i in group] for m, x in batch.items()})
      )
      order.append(group)
    back = np.argsort(np.concatenate(order))
    return {h: np.concatenate([p[h] for p in parts])[back] for h in parts[0]}

  def _once(self, batch: batching.Samples) -> dict[str, np.ndarray]:
    """Padded to a power of two, so that few programs are compiled."""
    count = len(next(iter(batch.values())))
    size = min(1 << (count - 1).bit_length(), self.batch_size)
    size = self.batch_size if self._fixed else size
    given = batching.given(batch, self._specs, self._steps)
    made = self._function(batching.padded(given, size))
    heads = (FUSED, *(h for h in made if h != FUSED))
    return {h: np.asarray(made[h])[:count] for h in heads}

  def _check(self, inputs: Mapping[str, Any]) -> None:
    known = self.preprocessors
    wanted = ", ".join(f"{m} ({p.spec.kind})" for m, p in known.items())
    absent = {m for m in known if m not in inputs}
    if set(inputs) - set(known) or absent - set(self.optional) or not inputs:
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
  made, lacking = of(setup.dataset), may_lack(setup)
  for m, preprocessor in made.items():
    spec = preprocessor.spec
    preprocessor.spec = dataclasses.replace(spec, optional=m in lacking)
  return Predictor(
    setup.dataset.spec.classes,
    made,
    lambda inputs: compiled(placed, inputs),
    setup.config.eval.batch_size,
  )


def may_lack(setup: experiment.Setup) -> tuple[str, ...]:
  """Modalities that new samples may lack.

  Those that some sample of the run lacks; and all of them if the run allows it
  (``data.missing=allow``) or was trained for it (``train.modality_dropout``).
  """
  config, specs = setup.config, setup.dataset.spec.modalities
  allowed = config.data.get("missing", "") == "allow"
  every = len(specs) > 1 and (allowed or config.train.modality_dropout > 0)
  return tuple(m for m, s in specs.items() if every or s.optional)


def model(
  setup: experiment.Setup, state: TrainState
) -> tuple[Any, Callable[[Any, Mapping[str, Any]], dict[str, Any]]]:
  """Variables on the host, and the pure ``(variables, given) -> {head: p}``.

  A head is ``fused`` or a modality; p [b k] are softmax probabilities, NaN for
  the head of a modality that the sample lacks. ``batching`` says what is given.
  """
  problem, method = setup.problem, setup.method

  def function(variables, given):
    params, stats, memory = variables
    given = jax.tree.map(jnp.asarray, dict(given))
    inputs, present = batching.separate(given)
    outputs, _ = problem.forward(params, stats, inputs, None, False, present)
    heads = {FUSED: method.predict(outputs, memory), **outputs.unimodal}
    found = {h: metrics.softmax(x) for h, x in heads.items()}
    return {h: missing.where(present, h, p, jnp.nan) for h, p in found.items()}

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
  optional, modalities = facts.get("present", ()), facts["modalities"]
  own = {
    m: Preprocessor.from_json(s, m in optional) for m, s in modalities.items()
  }
  steps = {m: s["steps"] for m, s in modalities.items() if "steps" in s}
  size = fixed or batch_size or _BATCH
  return Predictor(facts["classes"], own, function, size, bool(fixed), steps)
