"""Flax modules as pure functions of weights and statistics.

- **Linen**: an instance, called as ``module(x)``, ``module(x, train=...)`` or
  ``module(x, deterministic=...)``, whichever its signature has. A random stream
  of any name is there in training.
- **NNX**: a function of ``nnx.Rngs`` that makes the module, so that every seed
  has fresh weights; or an instance, whose weights every seed starts from. It is
  called like a Linen module, in the mode that ``module.train()`` or
  ``module.eval()`` sets. In training its random streams start anew with every
  step's key, in evaluation always from the same one.

Whatever is neither a weight nor a random stream (``batch_stats``,
``nnx.BatchStat`` and other variables) is kept as batch statistics: it moves in
training steps and nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import meta
from flax.traverse_util import flatten_dict, unflatten_dict

from dmg_jax.errors import InputError, UserError
from dmg_jax.types import Params, Stats

STATS = "batch_stats"
# Arguments that say whether a call trains: name -> its value in training.
_MODES = {
  "train": True,
  "training": True,
  "is_training": True,
  "deterministic": False,
  "use_running_average": False,
}
_LONGEST = 2000  # Of a description in ``config.json``.


@dataclasses.dataclass(frozen=True, eq=False)
class Functions:
  """A module as pure functions.

  Attributes:
    name: of its class.
    text: the module in one line, the same in every process.
    init: ``(key, inputs) -> (weights, statistics)``.
    apply: ``(weights, statistics, inputs, key, train) -> (what the module
      returns, statistics)``; a ``key`` of ``None`` is for evaluation only.
    start: ``() -> (weights, statistics)`` that every seed starts from; ``None``
      where a seed draws its own.
    module: ``(weights, statistics) -> module``, in evaluation mode; NNX alone.
  """

  name: str
  text: str
  init: Callable[[Any, Any], tuple[Params, Stats]]
  apply: Callable[..., tuple[Any, Stats]]
  start: Callable[[], tuple[Params, Stats]] | None = None
  module: Callable[[Params, Stats], Any] | None = None


def _mode(where: str, call: Callable[..., Any]) -> Callable[[bool], dict]:
  """``train -> keywords`` that tell a module's ``__call__`` whether it trains.

  Raises:
    InputError: it has required arguments besides the inputs and the mode.
  """
  bound = list(inspect.signature(call).parameters.values())[1:]
  named = [p for p in bound if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
  if not bound:
    raise InputError(f"{where} must take inputs: def __call__(self, x)")
  modes = {p.name: _MODES[p.name] for p in named[1:] if p.name in _MODES}
  others = [
    p.name for p in named[1:] if p.default is p.empty and p.name not in modes
  ]
  if others:
    raise InputError(
      f"{where} is called with inputs and, if it has one of these arguments, "
      f"with {', '.join(_MODES)}; it also asks for {', '.join(others)}: give "
      "them a default"
    )
  return lambda train: {k: v == train for k, v in modes.items()}


def of_linen(where: str, module: nn.Module) -> Functions:
  """The functions of a Linen module.

  Args:
    where: names it in messages.
    module: an instance.

  Raises:
    InputError: its ``__call__`` asks for arguments that nobody gives.
  """
  module = module.clone(parent=None)
  keywords = _mode(where, type(module).__call__)

  def split(variables):
    stats = dict(meta.unbox(variables))
    return stats.pop("params", {}), stats

  def init(key, x):
    return split(module.init(key, x, **keywords(False)))

  def apply(params, stats, x, key, train):
    variables = {"params": params, **stats}
    # Streams that have no key of their own draw from that of ``params``.
    rngs = None if key is None else {"params": key}
    if not (train and stats):
      return module.apply(variables, x, rngs=rngs, **keywords(train)), stats
    made: Any = module.apply(
      variables, x, rngs=rngs, mutable=list(stats), **keywords(train)
    )
    y, new = made
    return y, {**stats, **meta.unbox(new)}

  return Functions(type(module).__name__, _text(module), init, apply)


def of_nnx(
  where: str, module: Any, make: Callable[..., Any] | None = None
) -> Functions:
  """The functions of an NNX module.

  Args:
    where: names it in messages.
    module: an instance; with ``make``, its shapes are enough.
    make: of ``nnx.Rngs``, draws the weights anew; without it, those of the
      instance are where every seed starts.

  Raises:
    InputError: its ``__call__`` asks for arguments that nobody gives.
  """
  keywords = _mode(where, type(module).__call__)
  graph, *parts = nnx.split(module, *_KINDS)
  if make is None:  # The user may go on with the module.
    parts = _copied(parts)
  weights, streams, others = (_Part(p) for p in parts)

  rebuilt = _rebuilder(graph, weights, streams, others)

  def apply(params, stats, x, key, train):
    made = rebuilt(params, stats, key, train)
    y = made(x, **keywords(train))
    new = _stats(others.like(nnx.split(made, *_KINDS)[-1]))
    return y, new if train else stats

  def drawn(key, x):
    del x
    assert make is not None
    _, params, _, stats = nnx.split(_call(make, key), *_KINDS)
    return weights.nested(params), _stats(others.nested(stats))

  def zeros(key, x):
    del key, x  # ``start`` has the weights.
    return weights.zeros(), _stats(others.zeros())

  def given():
    own = _copied(parts)  # A training step takes the arrays it is given.
    return weights.nested(own[0]), _stats(others.nested(own[2]))

  shapes = [w.shapes() for w in (weights, streams, others)]
  name, text = type(module).__name__, _text(nnx.merge(graph, *shapes))
  if make is not None:
    return Functions(name, text, drawn, apply, module=rebuilt)
  return Functions(name, text, zeros, apply, given, rebuilt)


def of_factory(where: str, make: Callable[..., Any]) -> Functions:
  """The functions of the NNX module that ``make`` makes of ``nnx.Rngs``.

  Raises:
    InputError: it fails, or makes something else; or as ``of_nnx``.
  """
  return of_nnx(where, _made(where, make), make)


_KINDS = (nnx.Param, nnx.RngState, ...)


def _rebuilder(graph, weights, streams, others):
  """``(weights, statistics, key, train) -> module`` in that mode."""

  def rebuilt(params, stats, key=None, train=False):
    key = jax.random.key(0) if key is None else key
    kept = others.state(stats.get(STATS, {}))
    states = weights.state(params), streams.keyed(key), kept
    # Copied: variables belong to the trace that they are made in.
    made = nnx.merge(graph, *states, copy=True)
    made.train() if train else made.eval()
    return made

  return rebuilt


def _stats(nested: dict[str, Any]) -> Stats:
  """Named as those of a Linen module; ``{}`` for none."""
  return {STATS: nested} if nested else {}


class _Part:
  """A part of an NNX module's state, to and from nested dictionaries."""

  def __init__(self, state: Any):
    flat, self._tree = jax.tree_util.tree_flatten_with_path(state)
    self._paths = [_names(path) for path, _ in flat]
    self._shapes = [(jnp.shape(x), x.dtype) for _, x in flat]

  def nested(self, state: Any) -> dict[str, Any]:
    """``state`` as nested dictionaries with strings as keys."""
    flat, _ = jax.tree_util.tree_flatten_with_path(state)
    return unflatten_dict({_names(path): x for path, x in flat})

  def state(self, nested: Mapping[str, Any]) -> Any:
    """The reverse of ``nested``, on variables of the present trace."""
    flat = flatten_dict(nested)
    return self._tree.unflatten([flat[path] for path in self._paths])

  def like(self, state: Any) -> dict[str, Any]:
    """``nested``, without what a call added, and in the dtypes of before."""
    flat = flatten_dict(self.nested(state))
    kept = zip(self._paths, self._shapes, strict=True)
    return unflatten_dict({p: jnp.asarray(flat[p], t) for p, (_, t) in kept})

  def shapes(self) -> Any:
    """The state with shapes and dtypes in place of arrays."""
    return self._tree.unflatten(
      [jax.ShapeDtypeStruct(*like) for like in self._shapes]
    )

  def zeros(self) -> dict[str, Any]:
    """Of the shapes and dtypes of the state."""
    kept = zip(self._paths, self._shapes, strict=True)
    return unflatten_dict({p: jnp.zeros(*like) for p, like in kept})

  def keyed(self, key: Any) -> Any:
    """Random streams: a key for each one, counts at zero."""

    def leaf(i, shape, dtype):
      if not jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jnp.zeros(shape, dtype)
      own = jax.random.fold_in(key, i)
      return jax.random.split(own, shape) if shape else own

    return self._tree.unflatten(
      [leaf(i, *like) for i, like in enumerate(self._shapes)]
    )


