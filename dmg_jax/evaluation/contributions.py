r"""What each modality contributes to a prediction.

The value of a set S of modalities is the accuracy of the fused prediction where
all others are missing, as if the samples lacked them (``Batch.present``):

.. math:: v(S) = \frac{1}{n} \sum_i [\arg\max_c o_c(x_{S,i}) = y_i]

With nothing, the most frequent class of train is predicted; that is v(∅). From
these values, for M modalities N:

- ``shapley``: the share of m in the accuracy. The shares sum to v(N) - v(∅).

  .. math:: \varphi_m = \sum_{S \subseteq N \setminus m}
    \frac{|S|!\,(M - |S| - 1)!}{M!} \bigl(v(S \cup m) - v(S)\bigr)

- ``gain``: v(N) - v(N ∖ m), what is lost without m; below 0 if m harms.
- ``alone``: v({m}).
- ``only``: the share of samples that m alone gets right and no other modality
  alone does. ``complementarity`` is their sum.
- ``nothing``: v(∅), and ``together``: v(N), the accuracy.

Shapley values are exact up to six modalities. With more, they are means over
``PERMUTATIONS`` random orders, each of which is taken forwards and backwards;
they sum to the same. A sample that lacks all of S counts as v(∅) does.

Encoders run once a batch, but where they exchange information (``channel``).

Reference: Shapley, "A Value for n-Person Games", 1953; as a measure of
balance in Hu, Li, Zhou, "SHAPE", IJCAI 2022, and BalanceBenchmark, which puts
zeros in place of inputs and takes the model's own prediction for v(∅).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines import core
from dmg_jax import missing, processes
from dmg_jax.evaluation.metrics import class_of
from dmg_jax.types import Batch, Method, Outputs, Problem, TrainState

EXACT = 6
PERMUTATIONS = 32

Subset = frozenset[str]


class Outcomes(NamedTuple):
  """What is known of all samples of a split.

  Attributes:
    right: bool [s n], whether the prediction from each subset is right.
    guessed: bool [n], whether the most frequent class of train is.
  """

  right: np.ndarray
  guessed: np.ndarray


def orders(modalities: Sequence[str]) -> list[tuple[str, ...]]:
  """Orders of the modalities over which Shapley values are means."""
  if len(modalities) <= EXACT:
    return list(itertools.permutations(modalities))
  rng = np.random.default_rng(0)
  count = len(modalities)
  places = [rng.permutation(count) for _ in range(PERMUTATIONS)]
  return [
    tuple(modalities[int(i)] for i in taken)
    for order in places
    for taken in (order, order[::-1])
  ]


def subsets(modalities: Sequence[str]) -> list[Subset]:
  """Those whose value is needed, without the empty one; the last is whole."""
  found = {
    frozenset(order[:size])
    for order in orders(modalities)
    for size in range(1, len(modalities))
  }
  found |= {frozenset([m]) for m in modalities}
  found |= {frozenset(modalities) - {m} for m in modalities}
  rank = {m: i for i, m in enumerate(modalities)}
  whole = frozenset(modalities)
  rest = sorted(
    found - {whole, frozenset()},
    key=lambda s: (len(s), sorted(rank[m] for m in s)),
  )
  return [*rest, whole]


def make_step(
  problem: Problem, method: Method, several: bool = False
) -> Callable[..., Any]:
  """The jitted ``(params, stats, method state, batch, table) -> bool [s b]``.

  Whether the prediction from each subset is right; ``table`` [s m] is 1 for
  the modalities of a subset. With ``several``, every argument but the last two
  has a leading axis of replicas, and so has the result.
  """
  talk = "exchanges" in problem.outputs.extra

  def step(params, stats, memory, batch: Batch, table):
    ones = jnp.ones_like(batch.mask)
    there = {m: (batch.present or {}).get(m, ones) for m in problem.modalities}
    features = problem.run(params, stats, batch)[0].features

    def of(flags):
      present = {
        m: there[m] * flag
        for m, flag in zip(problem.modalities, flags, strict=True)
      }
      if talk:
        run = problem.forward
        out, _ = run(params, stats, batch.inputs, None, False, present)
      else:
        z = {m: missing.where(present, m, x, 0) for m, x in features.items()}
        fused = problem.fuse(params, stats, z, None, False, present)
        extra = dict(fused.extra)
        out = Outputs(fused.logits, fused.unimodal, z, extra, present)
      return class_of(method.predict(out, memory)) == batch.labels

    return jax.lax.map(of, table)

  if several:
    step = jax.vmap(step, in_axes=(0, 0, 0, None, None))
  return jax.jit(step)


class Watch:
  """Measures batches while they pass through to something else.

  So a split is read once for all that is evaluated on it.

  Args:
    step: from ``make_step``.
    state: only ``params``, ``stats`` and ``method`` are read.
    modalities: of the problem, in its order.
    guess: the most frequent class of train.
  """

  def __init__(
    self,
    step: Callable[..., Any],
    state: TrainState,
    modalities: Sequence[str],
    guess: int,
  ):
    self._own = state.params, state.stats, state.method
    self._step, self._names, self._guess = step, modalities, guess
    self._table = np.array(
      [[m in s for m in modalities] for s in subsets(modalities)], np.float32
    )
    self._right: list[np.ndarray] = []
    self._guessed: list[np.ndarray] = []

  def through(self, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches as they are."""
    for batch in batches:
      found = self._step(*self._own, batch, self._table)
      yield batch
      self._add(
        processes.gather((found, batch.labels, batch.mask, batch.present))
      )

  def _add(self, part) -> None:
    found, labels, mask, present = part
    there = np.stack(
      [(present or {}).get(m, np.ones_like(mask)) for m in self._names]
    )
    known, real = self._table @ there > 0, mask > 0
    luck = labels == self._guess
    self._right.append(np.where(known, found, luck)[..., real])
    self._guessed.append(luck[real])

  def outcomes(self) -> Outcomes:
    """What is known after all batches.

    ``right`` has a leading axis of replicas if ``step`` is of several.
    """
    right = np.concatenate(self._right, axis=-1)
    return Outcomes(right, np.concatenate(self._guessed))


