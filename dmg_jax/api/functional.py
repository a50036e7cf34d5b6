"""An NNX model as a pure function, which ``bind`` takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import nnx

from dmg_jax.errors import InputError
from dmg_jax.model import pure
from dmg_jax.types import Params, Stats


class Functional(NamedTuple):
  """An NNX model as a pure function, made by ``functional``.

  Attributes:
    apply: ``(params, stats, inputs, *, train, key) -> (outputs, stats)``.
    params: its weights as nested dictionaries with strings as keys.
    stats: its other variables, such as batch statistics; ``{}`` for none.
    module: ``(params, stats) -> module``, the NNX model with these weights, in
      evaluation mode.

  Example:

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> import dmg_jax
    >>> f = dmg_jax.functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> f.module(f.params, f.stats)(jnp.ones((4, 3))).shape
    (4, 2)
  """

  apply: Callable[..., Any]
  params: Params
  stats: Stats
  module: Callable[[Params, Stats], Any]


def functional(module: Any) -> Functional:
  """An NNX model as a pure function, for ``bind``.

  ``train`` sets its mode (``module.train()``, ``module.eval()``, and an
  argument ``train`` or ``deterministic`` of its ``__call__``); its random
  streams start from ``key``. The module itself is not changed.

  Args:
    module: called as ``module(inputs)``, with {modality: [b ...]}.

  Raises:
    InputError: it is no NNX module, or asks for other arguments.

  Example:

    >>> import jax.numpy as jnp
    >>> from flax import nnx
    >>> import dmg_jax
    >>> f = dmg_jax.functional(nnx.Linear(3, 2, rngs=nnx.Rngs(0)))
    >>> sorted(f.params), f.stats
    (['bias', 'kernel'], {})
    >>> y, stats = f.apply(
    ...   f.params, f.stats, jnp.ones((4, 3)), train=False, key=None
    ... )
    >>> y.shape
    (4, 2)
  """
  if not isinstance(module, nnx.Module):
    raise InputError(
      f"functional takes an NNX module, got {type(module).__name__}: a Linen "
      "module's apply is a pure function already"
    )
  made = pure.of_nnx("the model", module)
  assert made.start is not None and made.module is not None

  def apply(params, stats, inputs, *, train, key):
    return made.apply(params, stats, inputs, key, train)

  return Functional(apply, *made.start(), made.module)
