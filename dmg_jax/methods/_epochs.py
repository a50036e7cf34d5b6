"""Passes over a split between epochs, for methods that measure the model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from dmg_jax import processes
from dmg_jax.errors import UnsuitableError
from dmg_jax.methods import _terms
from dmg_jax.types import Batch, Params, Problem, Stats, TrainState

PerBatch = Callable[[Problem, Params, Stats, Batch], Any]


def sweep(
  look: PerBatch, problem: Problem, state: TrainState, batches: Iterable[Batch]
) -> Any:
  """Results of ``look`` on every batch, concatenated over samples on the host.

  Args:
    look: ``(problem, params, stats, batch) -> pytree of [b ...]``. It must be a
      module-level function, so that it is compiled once per problem.
    problem: the model.
    state: provides the weights and the BatchNorm statistics.
    batches: one pass over a split.

  Returns:
    The pytree with NumPy arrays [n ...] without padding, or ``None`` if there
    are no batches.
  """
  parts = []
  for batch in batches:
    found = _compiled(look, problem, state.params, state.stats, batch)
    found, mask = processes.gather((found, batch.mask))
    parts.append(jax.tree.map(lambda x, real=mask > 0: x[real], found))
  if not parts:
    return None
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(look, problem, params, stats, batch):
  return look(problem, params, stats, batch)


def outputs(problem: Problem, params: Params, stats: Stats, batch: Batch):
  """A ``look`` for ``sweep``: features, losses and correctness per sample.

  Heads are the modalities and ``"fused"``, all in evaluation mode; ``average``
  and ``having`` leave out the samples that lack a modality.
  """
  out, _ = problem.run(params, stats, batch)
  heads = {**out.unimodal, "fused": out.logits}
  there = {m: row > 0 for m, row in (batch.present or {}).items()}
  return {
    "present": there,
    "features": out.features,
    "labels": batch.labels,
    "index": batch.index,
    "loss": {h: _terms.each(o, batch) for h, o in heads.items()},
    "correct": {h: o.argmax(axis=-1) == batch.labels for h, o in heads.items()},
  }


def having(found: Any, head: str, *arrays: np.ndarray) -> list[np.ndarray]:
  """Arrays [n ...] of ``outputs``, without samples that lack the modality."""
  there = found.get("present", {}).get(head)
  return [x if there is None else x[there] for x in arrays]


def average(found: Any, kind: str, head: str, method: str) -> Any:
  """Mean of ``found[kind][head]`` over the samples that have the modality.

  Raises:
    UnsuitableError: no sample has it; the message names the method.
  """
  (values,) = having(found, head, found[kind][head])
  _check(len(values), head, method)
  return values.mean()


def check_measurable(
  problem: Problem, batches: Iterable[Batch], method: str
) -> None:
  """Raises, before training, what ``average`` would raise after an epoch."""
  found = dict.fromkeys(problem.modalities, 0.0)
  for batch in batches:
    if batch.present is None:
      return
    found = {m: n + float(batch.having(m).sum()) for m, n in found.items()}
  for m, count in found.items():
    _check(count, m, method)


def _check(count: float, modality: str, method: str) -> None:
  if not count:
    raise UnsuitableError(
      f"{method} measures each modality between epochs, and no sample of a "
      f"split that it measures (val, or train) has {modality!r}: give that "
      "split rows that have it, hide fewer, or use another method"
    )
