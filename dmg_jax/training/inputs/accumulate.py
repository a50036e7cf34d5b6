r"""Batches in parts: ``train.accumulate=N`` holds one part at a time in memory.

The forward pass of a batch [b] is a loop over N parts of b / N samples, and so
is its derivative, which computes a part's activations anew:

.. math:: \nabla_\theta L(o_1, \dots, o_N) = \sum_{i=1}^N
  \left(\frac{\partial o_i}{\partial \theta}\right)^\top \nabla_{o_i} L

where ``o_i`` are the outputs of part i (logits and features). What comes after
the outputs sees the whole batch: losses, negatives of InfoNCE, means over the
samples that have a modality, weights of the classes, the rules of all methods.
So every method is supported, and the gradient is that of the whole batch up to
rounding, except for what a forward pass itself takes from other samples or
draws at random:

1. Batch statistics are those of a part, and running ones move N times a step.
   So do the running gates of the fusion ``channel``.
2. Where a network has batch statistics, missing inputs are filled from the
   same part.
3. Each part draws its own dropout.

The price is the second forward pass of each part: about a third of the time.

Reference: Gao, Zhang, Han and Callan, "Scaling Deep Contrastive Learning Batch
Size under Memory Limited Setup", RepL4NLP 2021.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from dmg_jax.errors import InputError
from dmg_jax.types import FROZEN, Outputs, Params, Problem, Stats

FIELD = "train.accumulate"
# A batch statistic with a number for each sample (fusion ``channel``).
_ROWS = "mask"


def in_parts(problem: Problem, size: int) -> Problem:
  """The problem, whose forward pass holds ``size`` samples at a time.

  Args:
    problem: as a method sees it.
    size: of a part. Batches of at most that many samples are not divided; of
      others, a last part that is too small is filled up with samples again.
  """

  def forward(
    params: Params,
    stats: Stats,
    inputs: Mapping[str, Any],
    key: PRNGKeyArray | None,
    train: bool,
    present: Mapping[str, jax.Array] | None = None,
    keep: Mapping[str, jax.Array] | None = None,
    shown: Mapping[str, jax.Array] | None = None,
  ) -> tuple[Outputs, Stats]:
    count = -(-_samples(inputs) // size)
    if count <= 1:
      return problem.forward(
        params, stats, inputs, key, train, present, keep, shown
      )
    moving = {c: v for c, v in stats.items() if c != FROZEN}
    still = {c: v for c, v in stats.items() if c == FROZEN}
    moving, rows = _without_rows(moving)

    def part(moving, at):
      i, rows, inputs, *masks = at
      own = None if key is None else jax.random.fold_in(key, i)
      given = {**still, **_with_rows(moving, rows)}
      outputs, new = problem.forward(params, given, inputs, own, train, *masks)
      new = {c: v for c, v in new.items() if c != FROZEN}
      return _without_rows(new)[0], outputs

    parts = split((rows, inputs, present, keep, shown), count)
    each = jax.checkpoint(part, prevent_cse=False)  # A loop merges nothing.
    moving, outputs = jax.lax.scan(each, moving, (jnp.arange(count), *parts))
    whole = _joined(outputs, _samples(inputs))
    whole = whole.replace(
      unimodal=_ordered(whole.unimodal, problem.modalities),
      features=_ordered(whole.features, problem.modalities),
    )
    return whole, {**still, **_with_rows(moving, rows)}

  return dataclasses.replace(problem, forward=forward)


def split(rows: PyTree, count: int) -> PyTree:
  """Arrays [b ...] as [count b/count ...].

  Part i has the samples i, i + count, ...: of every device as many.
  """

  def one(x):
    size = -(-len(x) // count)
    extra = count * size - len(x)
    x = jnp.concatenate([x, x[:extra]]) if extra else jnp.asarray(x)
    return x.reshape(size, count, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(one, rows)


def _joined(outputs: Outputs, samples: int) -> Outputs:
  """The reverse of ``split``; of a number without samples, the last."""

  def one(x):
    if x.ndim == 1:  # [parts]
      return x[-1]
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:samples]

  return jax.tree.map(one, outputs)


def _ordered(
  values: Mapping[str, jax.Array], names: tuple[str, ...]
) -> dict[str, jax.Array]:
  """By modality in their order, which a loop forgets; methods read it."""
  first = {m: values[m] for m in names if m in values}
  return {**first, **values}


def _samples(inputs: Mapping[str, Any]) -> int:
  return len(jax.tree.leaves(inputs)[0])


def _without_rows(stats: Stats) -> tuple[Stats, dict[str, jax.Array]]:
  """Statistics without what has a number for each sample; and that."""
  rows: dict[str, jax.Array] = {}

  def walk(node, path):
    if not isinstance(node, Mapping):
      return node
    kept = {}
    for name, value in node.items():
      where = f"{path}/{name}"
      if name == _ROWS:
        rows[where] = value
      else:
        kept[name] = walk(value, where)
    return kept

  return walk(stats, ""), rows


def _with_rows(stats: Stats, rows: Mapping[str, jax.Array]) -> Stats:
  """The reverse of ``_without_rows``."""

  def walk(node, path):
    if not isinstance(node, Mapping):
      return node
    made = {k: walk(v, f"{path}/{k}") for k, v in node.items()}
    own = f"{path}/{_ROWS}"
    return {**made, _ROWS: rows[own]} if own in rows else made

  return walk(stats, "") if rows else stats


def check(sizes: Mapping[str, int], parts: int, devices: int) -> None:
  """Every part has as many samples, of every device as many.

  Args:
    sizes: ``batch_size`` and ``inner_batch_size``.
    parts: N.
    devices: that share a batch.

  Raises:
    InputError: it is not so, with the multiple that works.
  """
  if parts == 1:
    return
  whole, inner = sizes["batch_size"], sizes["inner_batch_size"]
  unit = parts * devices
  if whole % unit:
    shared = f" on {devices} devices" if devices > 1 else ""
    raise InputError(
      f"a batch of {whole} cannot be divided into {parts} equal parts{shared} "
      f"({FIELD}={parts}): make train.batch_size a multiple of {unit}"
    )
  part = whole // parts
  if inner > part and inner % part:
    raise InputError(
      f"train.inner_batch_size={inner} cannot be divided into parts of {part} "
      f"samples ({FIELD}={parts}, train.batch_size={whole}): make it a "
      f"multiple of {part}, or smaller than that"
    )
