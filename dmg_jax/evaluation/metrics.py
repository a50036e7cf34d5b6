"""Metrics of a split: fused, per modality, and the gap between modalities.

Masked sums over samples are taken inside ``jit``. Metrics that need all samples
at once (mean average precision, macro-F1) are computed once, on the host.

- ``accuracy``: fraction of samples whose largest logit is that of the label.
- ``balanced_accuracy``: recall averaged over the classes that occur in the
  split.
- ``loss``: mean cross-entropy, in nats, without weights of classes.
- ``map``: average precision of each class against the rest, with samples ranked
  by the softmax probability of the class, averaged over the classes that occur
  in the split (without positives, recall would be 0/0).
- ``macro_f1``: 2 TP / (2 TP + FP + FN) averaged over classes. A class that is
  neither a label nor a prediction (0/0) is left out; a class that is predicted
  but does not occur in the split counts with an F1 of 0.
- ``gap/accuracy``: largest minus smallest unimodal accuracy; 0 for a single
  modality.
- ``gap/centroid/<a>-<b>``: distance between the mean unit features of two
  modalities, in [0, 2]; omitted if their features differ in size.

If a logit is NaN, accuracies and F1 count the sample as wrong, and ``map`` of
the whole split is NaN.

Where samples lack modalities (``Batch.present``), the metrics of a modality
count the samples that have it; they are NaN if none has. ``missing`` holds the
metrics of the fused prediction by pattern: of the samples with nothing missing
(``none``), and of those that lack just these modalities (``image``,
``image+text``).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from dmg_jax import losses, processes
from dmg_jax.errors import InputError
from dmg_jax.evaluation.scores import (
  balanced_accuracy,
  macro_f1,
  mean_average_precision,
)
from dmg_jax.types import Batch, Leaf, Method, Problem, TrainState

FUSED, GAP, MISSING, NONE = "fused", "gap", "missing", "none"


RESERVED = (FUSED, GAP, MISSING, NONE)
_METRICS = ("accuracy", "balanced_accuracy", "map", "macro_f1", "loss")


@struct.dataclass
class EvalPart:
  """Contribution of one batch; a head is ``fused`` or a modality.

  Attributes:
    count: {head: []}, number of samples, padding left out, that have it.
    loss: {head: []}, sum of the cross-entropies.
    correct: {head: []}, number of correct predictions.
    feature_sum: {modality: [d]}, sum of the unit features.
    probabilities: {head: [b k]}, softmax of the logits.
    predicted: {head: [b]}, class of the largest logit, the first in a tie; -1
      if a logit is NaN, which is wrong for every label.
    features: {modality: [b d]}, features divided by their norm.
    labels: [b], as in the batch.
    mask: [b], as in the batch.
    index: [b], as in the batch.
    present: {modality: [b]}, as in the batch; ``{}`` if nothing is missing.
  """

  count: Leaf
  loss: dict[str, Leaf]
  correct: dict[str, Leaf]
  feature_sum: dict[str, Leaf]
  probabilities: dict[str, Leaf]
  predicted: dict[str, Leaf]
  features: dict[str, Leaf]
  labels: Leaf
  mask: Leaf
  index: Leaf
  present: dict[str, Leaf] = struct.field(default_factory=dict)


EvalStep = Callable[[Any, Any, Any, Batch], EvalPart]


@dataclasses.dataclass(frozen=True)
class Evaluation(Mapping[str, Any]):
  """Metrics of a split as a mapping, with the arrays they are computed from.

  Attributes:
    metrics: ``{"fused": {"accuracy", "balanced_accuracy", "map", "macro_f1",
      "loss"}, "<modality>": {the same}, "gap": {"accuracy", "centroid":
      {"<a>-<b>"}}}``, floats; where modalities are missing also
      ``{"missing": {pattern: {"samples", "accuracy", "balanced_accuracy",
      "map", "macro_f1"}}}``.
    labels: int [n], sorted by ``index`` like the arrays below.
    index: int [n], position of each sample in its split.
    probabilities: {"fused" or modality: [n k]}; NaN where it is missing.
    features: {modality: [n d]}, unit vectors (zero where the feature is zero).
    present: {modality: bool [n]} of those that samples lack.
  """

  metrics: dict[str, dict[str, Any]]
  labels: Int[np.ndarray, " n"]
  index: Int[np.ndarray, " n"]
  probabilities: dict[str, Float[np.ndarray, "n k"]]
  features: dict[str, Float[np.ndarray, "n _"]]
  present: dict[str, Bool[np.ndarray, " n"]] = dataclasses.field(
    default_factory=dict
  )

  def __getitem__(self, key: str) -> Any:
    return self.metrics[key]

  def __iter__(self) -> Iterator[str]:
    return iter(self.metrics)

  def __len__(self) -> int:
    return len(self.metrics)

  def flat(self) -> dict[str, float]:
    """``{"fused/accuracy": .., "gap/centroid/image-text": .., ...}``."""
    return dict(_flat(self.metrics))


def check_names(modalities: Sequence[str]) -> None:
  """Refuses modality names that would make the names of metrics ambiguous.

  Raises:
    ValueError: a modality has a name of ``RESERVED``, has a ``/`` in its
      name, or occurs twice.
  """
  taken = [m for m in modalities if m in RESERVED]
  if taken:
    raise InputError(
      f"a modality cannot be called {taken[0]!r}: "
      f"{', '.join(map(repr, RESERVED))} are reserved for metrics. Rename the "
      "modality"
    )
  for m in modalities:
    if "/" in m:
      raise InputError(f"a modality's name cannot contain '/': {m!r}")
  if len(set(modalities)) < len(modalities):
    raise InputError(f"two modalities share a name: {', '.join(modalities)}")


def make_eval_step(
  problem: Problem, method: Method, several: bool = False
) -> EvalStep:
  """The jitted ``(params, stats, method_state, batch) -> EvalPart``.

  Compiled once per batch shape. Rows with mask 0 contribute nothing. With
  ``several``, every argument but the batch has a leading axis of replicas.

  Raises:
    ValueError: a modality has a reserved name, see ``check_names``.
  """
  check_names(problem.modalities)

  def eval_step(params, stats, method_state, batch: Batch) -> EvalPart:
    outputs, _ = problem.run(params, stats, batch)
    fused = method.predict(outputs, method_state)
    heads = {FUSED: fused, **outputs.unimodal}
    # ``having("fused")`` is the mask: only modalities can be missing.
    rows = {h: batch.having(h) > 0 for h in heads}
    found = jax.tree.map(class_of, heads)
    features = jax.tree.map(losses.unit, outputs.features)
    return EvalPart(
      count={h: row.sum() for h, row in rows.items()},
      loss={
        h: jnp.where(rows[h], losses.cross_entropy(x, batch.labels), 0.0).sum()
        for h, x in heads.items()
      },
      correct={
        h: (rows[h] & (x == batch.labels)).sum() for h, x in found.items()
      },
      feature_sum={
        m: jnp.where(rows[m][:, None], z, 0.0).sum(axis=0)
        for m, z in features.items()
      },
      probabilities=jax.tree.map(softmax, heads),
      predicted=found,
      features=features,
      labels=batch.labels,
      mask=batch.mask,
      index=batch.index,
      present=batch.present or {},
    )

  if several:
    eval_step = jax.vmap(eval_step, in_axes=(0, 0, 0, None))
  return jax.jit(eval_step)


def evaluate(
  eval_step: EvalStep,
  state: TrainState,
  batches: Iterable[Batch],
  place: Callable[[Batch], Batch] = lambda x: x,
) -> Evaluation:
  """Runs ``eval_step`` over ``batches`` and reduces to metrics.

  The same inputs give the same bits.

  Args:
    eval_step: from ``make_eval_step``.
    state: only ``params``, ``stats`` and ``method`` are read.
    batches: batches of one shape that hold each sample once, padding masked.
    place: puts a host batch on devices; with several processes it must make
      global arrays, so that every process sees all samples.

  Raises:
    ValueError: there are no samples.
  """
  return reduce(run(eval_step, state, map(place, batches)))


def evaluate_several(
  eval_step: EvalStep, state: TrainState, batches: Iterable[Batch], count: int
) -> list[Evaluation]:
  """``evaluate`` for ``count`` replicas at once; raises the same errors."""
  parts = run(eval_step, state, batches)
  own = [
    [jax.tree.map(lambda x, i=i: x[i], p) for p in parts] for i in range(count)
  ]
  return [reduce(p) for p in own]


def run(
  eval_step: EvalStep, state: TrainState, batches: Iterable[Batch]
) -> list[EvalPart]:
  """The results of ``eval_step`` for each batch, on the host."""
  parts: list[EvalPart] = []
  waiting = None
  for batch in batches:
    part = eval_step(state.params, state.stats, state.method, batch)
    # Fetched one batch later: the next is read while this one is computed.
    if waiting is not None:
      parts.append(processes.gather(waiting))
    waiting = part
  if waiting is not None:
    parts.append(processes.gather(waiting))
  return parts


def reduce(parts: list[EvalPart]) -> Evaluation:
  """Metrics from the parts: float64 sums, samples sorted by index.

  Raises:
    ValueError: there are no samples.
  """
  if not parts or not sum(int(p.count[FUSED]) for p in parts):
    raise InputError(
      "nothing to evaluate: the split is empty or holds only padding. Check "
      "its size (launch.py --mode=prepare prints it)"
    )
  sums = jax.tree.map(
    lambda *x: np.sum(np.asarray(x, np.float64), axis=0),
    *[(p.count, p.loss, p.correct, p.feature_sum) for p in parts],
  )
  count, loss, correct, feature_sum = sums
  mask = np.concatenate([p.mask for p in parts]) > 0
  index = np.concatenate([p.index for p in parts])[mask]
  order = np.argsort(index, kind="stable")
  labels, predicted, probabilities, features, present = jax.tree.map(
    lambda *x: np.concatenate(x)[mask][order],
    *[
      (p.labels, p.predicted, p.probabilities, p.features, p.present)
      for p in parts
    ],
  )
  present = {m: row > 0 for m, row in present.items()}
  heads = (FUSED, *(h for h in loss if h != FUSED))
  metrics: dict[str, dict[str, Any]] = {}
  for head in heads:
    rows = present.get(head, slice(None))
    found = labels[rows], predicted[head][rows], probabilities[head][rows]
    metrics[head] = _of_head(count[head], correct[head], loss[head], *found)
  metrics[GAP] = _gap(metrics, count, feature_sum)
  if present:
    own = labels, predicted[FUSED], probabilities[FUSED]
    metrics[MISSING] = _by_pattern(present, *own)
  probabilities = {h: probabilities[h] for h in heads}
  for m, row in present.items():
    probabilities[m] = np.where(row[:, None], probabilities[m], np.nan)
  return Evaluation(
    metrics, labels, index[order], probabilities, features, present
  )


def _of_head(
  count, correct, loss, labels, predicted, probabilities
) -> dict[str, float]:
  """Metrics of a head over the samples that have it; NaN without any."""
  if not count:
    return dict.fromkeys(_METRICS, math.nan)
  return {
    "accuracy": float(correct / count),
    **_scores(labels, predicted, probabilities),
    "loss": float(loss / count),
  }


def _gap(metrics, count, feature_sum) -> dict[str, Any]:
  """Differences between the modalities that some sample has."""
  there = [m for m in feature_sum if count[m]]
  single = [metrics[h]["accuracy"] for h in count if h != FUSED and count[h]]
  return {
    "accuracy": max(single) - min(single) if single else 0.0,
    "centroid": _distances({m: feature_sum[m] / count[m] for m in there}),
  }


def _scores(labels, predicted, probabilities) -> dict[str, float]:
  """What needs all samples at once."""
  return {
    "balanced_accuracy": balanced_accuracy(labels, predicted),
    "map": mean_average_precision(labels, probabilities),
    "macro_f1": macro_f1(labels, predicted),
  }


def _by_pattern(present, labels, predicted, probabilities) -> dict[str, dict]:
  """{pattern: metrics of the fused prediction}; see the module docstring."""
  names = list(present)
  table = np.stack([~present[m] for m in names], axis=1)
  found = {}
  for pattern in np.unique(table, axis=0):
    rows = (table == pattern).all(axis=1)
    lacking = [m for m, gone in zip(names, pattern, strict=True) if gone]
    found["+".join(lacking) or NONE] = {
      "samples": int(rows.sum()),
      "accuracy": float(np.mean(predicted[rows] == labels[rows])),
      **_scores(labels[rows], predicted[rows], probabilities[rows]),
    }
  return dict(sorted(found.items(), key=lambda x: (x[0] != NONE, x[0])))


def softmax(logits: Float[Array, "b k"]) -> Float[Array, "b k"]:
  """Class probabilities in float32 or wider."""
  wide = jnp.promote_types(logits.dtype, jnp.float32)
  return jax.nn.softmax(logits.astype(wide), axis=-1)


def class_of(logits: Float[Array, "b k"]) -> Int[Array, " b"]:
  """The class of the largest logit; -1, no class, where one is NaN."""
  usable = ~jnp.isnan(logits).any(axis=-1)
  return jnp.where(usable, jnp.argmax(logits, axis=-1), -1)


def _distances(centroids: Mapping[str, np.ndarray]) -> dict[str, float]:
  return {
    f"{a}-{b}": float(np.linalg.norm(x - y))
    for (a, x), (b, y) in itertools.combinations(centroids.items(), 2)
    if x.shape == y.shape
  }


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple]:
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from _flat(value, f"{path}{key}/")
    else:
      yield f"{path}{key}", value