def _copied(tree: Any) -> Any:
  return jax.tree.map(lambda x: jnp.array(x, copy=True), tree)


def _names(path: tuple[Any, ...]) -> tuple[str, ...]:
  """Names on the way to a variable; those of its own fields are left out."""
  entries = [e for e in path if not isinstance(e, jax.tree_util.GetAttrKey)]
  return tuple(str(getattr(e, "key", e)) for e in entries)


def _call(make: Callable[..., Any], key: Any) -> Any:
  rngs = nnx.Rngs(key)
  named = "rngs" in inspect.signature(make).parameters
  return make(rngs=rngs) if named else make(rngs)


def _made(where: str, make: Callable[..., Any]) -> Any:
  """Shapes of the module that ``make`` makes."""
  try:
    module = nnx.eval_shape(lambda: _call(make, jax.random.key(0)))
  except UserError:
    raise
  except Exception as error:  # Whatever a function of the user's may raise.
    raise InputError(
      f"{where}, {short(make)}, is not a Flax module, and as a function of "
      f"rngs it failed: {type(error).__name__}: {error}"
    ) from error
  if not isinstance(module, nnx.Module):
    raise InputError(
      f"{where} is a function, so it must make an NNX module of rngs; it "
      "returned something else"
    )
  return module


def _text(module: Any) -> str:
  """``repr`` in a line, with nothing that another process would write else."""
  text = re.sub(r"\x1b\[[0-9;]*m", "", repr(module))  # Colours.
  text = re.sub(r" at 0x[0-9a-f]+| *# .*", "", text)  # Addresses, comments.
  text = " ".join(text.split())
  if len(text) <= _LONGEST:
    return text
  return f"{text[:_LONGEST]}... {hashlib.sha256(text.encode()).hexdigest()}"


def short(x: Any) -> str:
  """Its name, or what it prints as, for messages."""
  return cut(x.__qualname__ if hasattr(x, "__qualname__") else repr(x))


def cut(text: Any) -> str:
  """A text of at most 100 characters and dots."""
  text = str(text)
  return text if len(text) <= 100 else f"{text[:100]}..."
