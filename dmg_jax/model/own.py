"""Encoders of the user's own: a Flax Linen or an NNX module as one of ours.

Whatever the module is, it becomes two pure functions (``Functions``), and those
an encoder (``Own``) that the classifier calls like any other. Its weights stand
below ``encoders_<modality>/module``, as the module nests them.

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
import numpy as np
from flax import nnx
from flax.core import meta
from flax.traverse_util import flatten_dict, unflatten_dict

from dmg_jax.errors import InputError, UserError
from dmg_jax.model import fine_tuning
from dmg_jax.types import Params, Stats

NAME = "own"  # In the config, where others have ``<file>.<Class>``.
_WHERE = "module"
_STATS = "batch_stats"
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


class Own(nn.Module):
  """The encoder that ``functions`` describe."""

  functions: Functions

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    if self.is_initializing():
      params, stats = self.functions.init(self.make_rng("params"), x)
      self.variable("params", _WHERE, lambda: params)
      if jax.tree.leaves(stats):
        self.variable(_STATS, _WHERE, lambda: stats)
    params = self.get_variable("params", _WHERE)
    stats = self.get_variable(_STATS, _WHERE, {})
    random = train and self.has_rng("dropout")
    key = self.make_rng("dropout") if random else None
    y, new = self.functions.apply(params, stats, x, key, train)
    if train and stats and self.is_mutable_collection(_STATS):
      self.put_variable(_STATS, _WHERE, new)
    return y


def wrap(modality: str, module: Any) -> Own:
  """The encoder of a module; an encoder made before is returned as it is.

  Args:
    modality: its name, for messages.
    module: a Linen module, an NNX module, or a function of ``nnx.Rngs`` that
      makes an NNX module.

  Raises:
    InputError: it is something else, or cannot be called as an encoder.
  """
  where = f"encoders[{modality!r}]"
  if isinstance(module, Own):
    return module
  if isinstance(module, nn.Module):
    return Own(_linen(where, module))
  if isinstance(module, nnx.Module):
    return Own(of_nnx(where, module))
  linen = isinstance(module, type) and issubclass(module, nn.Module)
  if callable(module) and not linen:
    return Own(of_nnx(where, _made(where, module), module))
  hint = f", as {module.__name__}(...)" if isinstance(module, type) else ""
  raise InputError(
    f"{where} must be a Flax module, got {_short(module)}: give an instance of "
    f"a Linen or NNX module{hint}, or a function of rngs that makes an NNX "
    "module"
  )


def options(encoder: Own) -> dict[str, Any]:
  """What the config keeps of it: name, class, module, and given weights."""
  f = encoder.functions
  kept = {"name": NAME, "class": f.name, "module": f.text}
  if f.start is not None:
    kept["weights"] = _digest(f.start())
  return kept


def checked_options(
  modality: str, encoder: Own, there: Mapping[str, Any]
) -> dict[str, Any]:
  """``options``, or those of a run that had been trained with the module.

  With those of ``fine_tuning``, as the config has them.

  Args:
    modality: its name.
    encoder: of the module that is given now.
    there: the modality's encoder in the config; ``{}`` for none.

  Raises:
    InputError: the config is of a run with another module.
  """
  now = options(encoder)
  if there.get("name") != NAME:
    return {**now, **fine_tuning.of(there)}
  if there.get("module") != now["module"]:
    raise InputError(
      f"the encoder of {modality!r} was {_cut(there.get('module'))}; the "
      f"module that is given now is {_cut(now['module'])}: give the one that "
      "the run was trained with"
    )
  return dict(there)


def missing(modality: str, there: Mapping[str, Any]) -> InputError:
  """The error for a run whose module is not given."""
  return InputError(
    f"the encoder of {modality!r} is a module of your own, "
    f"{there.get('class', NAME)}, which a run does not store: give it again "
    f"from Python, encoders={{{modality!r}: ...}} (to dmg_jax.fit, or to "
    "dmg_jax.load for a run that exists)"
  )


def start(encoder: Own) -> dict[str, Any] | None:
  """Given weights as the encoder's variables; ``None`` where it has none."""
  if encoder.functions.start is None:
    return None
  params, stats = encoder.functions.start()
  made = {"params": {_WHERE: params}, _STATS: {_WHERE: stats}}
  return made if jax.tree.leaves(stats) else {"params": made["params"]}


