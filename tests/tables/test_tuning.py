"""Trials: the same number for all, chosen by val, without reading test."""

import functools
import json

import numpy as np
import pytest

from configs import tables
from configs.search import SPACE
from dmg_jax.config import search
from dmg_jax.config.rows.tables import ROWS
from dmg_jax.model import registry
from dmg_jax.tables import cells, tuning

trial = functools.partial(search.trial, SPACE)
KEYS = "seeds=1,trials=3,rows=joint+lb"


def test_defaults_come_first_and_draws_do_not_change():
  for recipe in ("joint", "lb", "greedy"):
    assert trial(recipe, 0) == {}
    drawn = [trial(recipe, i) for i in range(1, 5)]
    assert drawn == [trial(recipe, i) for i in range(1, 5)]
    assert len({json.dumps(d) for d in drawn}) == 4
  both = [trial(r, 2)["learning_rate_factor"] for r in ("lb", "mla")]
  assert both[0] == both[1]
  a, b = (trial(r, 2)["method"]["rate"] for r in ("lb", "lb_forward"))
  assert a != b
  assert trial("lb", 1) == {
    "learning_rate_factor": 0.447,
    "method": {"rate": 0.0658, "temperature": 0.085},
  }


def test_learning_rates_of_few_trials_lie_on_both_sides():
  given = [trial("joint", i)["learning_rate_factor"] for i in range(1, 9)]
  for count in range(2, 9):
    below = sum(f < 1 for f in given[:count])
    assert abs(2 * below - count) <= 2
  assert 1 not in given and len(set(given)) == 8
  assert all(0.2 <= f <= 5 for f in given)


@pytest.mark.parametrize("knob", [search.Log(0.01, 10), search.Uniform(2, 3)])
def test_ranges(knob):
  rng = np.random.default_rng(0)
  drawn = sorted(knob.draw(rng) for _ in range(2000))
  assert knob.low <= drawn[0] and drawn[-1] <= knob.high
  centre = 2.5 if isinstance(knob, search.Uniform) else 0.316
  assert drawn[1000] == pytest.approx(centre, rel=0.35)


@pytest.mark.slow
def test_every_space_is_of_a_recipe_and_can_be_run():
  assert set(SPACE.knobs) <= set(ROWS)
  rows = "+".join(SPACE.knobs)
  config = tables.get_config(f"methods,dataset=openmoji,trials=4,rows={rows}")
  for row in SPACE.knobs:
    for number in range(4):
      method = config.rows[row].method.to_dict()
      drawn = trial(row, number).get("method", {})
      assert set(drawn) <= set(method)
      registry.make_method(**{**method, **drawn})


def test_a_row_s_own_values_are_not_tuned():
  config = tables.get_config("table4,dataset=openmoji,trials=3")
  fixed = config.rows.constant_50
  assert fixed.method.alpha == 0.5
  for trial in ("trial_1", "trial_2"):
    assert set(fixed.trials[trial].method) == {"temperature"}
  given = tables.get_config("table1,dataset=openmoji,trials=2,rows=lb")
  assert set(given.rows.lb.trials.trial_1.method) == {"rate", "temperature"}


def test_learning_rate_is_relative_to_the_table_s(tmp_path):
  config = tables.get_config(f"table1,dataset=openmoji,{KEYS}")
  config.optimiser.learning_rate = 0.1
  cell = cells.trials(config, tmp_path, "joint")[1]
  assert cells.run_config(config, cell, 1).optimiser.learning_rate == 0.0447


