"""A model of your own as a ``Problem``, which any method can train."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from dmg_jax.api.outputs import (
  LackingError,
  Missing,
  check_outputs,
  outputs_of,
)
from dmg_jax.errors import InputError, unknown
from dmg_jax.model import classifier, own
from dmg_jax.types import SHARED, Fused, Outputs, Params, Problem, Stats

_PARTS = ("head", "gate")


@dataclasses.dataclass(frozen=True, eq=False)
class Bound(Problem):
  """A ``Problem`` made by ``bind``.

  Attributes:
    start: weights and batch statistics that ``bind`` was given.
    example: inputs of two samples, as shapes and dtypes.
  """

  start: tuple[Params, Stats]
  example: PyTree

  def __repr__(self) -> str:
    kept = ", ".join(self.modalities)
    return f"<Problem of {kept}, {self.classes} classes>"

  def __getattribute__(self, name: str) -> Any:
    value = super().__getattribute__(name)
    if name == "samples" and not value:
      raise LackingError(
        "the size of the training split: bind it with samples=..., and give "
        "each batch an index"
      )
    return value


def bind(
  apply: Callable[..., Any],
  params: Params,
  *,
  owner: PyTree[str] | Callable[[tuple[str, ...]], str],
  inputs: Mapping[str, Any],
  stats: Stats | None = None,
  fuse: Callable[..., Any] | None = None,
  samples: int = 0,
  readout: str = "the model's own",
  additive: bool = False,
) -> Problem:
  r"""A pure function as a ``Problem`` that any method can train.

  With ``M`` modalities the function maps weights and inputs to

  .. math:: o \in R^{b \times k}, \quad \{o_m \in R^{b \times k}\}, \quad
    \{z_m \in R^{b \times d_m}\}

  the fused logits, the logits of each modality alone and its features.

  Args:
    apply: ``apply(params, inputs, *, train, key)``; with ``stats``,
      ``apply(params, stats, inputs, *, train, key) -> (outputs, stats)``. Pure
      and traceable. ``key`` is a JAX random key in training, and ``None`` or a
      key otherwise. The outputs are ``Outputs`` or a dictionary: ``logits`` [b
      k], and what the method needs of ``unimodal`` {modality: [b k]},
      ``features`` {modality: [b d]} and ``extra`` (a dictionary).
    params: the weights, a pytree of arrays. Training starts from them.
    owner: who owns each weight: a pytree of names like ``params`` (or a prefix
      of it), or a function of a weight's path, a tuple of strings. A name is a
      modality (its encoder), ``<modality>/head`` (its part of the fusion),
      ``<modality>/gate`` or ``shared``.
    inputs: a batch of inputs, {modality: [b ...]}, for names and shapes.
    stats: batch statistics, a pytree of arrays. They are used in evaluation,
      and change in training steps only.
    fuse: the fusion alone, ``fuse(params, features, *, train, key)``, with
      ``stats`` after ``params`` if there are any. It returns fused logits, or
      a dictionary as ``apply`` does. For methods that mask features, and for
      samples that lack modalities: their features are zero. Without it the
      logits are those of ``apply``, which sees zeros in place of such inputs.
    samples: size of the training split, for methods that keep something for
      each sample; batches then need an ``index``.
    readout: how unimodal logits are obtained, in the words of the field.
    additive: whether the logits are a sum of functions of one modality each.

  Returns:
    The problem. A method that needs something it lacks is refused by name.

  Raises:
    InputError: outputs of wrong names, shapes or dtypes; an unknown owner;
      statistics that change their structure.

  Example:

    >>> import jax.numpy as jnp
    >>> import dmg_jax
    >>> params = {m: jnp.zeros((4, 2)) for m in ("image", "text")}
    >>> def apply(params, inputs, *, train, key):
    ...   unimodal = {m: inputs[m] @ params[m] for m in params}
    ...   return {"logits": sum(unimodal.values()), "unimodal": unimodal}
    >>> problem = dmg_jax.bind(
    ...   apply, params, owner=lambda path: path[0],
    ...   inputs={m: jnp.ones((8, 4)) for m in params},
    ... )
    >>> problem.modalities, problem.classes
    (('image', 'text'), 2)
  """
  names = tuple(inputs)
  call, whole = _made(apply, names, stats), stats is not None
  join = None if fuse is None else _made_fuse(fuse, stats)
  # Converted as a compiled step will: float64 becomes float32 by default.
  params, stats = jax.tree.map(jnp.asarray, (params, stats or {}))
  example = jax.eval_shape(
    lambda: jax.tree.map(lambda x: jnp.asarray(x)[:2], dict(inputs))
  )
  forward = _forward(call, join)
  outputs, new = _traced(forward, params, stats, example)
  check_outputs(outputs, names, len(jax.tree.leaves(example)[0]))
  if whole:
    _check_stats(new, stats)
  return Bound(
    forward=forward,
    fuse=join or _no_fuse,
    owner=_owners(owner, params, names),
    modalities=names,
    outputs=outputs,
    samples=samples,
    readout=readout,
    additive=additive,
    start=(params, stats),
    example=example,
  )


def _made(apply, names, stats):
  """``(params, stats, inputs, key, train) -> (Outputs, stats)``."""

  def call(params, old, inputs, key, train):
    if stats is None:
      return outputs_of(apply(params, inputs, train=train, key=key), names), old
    found = apply(params, old, inputs, train=train, key=key)
    if not isinstance(found, tuple) or len(found) != 2:
      raise InputError(
        "with stats, apply must return (outputs, stats), got "
        f"{type(found).__name__}"
      )
    return outputs_of(found[0], names), found[1]

  return call


def _made_fuse(fuse, stats):
  """The user's ``fuse`` as a ``types.Fuse``."""

  has_stats = stats is not None

  def join(params, stats, features, key, train, present=None):
    del present  # The features of what is missing are zero.
    more = (stats,) if has_stats else ()
    found = fuse(params, *more, features, train=train, key=key)
    if not isinstance(found, Mapping | Outputs | Fused):
      found = {"logits": found}
    made = outputs_of(found, tuple(features))
    return Fused(made.logits, made.unimodal, made.extra)

  return join


