"""Defaults for a user's own data with any modalities.

The encoder of a modality is looked up by its name, then by its kind; arrays of
different length whose encoder reads none have that of ``sequence``. Pictures
and spectrograms are small enough for a laptop's CPU.
"""

from __future__ import annotations

from data_pipelines import manifest
from dmg_jax.config import compose


def base(arg: str | None = None) -> compose.Config:
  """The config without a recipe; the argument is that of ``compose.base``."""
  config = compose.base(arg)
  config.data.update(compose.options(manifest.load), name="manifest")
  config.data.update(nperseg=256, noverlap=0)
  conv = {"widths": (16, 32, 64)}
  config.encoders = {
    "image": compose.encoder("small.ConvNet", **conv),
    "audio": compose.encoder("small.ConvNet", **conv),
    "waveform": compose.encoder("small.ConvNet1D"),
    "video": compose.encoder("small.ConvNet", **conv),
    "text": compose.encoder("small.WordBag", dropout=0.2),
    "array": compose.encoder("small.MLP"),
    compose.SEQUENCE: compose.encoder("small.GRU"),
  }
  config.optimiser.schedule = "cosine"
  config.train.batch_size = 16
  return config


def get_config(arg: str | None = None) -> compose.Config:
  """The config of ``<recipe>[,key=value...]``.

  Raises:
    ValueError: as ``compose.with_recipe``.
  """
  return compose.with_recipe(base(arg), arg)
