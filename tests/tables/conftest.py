"""Tables without training."""

import pytest

from configs import tables
from dmg_jax.tables import grid, pictures
from dmg_jax.tracking.logging import Console
from fake_train import FakeTrain

SCORES = {"joint": 0.6, "h": 0.65, "lb": 0.7, "multitask": 0.7, "mla": 0.5}


def accuracy(config):
  """Of the recipe, plus one and a half points a seed."""
  return SCORES[config.recipe] + 0.015 * (config.seed % 1000)


@pytest.fixture
def fake(monkeypatch):
  """Nothing is trained, no data are read and no pictures drawn."""
  made = FakeTrain(accuracy)
  made.stand_in(monkeypatch)
  monkeypatch.setattr(pictures, "draw_all", lambda found, folder: {})
  return made


@pytest.fixture
def run(tmp_path):
  """``run("table1", "seeds=2", shard=1)``: exit code, in ``tmp_path``."""

  def go(table, keys, **fields):
    config = tables.get_config(f"{table},dataset=openmoji,{keys}")
    config.update_from_flattened_dict(fields)
    return grid.run(config, tmp_path, Console(quiet=True))

  return go