def _no_fuse(params, stats, features, key, train, present=None):
  del params, stats, features, key, train, present
  raise LackingError("the fusion alone: bind it with fuse=...")


def _forward(call, join):
  """The whole ``types.Forward``."""

  def forward(
    params, stats, inputs, key, train, present=None, keep=None, shown=None
  ):
    inputs = classifier.overwritten(inputs, present, train and bool(stats))
    inputs = classifier.with_shown(inputs, shown)
    outputs, new = call(params, stats, inputs, key, train)
    if present is not None:
      outputs = outputs.replace(present=dict(present))
      if not isinstance(outputs.features, Missing):
        known = classifier.without_missing(outputs.features, present)
        outputs = outputs.replace(features=known)
    if keep is not None or (present is not None and join is not None):
      join_ = join or _no_fuse
      kept = classifier.with_kept(outputs.features, keep)
      fused = join_(params, stats, kept, key, train, present)
      outputs = outputs.replace(logits=fused.logits)
      if keep is not None or not isinstance(fused.unimodal, Missing):
        outputs = outputs.replace(unimodal=fused.unimodal)
    return outputs, new if train else stats

  return forward


def _traced(forward, params, stats, example):
  """Shapes of the outputs in evaluation, and of statistics after training."""

  def both(params, stats, inputs):
    key = jax.random.key(0)
    outputs, _ = forward(params, stats, inputs, key, False)
    return outputs, forward(params, stats, inputs, key, True)[1]

  return jax.eval_shape(both, params, stats, example)


def _check_stats(new: Any, old: Any) -> None:
  """Raises ``InputError`` unless training leaves structure and shapes alone."""
  shape = jax.tree.map(lambda x: (x.shape, x.dtype), (new, old))
  if shape[0] != shape[1]:
    raise InputError(
      "apply must return statistics like those it was given: "
      f"{own.shape_of(old)}, got {own.shape_of(new)}"
    )


def _owners(owner: Any, params: Params, names: tuple[str, ...]) -> PyTree[str]:
  """The owner of every weight, checked."""
  choices = [*names, *(f"{m}/{p}" for m in names for p in _PARTS), SHARED]

  def checked(path, name):
    if name not in choices:
      where = "/".join(_path(path))
      raise unknown(f"owner of the weight {where}", str(name), choices)
    return name

  if callable(owner):
    found = jax.tree_util.tree_map_with_path(
      lambda path, _: owner(_path(path)), params
    )
  else:
    try:
      found = jax.tree.broadcast(owner, params)
    except ValueError as error:
      raise InputError(
        f"owner must be a pytree like params, or a prefix of it: {error}"
      ) from error
  return jax.tree_util.tree_map_with_path(checked, found)


def _path(path: tuple[Any, ...]) -> tuple[str, ...]:
  """Keys, indices and attributes on the way to a weight, as strings."""
  names = []
  for entry in path:
    for attribute in ("key", "idx", "name"):
      if hasattr(entry, attribute):
        names.append(str(getattr(entry, attribute)))
        break
  return tuple(names)
