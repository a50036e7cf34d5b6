"""What imbalance costs: who is compared, the interval, the sentence."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from configs import tables
from dmg_jax.evaluation import statistics
from dmg_jax.tables import cost, writers
from dmg_jax.tables.summary import Cell, Column, Row, Summary

COLUMN = Column("fused", "accuracy", 1)


class Known(Row):
  """A row with results for each test sample."""

  def right(self, column):
    wanted = self.values(column)
    rng = np.random.default_rng(0)
    return {s: rng.permutation(200) < 200 * v for s, v in wanted.items()}


def made(test, val, kind=Row, group="", **names):
  """A summary of rows with these scores of each seed; val is one number."""
  rows = []
  for name, scores in test.items():
    cells = [
      Cell(
        seed, name, "done", "",
        {"fused": {"accuracy": x}}, "R1", val={"fused": {"accuracy": val[name]}}
      )
      for seed, x in enumerate(scores)
    ]  # fmt: skip
    base = names.get(name, "")
    rows.append(kind(name, name, name, cells, None, Path(), group, base))
  return Summary("cost", "Cost", "toy", "toy", rows, [COLUMN], 1, "joint", ())


TEST = {
  "joint": (0.60, 0.62, 0.61, 0.63),
  "ensemble": (0.70, 0.71, 0.70, 0.73),
  "multitask": (0.80, 0.82, 0.79, 0.81),
}
VAL = {"joint": 0.9, "ensemble": 0.6, "multitask": 0.7}


def test_val_chooses_whom_joint_training_is_compared_with():
  (found,) = cost.costs(made(TEST, {**VAL, "ensemble": 0.8}))
  assert found.apart.name == "ensemble"
  difference = np.subtract(TEST["ensemble"], TEST["joint"])
  assert found.found.mean == pytest.approx(difference.mean())
  assert found.ends == pytest.approx(statistics.interval(difference))
  (found,) = cost.costs(made(TEST, VAL))
  assert found.apart.name == "multitask"
  assert found.as_json()["value"] == pytest.approx(0.19)


def test_the_interval_is_for_other_samples_where_they_are_known():
  val = {**VAL, "ensemble": 0.8}
  (found,) = cost.costs(made(TEST, val, Known))
  joint, _, _ = made(TEST, val, Known).rows
  each = np.stack(
    [
      found.apart.right(COLUMN)[s].astype(float) - joint.right(COLUMN)[s]
      for s in range(4)
    ]
  )
  assert found.ends == pytest.approx(statistics.interval_beyond(each))
  assert "over 4 seeds and 200 test samples" in found.sentence()


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_have_the_interval_of_the_samples_alone(seeds):
  test = {name: TEST[name][:seeds] for name in ("joint", "ensemble")}
  val = dict.fromkeys(test, 0.5)
  (found,) = cost.costs(made(test, val, Known))
  d = np.mean(
    [
      found.apart.right(COLUMN)[s].astype(float) - found.joint.right(COLUMN)[s]
      for s in range(seeds)
    ],
    axis=0,
  )
  ends = stats.t.interval(0.95, d.size - 1, d.mean(), stats.sem(d))
  assert found.as_json()["interval"] == pytest.approx(ends)
  assert found.as_json()["samples"] == 200
  assert "over 200 test samples alone; " in found.sentence()
  assert "3 are needed to tell it from chance" in found.sentence()
  (unknown,) = cost.costs(made(test, val))
  assert unknown.ends is None and unknown.as_json()["samples"] == 0


def test_val_is_compared_over_the_seeds_of_both():
  """A lucky seed that only one of the two has finished does not choose."""
  found = made(TEST, VAL)
  *_, ensemble, multitask = found.rows
  lucky = {"fused": {"accuracy": 1.0}}
  for seed in (0, 1):
    ensemble.cells[seed] = dataclasses.replace(ensemble.cells[seed], val=lucky)
    multitask.cells[seed] = dataclasses.replace(multitask.cells[seed], val={})
  (one,) = cost.costs(found)
  assert one.apart.name == "multitask"


def test_nothing_is_shown_as_minus_zero():
  test = {"joint": (0.6, 0.6, 0.6), "ensemble": (0.6, 0.6, 0.5998)}
  (found,) = cost.costs(made(test, dict.fromkeys(test, 0.5)))
  assert "\N{MINUS SIGN}0.0 " not in found.sentence()
  assert "\N{MINUS SIGN}0.01 points" in found.sentence()


@pytest.mark.parametrize(
  ("ensemble", "said"),
  [
    ((0.70, 0.71, 0.70, 0.73), "costs joint training on toy: +9.5 points"),
    (
      (0.59, 0.64, 0.60, 0.64),
      "No imbalance cost is shown on toy: +0.",
    ),
    ((0.50, 0.51, 0.52, 0.50), "costs nothing on toy: −10."),
    ((0.70, 0.71), "+9.5 points (ensemble 70.5, joint 61.0 fused accuracy; 2"),
    ((0.55,), "\N{MINUS SIGN}5.0 points (ensemble 55.0, joint 60.0"),
  ],
)
def test_sentences(ensemble, said):
  test = {"joint": TEST["joint"], "ensemble": ensemble}
  (found,) = cost.costs(made(test, dict.fromkeys(test, 0.5)))
  assert said in found.sentence()


def test_what_is_needed_for_it():
  val = dict.fromkeys(TEST, 0.5)
  assert not cost.costs(made({"joint": TEST["joint"]}, val))
  assert not cost.costs(made({"ensemble": TEST["joint"]}, val))
  other = {"a": TEST["joint"], "b": TEST["multitask"]}
  named = {"a": "zero_feature", "b": "own_heads"}
  found = made(other, {"a": 0.1, "b": 0.2}, Row, "rate 0.3", **named)
  (one,) = cost.costs(found)
  assert (one.joint.name, one.apart.name) == ("a", "b")
  assert "on toy (rate 0.3)" in one.sentence()


def test_it_comes_first_and_the_table_has_its_rows():
  found = made(TEST, dict.fromkeys(TEST, 0.5))
  (sentence,) = (c.sentence() for c in cost.costs(found))
  assert writers.plain(found).splitlines()[2] == sentence
  assert writers.as_json(found)["cost"][0]["sentence"] == sentence
  config = tables.get_config("cost,dataset=openmoji,seeds=3")
  assert list(config.table.rows) == [
    "unimodal_image", "unimodal_text", "joint", "ensemble", "multitask",
  ]  # fmt: skip
