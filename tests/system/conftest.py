"""Tiny runs through the real path: one prepared data set, one command line."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags, logging
from matplotlib.figure import Figure

from configs import openmoji
from data_pipelines import core
from dmg_jax import sharding, train
from dmg_jax.logging import Console, read_metrics

ROOT = Path(__file__).parents[2]
FILE = "configs/openmoji.py"
# A model and pictures as small as they go; 15 steps an epoch.
TINY = {
  "data.image_size": 8,
  "encoders.image.widths": (8,),
  "encoders.image.features": 8,
  "encoders.text.features": 8,
  "encoders.text.width": 8,
  "train.epochs": 2,
}


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """The prepared OpenMoji; workers that find it unfinished make their own."""
  folder = tmp_path_factory.mktemp("data")
  core.prepare("openmoji", folder, {})
  return folder


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
  """Compiled programs: most runs here compile what another has compiled."""
  return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def compiled_once(cache_dir):
  """Runs of this process share compiled programs."""
  with (
    jax._src.config.compilation_cache_dir(str(cache_dir)),
  ):
    yield


@pytest.fixture
def plain(monkeypatch):
  """Pictures are drawn up but not rendered."""

  def savefig(figure, path, **options):
    del figure, options
    path.write_bytes(b"picture")

  monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def one_device(monkeypatch):
  """Training on one of the eight devices."""

  def make_mesh(batch_size):
    del batch_size
    kind = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh(
      (1,), ("b",), axis_types=kind, devices=jax.devices()[:1]
    )

  monkeypatch.setattr(sharding, "make_mesh", make_mesh)


@pytest.fixture
def tiny(data_dir):
  """``tiny("lb,seed=3", {"train.epochs": 1})`` makes a config."""

  def make(recipe, fields=()):
    config = openmoji.get_config(recipe)
    changes = {**TINY, "data.dir": str(data_dir), **dict(fields)}
    config.update_from_flattened_dict(changes)
    return config

  return make
