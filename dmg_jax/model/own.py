"""Encoders of the user's own: a Flax Linen or an NNX module as one of ours.

Whatever the module is, it becomes two pure functions (``pure.Functions``), and
those an encoder (``Own``) that the classifier calls like any other. Its weights
stand below ``encoders_<modality>/module``, as the module nests them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from dmg_jax.errors import InputError, UserError
from dmg_jax.model import fine_tuning, pure

NAME = "own"  # In the config, where others have ``<file>.<Class>``.
_WHERE = "module"


class Own(nn.Module):
  """The encoder that ``functions`` describe."""

  functions: pure.Functions

  @nn.compact
  def __call__(self, x: Any, train: bool) -> Any:
    if self.is_initializing():
      params, stats = self.functions.init(self.make_rng("params"), x)
      self.variable("params", _WHERE, lambda: params)
      if jax.tree.leaves(stats):
        self.variable(pure.STATS, _WHERE, lambda: stats)
    params = self.get_variable("params", _WHERE)
    stats = self.get_variable(pure.STATS, _WHERE, {})
    random = train and self.has_rng("dropout")
    key = self.make_rng("dropout") if random else None
    y, new = self.functions.apply(params, stats, x, key, train)
    if train and stats and self.is_mutable_collection(pure.STATS):
      self.put_variable(pure.STATS, _WHERE, new)
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
    return Own(pure.of_linen(where, module))
  if isinstance(module, nnx.Module):
    return Own(pure.of_nnx(where, module))
  linen = isinstance(module, type) and issubclass(module, nn.Module)
  if callable(module) and not linen:
    return Own(pure.of_factory(where, module))
  hint = f", as {module.__name__}(...)" if isinstance(module, type) else ""
  raise InputError(
    f"{where} must be a Flax module, got {pure.short(module)}: give an "
    f"instance of a Linen or NNX module{hint}, or a function of rngs that "
    "makes an NNX module"
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
      f"the encoder of {modality!r} was {pure.cut(there.get('module'))}; the "
      f"module that is given now is {pure.cut(now['module'])}: give the one "
      "that the run was trained with"
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
  made = {"params": {_WHERE: params}, pure.STATS: {_WHERE: stats}}
  return made if jax.tree.leaves(stats) else {"params": made["params"]}


def tensors(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The encoder's variables as flat tensors, ``params.Dense_0.kernel``.

  Unflattened at the dots they are the variables of a Linen module.
  """
  parts: dict[str, Any] = {"params": variables["params"][_WHERE]}
  parts.update(variables.get(pure.STATS, {}).get(_WHERE, {}))
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


def _digest(tree: Any) -> str:
  found = hashlib.sha256()
  for x in jax.tree.leaves(tree):
    found.update(np.asarray(x).tobytes())
  return found.hexdigest()[:16]
