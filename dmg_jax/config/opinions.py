"""Shared config of data sets of opinions: sequences of text, sound and video.

Encoders are Transformers, one a modality, over aligned sequences and over those
of any length alike. In addition to the keys of a recipe there is
``quick=true``: narrow networks and a few epochs, for a laptop.
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
  config.encoders = {m: _encoder(64, layers=2) for m in MODALITIES}
  config.optimiser.update(name="adam", learning_rate=1e-3, schedule="plateau")
  config.train.update(epochs=epochs, batch_size=32, inner_batch_size=32)
  config.eval.batch_size = 256
  small = _encoder(16, layers=1)
  quick: dict[str, Any] = {f"encoders.{m}": small for m in MODALITIES}
  quick |= {"train.epochs": 5, "train.batch_size": 64}
  return compose.with_recipe(config, arg, quick)


def _encoder(width: int, layers: int) -> Any:
  options = {"width": width, "layers": layers, "dropout": 0.2}
  return compose.encoder("small.Transformer", **options)
