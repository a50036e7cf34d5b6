"""What encoders of sequences have in common: their inputs and their ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from dmg_jax.errors import InputError, unknown

KINDS = ("array", "text")


def steps(
  x: Any, width: int, vocab_size: int | None
) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
  """The steps of a batch, zeros for padding, and which are real.

  Args:
    x: [b t d]; word numbers [b t] with 0 for padding, if there is a
      vocabulary; or either as ``{"values": ..., "mask": [b t]}``.
    width: of the embedding of words.
    vocab_size: number of words, if they are words.

  Raises:
    ValueError: samples are rows of numbers, [b d].
  """
  padded = isinstance(x, Mapping)
  values = jnp.asarray(x["values"] if padded else x)
  words = vocab_size is not None and jnp.issubdtype(values.dtype, jnp.integer)
  if values.ndim < (2 if words else 3):
    raise InputError(
      "an encoder of sequences reads samples [t d], got a batch of shape "
      f"{list(values.shape)}: give these numbers small.MLP"
    )
  mask = values > 0 if words else jnp.ones(values.shape[:2], bool)
  if padded:
    mask = jnp.asarray(x["mask"]) > 0
  if words and vocab_size is not None:
    values = nn.Embed(vocab_size, width, name="words")(values)
  values = values.reshape(*values.shape[:2], -1)
  if not jnp.issubdtype(values.dtype, jnp.floating):
    values = values.astype(jnp.float32)
  return jnp.where(mask[..., None], values, 0), mask


def check(encoder: nn.Module, choices: Mapping[str, tuple[str, ...]]) -> None:
  """Raises ``ValueError`` for invalid options of an encoder of sequences."""
  given, cls = vars(encoder), type(encoder).__name__
  for name, known in choices.items():
    if given[name] not in known:
      raise unknown(f"{name} of {cls}", given[name], known)
  for name in ("features", "width", "layers", "heads", "longest"):
    size = given.get(name, 1)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
      raise InputError(
        f"{name} of {cls} must be a whole number of at least 1, got {size!r}"
      )
  if not 0 <= given["dropout"] < 1:
    raise InputError(
      f"dropout of {cls} must lie in [0, 1), got {given['dropout']!r}"
    )


def key(encoder: nn.Module, train: bool) -> Key[Array, ""] | None:
  """A key for dropout inside the layers; ``None`` for none."""
  wanted = train and vars(encoder)["dropout"] > 0
  return encoder.make_rng("dropout") if wanted else None


def key_at(key: Any, *place: int) -> Any:
  """The key of a place in the network."""
  if key is None:
    return None
  for i in place:
    key = jax.random.fold_in(key, i)
  return key


def end(
  encoder: nn.Module, pooled: Float[Array, "b w"], train: bool
) -> Float[Array, "b d"]:
  """Features of what was pooled: dropout and a linear layer."""
  options = vars(encoder)
  drop = nn.Dropout(options["dropout"], deterministic=not train)
  return nn.Dense(options["features"], name="project")(drop(pooled))