def tensors(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The encoder's variables as flat tensors, ``params.Dense_0.kernel``.

  Unflattened at the dots they are the variables of a Linen module.
  """
  parts: dict[str, Any] = {"params": variables["params"][_WHERE]}
  parts.update(variables.get(_STATS, {}).get(_WHERE, {}))
  flat = flatten_dict(parts, sep=".")
  return {k: np.asarray(v, order="C") for k, v in flat.items()}


def check(modality: str, encoder: Own, x: Any) -> None:
  """Traces the encoder: it must return a row of features a sample, [b d].

  Args:
    modality: its name.
    encoder: to be checked.
    x: inputs of the modality, [b ...].

  Raises:
    InputError: it returns something else, or cannot be called; with its name,
      what it was given, what it returned and what is wanted.
  """
  f = encoder.functions
  where, given = f"encoders[{modality!r}], {f.name}", shape_of(x)

  def both(x):
    key = jax.random.key(0)
    params, stats = f.init(key, x)
    trained, _ = f.apply(params, stats, x, key, True)
    return f.apply(params, stats, x, None, False)[0], trained

  try:
    found = jax.eval_shape(both, x)
  except UserError:
    raise
  except Exception as error:  # Whatever a module of the user's may raise.
    raise InputError(
      f"{where}, failed on inputs {given}: {type(error).__name__}: {error}"
    ) from error
  for y in found:
    if not is_rows(y, len(jax.tree.leaves(x)[0])):
      raise InputError(
        f"{where}, returned {shape_of(y)} for inputs {given}: an encoder "
        "returns floats [b d], one row of d features for each sample"
      )


def is_rows(y: Any, count: int) -> bool:
  """Whether it is an array of floats with two axes and ``count`` rows."""
  return (
    hasattr(y, "shape")
    and len(y.shape) == 2
    and y.shape[0] == count
    and jnp.issubdtype(y.dtype, jnp.floating)
  )


def shape_of(tree: Any) -> str:
  """``float32[2, 3]``, for messages; of several arrays, all of them."""

  def one(x):
    if not hasattr(x, "shape"):
      return type(x).__name__
    return f"{np.dtype(x.dtype).name}{list(x.shape)}"

  return str(jax.tree.map(one, tree)).replace("'", "")


def mode(where: str, call: Callable[..., Any]) -> Callable[[bool], dict]:
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


def _linen(where: str, module: nn.Module) -> Functions:
  module = module.clone(parent=None)
  keywords = mode(where, type(module).__call__)

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
  keywords = mode(where, type(module).__call__)
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


_KINDS = (nnx.Param, nnx.RngState, ...)


def _rebuilder(graph, weights, streams, others):
  """``(weights, statistics, key, train) -> module`` in that mode."""

  def rebuilt(params, stats, key=None, train=False):
    key = jax.random.key(0) if key is None else key
    kept = others.state(stats.get(_STATS, {}))
    states = weights.state(params), streams.keyed(key), kept
    # Copied: variables belong to the trace that they are made in.
    made = nnx.merge(graph, *states, copy=True)
    made.train() if train else made.eval()
    return made

  return rebuilt


def _stats(nested: dict[str, Any]) -> Stats:
  """Named as those of a Linen module; ``{}`` for none."""
  return {_STATS: nested} if nested else {}


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
      f"{where}, {_short(make)}, is not a Flax module, and as a function of "
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


def _digest(tree: Any) -> str:
  found = hashlib.sha256()
  for x in jax.tree.leaves(tree):
    found.update(np.asarray(x).tobytes())
  return found.hexdigest()[:16]


def _short(x: Any) -> str:
  return _cut(x.__qualname__ if hasattr(x, "__qualname__") else repr(x))


def _cut(text: Any) -> str:
  text = str(text)
  return text if len(text) <= 100 else f"{text[:100]}..."