def test_the_best_on_val_is_taken_and_test_unread(run, fake, tmp_path):
  by_rate = {0.001: 0.5, 0.000447: 0.6, 0.00224: 0.4}
  seen = []

  def accuracy(config):
    seen.append(config.optimiser.learning_rate)
    return by_rate.get(config.optimiser.learning_rate, 0.45)

  fake.accuracy = accuracy
  assert run("table1", KEYS) == 0
  assert fake.calls == [
    f"{row}/{run}" for row in ("joint", "lb")
    for run in ("trial_0", "trial_1", "trial_2", "seed_0")
  ]  # fmt: skip
  assert fake.tested == ([False] * 3 + [True]) * 2
  assert seen[3::4] == [0.000447, 0.000447]
  stored = json.loads((tmp_path / "lb" / "seed_0" / "config.json").read_text())
  assert stored["config"]["method"]["rate"] == 0.0658
  assert stored["config"]["eval"]["test"] and stored["config"]["seed"] == 0
  trial = json.loads((tmp_path / "lb" / "trial_1" / "config.json").read_text())
  assert trial["config"]["seed"] == 1000
  lb = json.loads((tmp_path / "table.json").read_text())["rows"][1]
  assert lb["chosen"] == {
    "optimiser.learning_rate": 0.000447,
    "method.rate": 0.0658,
    "method.temperature": 0.085,
  }
  assert [t["accuracy"] for t in lb["trials"]][:2] == [0.5, 0.6]
  text = (tmp_path / "table.md").read_text()
  assert r"Ours-LB: optimiser.learning\_rate = 0.000447, method.rate" in text


def test_ties_go_by_loss_then_by_order(tmp_path, monkeypatch):
  config = tables.get_config("table1,dataset=openmoji,trials=4,rows=joint")
  val = [(0.5, 0.2), (0.6, 0.9), (0.6, 0.7), (0.6, 0.7)]

  def results(config, cell, trial):
    accuracy, loss = val[trial]
    return {"val": {"fused": {"accuracy": accuracy, "loss": loss}}}

  monkeypatch.setattr(cells, "results", results)
  found = tuning.choose(config, tmp_path, "joint")
  assert found is not None and found.trial == 2
  val[1] = ("NaN", 0.1)
  val[2] = (0.6, "NaN")
  found = tuning.choose(config, tmp_path, "joint")
  assert found is not None and found.trial == 3


def test_the_score_that_selects_chooses_the_trial(tmp_path, monkeypatch):
  keys = "trials=3,rows=joint,select_by=macro_f1"
  config = tables.get_config(f"table1,dataset=openmoji,{keys}")
  val = [(0.9, 0.2), (0.6, 0.5), (0.6, 0.7)]

  def results(config, cell, trial):
    accuracy, f1 = val[trial]
    fused = {"accuracy": accuracy, "macro_f1": f1, "loss": 1.0}
    return {"val": {"fused": fused}}

  monkeypatch.setattr(cells, "results", results)
  found = tuning.choose(config, tmp_path, "joint")
  assert found is not None and found.trial == 2
  assert found.tried[2]["macro_f1"] == 0.7
  config.train.select_by = "loss"
  found = tuning.choose(config, tmp_path, "joint")
  assert found is not None and found.trial == 0


def test_trials_that_fail_are_part_of_the_budget(run, fake, tmp_path):
  fake.faults = {"lb/trial_0": "diverged", "lb/trial_2": "error"}
  assert run("table1", KEYS) == 0
  lb = json.loads((tmp_path / "table.json").read_text())["rows"][1]
  assert lb["chosen"]["method.rate"] == 0.0658
  assert lb["trials"][0]["status"] == "diverged"
  text = (tmp_path / "table.md").read_text()
  assert "2 of 3 trials failed" in text
  # Its seed has begun with the choice, which stays.
  done = len(fake.calls)
  run("table1", KEYS)
  assert len(fake.calls) == done


def test_a_row_not_for_such_data_has_nothing_to_choose(run, fake, tmp_path):
  fake.faults = {f"lb/trial_{i}": "unsuitable" for i in range(3)}
  fake.faults["lb/seed_0"] = "unsuitable"
  assert run("table1", KEYS) == 0
  text = (tmp_path / "table.md").read_text()
  assert "Ours-LB: unsuitable, nothing to choose." in text
  assert "trials failed" not in text


def test_without_trials_there_is_nothing_to_choose(tmp_path):
  config = tables.get_config("table1,dataset=openmoji,rows=joint")
  assert cells.trials(config, tmp_path, "joint") == []
  assert tuning.choose(config, tmp_path, "joint") == (0, {}, [])
