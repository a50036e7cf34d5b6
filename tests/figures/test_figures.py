"""Runs of a figure, the numbers in its CSV file, and bad input."""

import csv
import json
import re

import numpy as np
import pytest

import fake_runs
from configs import figures as configs
from configs import openmoji
from dmg_jax import figures
from dmg_jax.figures import figure2, figure3, figure4
from dmg_jax.report.features import load_features, pairs
from dmg_jax.tables import cells
from dmg_jax.tracking.logging import Console

ONE = "figure1,dataset=openmoji,weights=0.5+0"


def read(path):
  with path.open(encoding="utf-8") as file:
    return list(csv.DictReader(file))


def test_figure1_numbers(run, fake, tmp_path):
  assert run(f"{ONE},seeds=3") == 0
  assert sorted(fake.calls) == [
    f"weight_{w}/seed_{s}" for w in (0, 50) for s in (0, 1, 2)
  ]
  zero, half = read(tmp_path / "figure1.csv")
  assert (zero["weight"], half["weight"], half["seeds"]) == ("0", "0.5", "3")
  for line, centre in ((zero, 72.0), (half, 67.0)):  # Seeds: -2, 0, +2.
    assert float(line["fused mean"]) == pytest.approx(centre)
    assert float(line["fused std"]) == pytest.approx(2.0)
    assert (line["image mean"], line["text mean"]) == ("30", "40")
    assert float(line["gap mean"]) == pytest.approx(10)
    assert line["read-out"] == "R1"
  assert {p.name for p in tmp_path.glob("figure1.*")} == {
    "figure1.png", "figure1.pdf", "figure1.csv",
  }  # fmt: skip


def test_what_is_done_is_not_run_again_and_more_adds(run, fake, tmp_path):
  run(ONE)
  run(f"{ONE}+0.25")
  assert fake.calls == [f"weight_{w}/seed_0" for w in (0, 50, 25)]
  lines = read(tmp_path / "figure1.csv")
  assert [x["weight"] for x in lines] == ["0", "0.25", "0.5"]
  assert lines[0]["fused std"] == ""  # Of one seed there is none.
  config = configs.get_config(ONE)
  config.figure.title = "other"
  figures.draw(config, tmp_path, Console(quiet=True))
  assert len(read(tmp_path / "figure1.csv")) == 2 and len(fake.calls) == 3


def test_stopped_and_failed_runs(run, fake, tmp_path, capsys):
  fake.faults = {"weight_0/seed_0": "stop"}
  assert run(ONE) == 0 and not (tmp_path / "figure1.csv").exists()
  fake.faults = {"weight_0/seed_0": "diverged", "weight_50/seed_0": "error"}
  assert run(ONE) == 1 and not (tmp_path / "figure1.csv").exists()
  fake.faults = {}
  config = configs.get_config(ONE)
  assert figures.run(config, tmp_path, Console()) == 0
  assert [x["weight"] for x in read(tmp_path / "figure1.csv")] == ["0.5"]
  assert "drawn without 1 runs" in capsys.readouterr().out


def test_shards_share_the_runs(run, fake, tmp_path):
  run(ONE, shard=1, shards=2)
  assert fake.calls == ["weight_50/seed_0"]
  assert len(read(tmp_path / "figure1.csv")) == 1
  run(ONE, shard=0, shards=2)
  assert len(read(tmp_path / "figure1.csv")) == 2


def test_a_run_is_that_of_its_recipe(tmp_path):
  """A weight's run is ``label_fitting,weight=..`` alone."""
  config = configs.get_config("figure1,dataset=openmoji,weights=0.125,epochs=7")
  (grid,) = figures.grids(config, tmp_path)
  (cell,) = cells.finals(grid.config, grid.folder)
  assert cell.row == "weight_12_5"
  made = cells.run_config(grid.config, cell)
  alone = openmoji.get_config("label_fitting,weight=0.125,epochs=7")
  assert made.to_dict() == alone.to_dict()


def test_figure2_numbers(run, fake, tmp_path):
  keys = "figure2,dataset=openmoji,seeds=2,rows=joint+lb"
  run(keys)
  assert not (tmp_path / "figure2.csv").exists()  # No features were saved.
  for row in ("joint", "lb"):
    for seed in range(2):
      folder = tmp_path / row / f"seed_{seed}"
      rng = np.random.default_rng([len(row), seed])
      fake_runs.features(folder, {"image": 9, "text": 9}, rng, 40)
  run(keys)
  lines = read(tmp_path / "figure2.csv")
  assert [(x["row"], x["seed"]) for x in lines] == [
    ("joint", "0"), ("joint", "1"), ("lb", "0"), ("lb", "1"),
  ]  # fmt: skip
  found = {}
  for line in lines:
    data = load_features(tmp_path / line["row"] / f"seed_{line['seed']}")
    found.setdefault(line["row"], []).append(pairs(data)["image", "text"])
    expected = found[line["row"]][-1]
    assert float(line["distance"]) == pytest.approx(expected, rel=1e-5)
    assert (line["modality a"], line["modality b"]) == ("image", "text")
  config = configs.get_config(keys)
  drawing = figure2.draw(config, tmp_path)
  titles = [a.get_title() for a in drawing.figure.axes]
  mean, std = np.mean(found["lb"]), np.std(found["lb"], ddof=1)
  assert titles[1] == f"Ours-LB\ndistance {mean:.2f} ± {std:.2f}"
  spans = {tuple(np.ptp(a.get_xlim()) for a in drawing.figure.axes)}
  assert len({round(x, 6) for x in next(iter(spans))}) == 1