def look(
  step: Callable[..., Any],
  state: TrainState,
  batches: Iterable[Batch],
  modalities: Sequence[str],
  guess: int,
) -> Outcomes:
  """A pass over a split for nothing else; arguments as ``Watch``."""
  watch = Watch(step, state, modalities, guess)
  for _ in watch.through(batches):
    pass
  return watch.outcomes()


def measures(seen: Outcomes, modalities: Sequence[str]) -> dict[str, Any]:
  """The measures of the module's docstring, for a single run.

  Returns:
    {"shapley", "gain", "alone", "only": {modality: value}, "complementarity",
    "nothing", "together"}, all fractions of the samples.
  """
  chosen = subsets(modalities)
  value = dict(zip(chosen, seen.right.mean(axis=-1).tolist(), strict=True))
  value[frozenset()] = float(seen.guessed.mean())
  whole = frozenset(modalities)
  single = np.stack(
    [seen.right[chosen.index(frozenset([m]))] for m in modalities]
  )
  lone = single.sum(axis=0) == 1
  only = {
    m: float((row & lone).mean())
    for m, row in zip(modalities, single, strict=True)
  }
  return {
    "shapley": shapley(value, modalities),
    "gain": {m: value[whole] - value[whole - {m}] for m in modalities},
    "alone": {m: value[frozenset([m])] for m in modalities},
    "only": only,
    "complementarity": float(lone.mean()),
    "nothing": value[frozenset()],
    "together": value[whole],
  }


def shapley(
  value: Mapping[Subset, float], modalities: Sequence[str]
) -> dict[str, float]:
  """{modality: its mean gain over all orders of ``orders``}."""
  taken = orders(modalities)
  gains: dict[str, list[float]] = {m: [] for m in modalities}
  for order in taken:
    for i, m in enumerate(order):
      before = frozenset(order[:i])
      gains[m].append(value[before | {m}] - value[before])
  return {m: math.fsum(g) / len(taken) for m, g in gains.items()}


def most_frequent(dataset: core.Dataset) -> int:
  """The class that most samples of train have, the first in a tie."""
  return int(np.bincount(core.labels(dataset.sources["train"])).argmax())
