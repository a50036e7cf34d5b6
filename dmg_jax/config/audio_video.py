"""Shared config of audio-video data sets, with the settings of the paper.

In addition to the keys of a recipe there is ``quick=true``: small pictures and
narrow networks, for a laptop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dmg_jax.config import compose


def get_config(
  name: str,
  load: Callable[..., Any],
  arg: str | None,
  quick_seconds: float,
  usual: Mapping[str, Any] | None = None,
) -> compose.Config:
  """The config of ``<recipe>[,key=value...]`` with the paper's settings.

  Args:
    name: name of the data set.
    load: the ``load`` function of the data set.
    arg: the string after the colon.
    quick_seconds: length of the sounds with ``quick=true``.
    usual: {path: value} of settings that are usual for other sets than the
      paper's.
  """
  config = compose.base(arg)
  config.data.update(compose.options(load), name=name)
  config.encoders = {
    "audio": compose.encoder("resnet.ResNet", depth=18),
    "video": compose.encoder("resnet.ResNet", depth=18),
  }
  config.optimiser.update(
    name="sgd", learning_rate=1e-2, momentum=0.9, weight_decay=1e-4
  )
  config.optimiser.schedule = "plateau"
  config.train.update(epochs=200, batch_size=64, inner_batch_size=16)
  config.eval.batch_size = 64
  for path, value in (usual or {}).items():
    compose.assign(config, path, value)
  return compose.with_recipe(config, arg, _quick(quick_seconds))


def _quick(seconds: float) -> dict[str, Any]:
  """Fields that ``quick=true`` changes."""
  small = compose.encoder("small.ConvNet", widths=(8, 16))
  return {
    "data.image_size": 32,
    "data.sample_rate": 8000,
    "data.seconds": seconds,
    "encoders.audio": small,
    "encoders.video": small,
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.outer_batch_size": 64,
    "eval.batch_size": 16,
  }