def test_figure3_numbers(run, fake, tmp_path):
  """Two seeds of a grid; below them another data set's runs."""
  keys = "figure3,dataset=openmoji,seeds=2,epochs=30"
  other = tmp_path / "other"
  fake_runs.run(other / "seed_0", epochs=4, seed=5)
  run(keys, **{"figure.runs": str(other)})
  lines = read(tmp_path / "figure3.csv")  # Fake training logs no α.
  assert {x["run"] for x in lines} == {"seed_0"} and len(lines) == 4
  for seed in range(2):
    path = tmp_path / "openmoji" / "lb" / f"seed_{seed}" / "results.json"
    results = json.loads(path.read_text())
    alpha = [0.5, 0.25 + seed / 10, 0.1]
    path.write_text(json.dumps({**results, "alpha": alpha, "epochs": 30}))
  run(keys)
  lines = read(tmp_path / "figure3.csv")
  assert len(lines) == 6 and lines[3]["run"] == "1"
  second = lines[4]
  assert float(second["alpha"]) == pytest.approx(0.35)
  assert float(second["share of training"]) == pytest.approx(2 / 30, rel=1e-5)
  expected = 1 - np.exp(-1 / 2)
  assert float(second["heuristic"]) == pytest.approx(expected, rel=1e-5)
  config = configs.get_config(keys)
  drawing = figure3.draw(config, tmp_path)
  drawn = [line.get_xydata() for line in drawing.figure.axes[0].lines]
  means = [xy for xy in drawn if len(xy) == 3 and xy[1, 1] != 0.25]
  np.testing.assert_allclose(means[-1][:, 1], [0.5, 0.3, 0.1])
  np.testing.assert_allclose(means[-1][:, 0], [1 / 30, 2 / 30, 0.1])


def test_figure3_of_several_data_sets(tmp_path):
  config = configs.get_config(
    "figure3,datasets=openmoji+crema_d,epochs=3,seeds=2"
  )
  config.sets.crema_d.data.raw = "clips"
  config.shards = 2
  one, two = figures.grids(config, tmp_path)
  assert (one.folder.name, two.folder.name) == ("openmoji", "crema_d")
  assert two.config.data.raw == "clips" and "raw" not in one.config.data
  assert one.config.train.epochs == two.config.train.epochs == 3
  assert two.config.shards == 2 and two.config.seeds == 2
  assert cells.run_config(two.config, cells.finals(two.config, two.folder)[0])


def test_figure4_keeps_the_epochs_that_it_shows(tmp_path):
  config = configs.get_config("figure4,dataset=openmoji,epochs=30")
  config.train.keep = (4,)
  figures.check(config, tmp_path)
  assert figure4.epochs(config) == (1, 8, 15, 30)
  assert config.train.keep == (1, 4, 8, 15, 30)
  (grid,) = figures.grids(config, tmp_path)
  cell = cells.finals(grid.config, grid.folder)[0]
  assert cells.run_config(grid.config, cell).train.keep == config.train.keep
  config.figure.epochs = (7, 2)
  assert figure4.epochs(config) == (2, 7)


ERRORS = [
  ("figure3", {}, "figure3,dataset=..., or --config.figure.runs"),
  ("figure3", {"figure.runs": "nowhere"}, "nowhere holds no run"),
  ("figure4,dataset=openmoji", {"figure.epochs": (1, 31)}, "[1, 30]"),
  ("figure4,dataset=openmoji", {"figure.target": "lable"}, "'label'"),
  ("figure4,dataset=openmoji,rows=greedy", {}, "'channel' exchanges"),
  ("figure1,dataset=openmoji", {"shard": 4}, "shard=4"),
  ("figure1,dataset=openmoji", {"train.keep": (0,)}, "train.keep"),
]


@pytest.mark.parametrize("arg,fields,words", ERRORS)
def test_wrong_values_end_before_anything_is_done(
  run, fake, tmp_path, arg, fields, words
):
  with pytest.raises(ValueError, match=re.escape(words)):
    run(arg, **fields)
  assert fake.calls == [] and not list(tmp_path.iterdir())
