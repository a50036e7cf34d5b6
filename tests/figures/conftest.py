"""Figures without training."""

import pytest

from configs import figures as configs
from dmg_jax import figures
from dmg_jax.figures import figure1, figure3
from dmg_jax.tracking.logging import Console
from fake_train import FakeTrain
from pages import without_pictures


def accuracy(config):
  """Falls with the weight, rises with the seed."""
  return 0.7 - config.method.get("weight", 0.0) / 10 + config.seed / 50


@pytest.fixture
def fake(monkeypatch):
  """Nothing is trained, no data are read, no picture is rendered."""
  made = FakeTrain(accuracy)
  made.stand_in(monkeypatch)
  for module in (figure1, figure3):  # It lays out the whole figure.
    monkeypatch.setattr(module, "label_ends", lambda *_: None)
  without_pictures(monkeypatch)
  return made


@pytest.fixture
def run(tmp_path):
  """``run("figure1,dataset=openmoji", **fields)``: code, in ``tmp_path``."""

  def go(arg, **fields):
    config = configs.get_config(arg)
    config.update_from_flattened_dict(fields)
    return figures.run(config, tmp_path, Console(quiet=True))

  return go
