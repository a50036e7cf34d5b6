"""Tables without training."""

import pytest

from configs import tables
from dmg_jax import train
from dmg_jax.logging import Console
from dmg_jax.tables import grid
from fake_train import FakeTrain

SCORES = {"joint": 0.6, "h": 0.65, "lb": 0.7, "multitask": 0.7, "mla": 0.5}


def accuracy(config):
  """Of the recipe, plus one and a half points a seed."""
  return SCORES[config.recipe] + 0.015 * (config.seed % 1000)


def write_page(folder):
  """In place of a run's report."""
  (folder / "report").mkdir(exist_ok=True)
  (folder / "report" / "report.html").write_text("page")


@pytest.fixture
def fake(monkeypatch):
  """Nothing is trained and no data are read."""
  made = FakeTrain(accuracy)
  monkeypatch.setattr(train, "run_jobs", made.run_jobs)
  monkeypatch.setattr(grid.report, "write_report", write_page)
  monkeypatch.setattr(grid, "_check_data", lambda config, cell: None)
  monkeypatch.setattr(grid, "_forget", lambda: None)
  return made


@pytest.fixture
def run(tmp_path):
  """``run("table1", "seeds=2", shard=1)``: exit code, in ``tmp_path``."""

  def go(table, keys, **fields):
    config = tables.get_config(f"{table},dataset=openmoji,{keys}")
    config.update_from_flattened_dict(fields)
    return grid.run(config, tmp_path, Console(quiet=True))

  return go
