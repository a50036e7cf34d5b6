"""Shared config of data sets of opinions: sequences of text, sound and video.

In addition to the keys of a recipe there is ``quick=true``: narrow networks and
a few epochs, for a laptop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmg_jax.config import compose

MODALITIES = ("text", "audio", "vision")


def get_config(
  name: str, load: Callable[..., Any], arg: str | None, epochs: int
) -> compose.Config:
  """The config of ``<recipe>[,key=value...]``.

  Args:
    name: name of the data set.
    load: the ``load`` function of the data set.
    arg: the string after the colon.
    epochs: number of epochs.
  """
  config = compose.base(arg)
  config.data.update(compose.options(load), name=name)
  config.encoders = {m: _encoder(256) for m in MODALITIES}
  config.optimiser.update(name="adam", learning_rate=1e-3, schedule="plateau")
  config.train.update(epochs=epochs, batch_size=32, inner_batch_size=32)
  config.eval.batch_size = 256
  quick: dict[str, Any] = {f"encoders.{m}": _encoder(32) for m in MODALITIES}
  quick |= {"train.epochs": 5, "train.batch_size": 64}
  return compose.with_recipe(config, arg, quick)


def _encoder(width: int) -> Any:
  return compose.encoder("small.MLP", widths=(width,), dropout=0.2)
