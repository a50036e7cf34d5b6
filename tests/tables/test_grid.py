"""Which cells are run, and what becomes of those that fail."""

import json
import re

import pytest

from configs import openmoji, tables
from dmg_jax.config.recipes import RECIPES
from dmg_jax.tables import cells, grid
from dmg_jax.tracking.logging import Console
from dmg_jax.training import validation

SLOW = pytest.mark.slow
ROWS = "rows=joint+h+lb"
ALL = [f"{r}/seed_{s}" for r in ("joint", "h", "lb") for s in (0, 1)]


def read(tmp_path):
  return json.loads((tmp_path / "table.json").read_text())


def test_row_by_row_and_once(run, fake, tmp_path):
  assert run("table1", f"seeds=2,{ROWS}") == 0
  assert fake.calls == ALL and all(fake.tested)
  assert run("table1", f"seeds=2,{ROWS}") == 0
  assert fake.calls == ALL
  assert read(tmp_path)["complete"]
  assert not list(tmp_path.rglob("*.part"))


def test_more_seeds_and_rows_add_to_what_is_there(run, fake, tmp_path):
  run("table1", "seeds=1,rows=joint+h")
  run("table1", "seeds=2,rows=lb+joint+h")
  assert fake.calls == [
    "joint/seed_0", "h/seed_0", "lb/seed_0", "lb/seed_1", "joint/seed_1",
    "h/seed_1",
  ]  # fmt: skip
  assert [r["row"] for r in read(tmp_path)["rows"]] == ["lb", "joint", "h"]


def test_each_row_chooses_whether_seeds_train_at_once(run, fake, tmp_path):
  """It must not depend on which row came first, here or elsewhere."""
  run("table1", "seeds=2,rows=joint+h")
  assert fake.roots == [tmp_path / "joint", tmp_path / "h"]
  (tmp_path / "seeds.json").write_text('{"vmap": true}')  # Of an older version.
  run("table1", "seeds=3,rows=joint+h")
  assert fake.roots[2:] == [tmp_path, tmp_path]


@pytest.mark.parametrize("fault", ["stop", "killed"])
def test_interruption(run, fake, tmp_path, fault):
  fake.faults = {"h/seed_0": fault}
  if fault == "stop":
    assert run("table1", f"seeds=2,{ROWS}") == 0
  else:
    with pytest.raises(KeyboardInterrupt):
      run("table1", f"seeds=2,{ROWS}")
  assert fake.calls == ALL[:3]
  assert "2 of 6 runs are done" in (tmp_path / "table.md").read_text()
  fake.faults = {}
  assert run("table1", f"seeds=2,{ROWS}") == 0
  # The run that was interrupted is gone on with, or its report made.
  assert fake.calls == [*ALL[:3], *ALL[2 if fault == "stop" else 3 :]]
  assert len(list(tmp_path.rglob("report.html"))) == 6
  assert read(tmp_path)["complete"]


def test_failures_are_shown_and_the_others_go_on(run, fake, tmp_path):
  fake.faults = {"h/seed_0": "diverged", "lb/seed_1": "error"}
  assert run("table1", f"seeds=2,{ROWS}") == 1
  assert fake.calls == [*ALL, "lb/seed_1"]  # An error's seeds are tried alone.
  text = (tmp_path / "table.md").read_text()
  assert "(1 of 2; 1 diverged)" in text and "(1 of 2; 1 error)" in text
  assert "Ours-H, seed 0: diverged: loss is nan at step 3" in text
  assert r"this fusion cannot \| work\_here" in text
  fake.faults = {}
  assert run("table1", f"seeds=2,{ROWS}") == 0
  assert fake.calls == [*ALL, "lb/seed_1", "lb/seed_1"]
  # What diverged would do so again.
  text = (tmp_path / "table.md").read_text()
  assert "diverged" in text and "error" not in text
  assert not (tmp_path / "lb" / "seed_1_failure.json").exists()


def test_a_method_for_other_data_is_no_error(run, fake, tmp_path):
  fake.faults = {"lb/seed_0": "unsuitable"}
  assert run("table1", f"seeds=2,{ROWS}") == 0
  assert fake.calls == [c for c in ALL if c != "lb/seed_1"]  # As the first.
  text = (tmp_path / "table.md").read_text()
  row = next(x for x in text.splitlines() if x.startswith("| Ours-LB"))
  assert {x.strip() for x in row.split("|")[2:5]} == {"unsuitable"}
  assert "Ours-LB, seed 1: unsuitable: this method compares two mod" in text
  fake.calls = []
  assert run("table1", f"seeds=2,{ROWS}") == 0
  assert not fake.calls


def test_shards_share_the_rows(run, fake, tmp_path):
  whole = []
  for shard in (2, 0, 1):
    fake.calls = []
    run("table1", f"seeds=2,{ROWS}", shard=shard, shards=3)
    assert fake.calls == ALL[2 * shard : 2 * shard + 2]
    whole += fake.calls
    assert read(tmp_path)["complete"] == (len(whole) == 6)
  assert sorted(whole) == sorted(ALL)


def test_shards_share_the_cells_of_few_rows(run, fake):
  for shard in range(4):
    fake.calls = []
    run("table1", f"seeds=2,{ROWS}", shard=shard, shards=4)
    # Seed by seed are cells counted, row by row are they done.
    by_seed = [f"{r}/seed_{s}" for s in (0, 1) for r in ("joint", "h", "lb")]
    assert sorted(fake.calls) == sorted(by_seed[shard::4])


def test_shards_of_a_tuned_table_share_rows(run, fake):
  keys = "seeds=1,trials=2,rows=joint+h+lb"
  run("table1", keys, shard=1, shards=2)
  assert fake.calls == ["h/trial_0", "h/trial_1", "h/seed_0"]
  run("table1", keys, shard=0, shards=2)
  assert fake.calls[3:] == [
    "joint/trial_0", "joint/trial_1", "joint/seed_0",
    "lb/trial_0", "lb/trial_1", "lb/seed_0",
  ]  # fmt: skip


def test_a_newer_table_of_another_process_is_not_overwritten(
  run, fake, tmp_path, monkeypatch
):
  """A cell that ends between reading and writing is in the last file."""
  run("table1", f"seeds=2,{ROWS}", shard=0, shards=2)
  config = tables.get_config(f"table1,dataset=openmoji,seeds=2,{ROWS}")
  original, late = grid.writers.write, cells.finals(config, tmp_path)[1]

  def slow(found, workdir):
    if not (late.folder / "results.json").exists():
      fake.run(cells.run_config(config, late), late.folder)
    original(found, workdir)

  monkeypatch.setattr(grid.writers, "write", slow)
  grid.write(config, tmp_path)
  done = {r["row"]: r["runs"][0]["status"] for r in read(tmp_path)["rows"]}
  assert done["h"] == "done"


def test_folder_of_another_config(run, fake):
  run("table1", "seeds=1,rows=joint")
  with pytest.raises(ValueError, match=r"joint.seed_0.*train\.epochs"):
    run("table1", "seeds=1,rows=joint,epochs=7")
  assert fake.calls == ["joint/seed_0"]


@pytest.mark.parametrize(
  "fields,words",
  [
    ({"shard": 2, "shards": 2}, "shard=2 and shards=2"),
    ({"seeds": 0}, "seeds must be at least 1"),
    ({"optimiser.learning_rate": -1.0}, "row 'joint': optimiser.learning_rate"),
    ({"rows.lb.method.rate": -1.0}, "row 'lb': alpha's rate must be"),
  ],
)
def test_wrong_values_end_before_anything_is_done(
  run, fake, tmp_path, fields, words
):
  with pytest.raises(ValueError, match=re.escape(words)):
    run("table1", ROWS, **fields)
  assert fake.calls == [] and not list(tmp_path.iterdir())


def test_tuning_seed_is_not_one_that_counts(run, fake):
  with pytest.raises(ValueError, match=r"seed 1000 .* 999 to 1001"):
    run("table1", f"seeds=3,seed=999,trials=2,{ROWS}")


@pytest.mark.parametrize(
  "rows", ["rows=unimodal+joint+umt+tmc+lb", pytest.param("", marks=SLOW)]
)
def test_a_cell_is_the_run_of_its_recipe(tmp_path, rows):
  """What the table makes of a row is what its recipe makes alone."""
  keys = ",".join(filter(None, ("dataset=openmoji,seeds=1,epochs=7", rows)))
  config = tables.get_config(f"methods,{keys}")
  config.update_from_flattened_dict({"data.image_size": 16})
  for cell in cells.finals(config, tmp_path):
    made = cells.run_config(config, cell)
    if cell.row.startswith("unimodal_"):
      recipe = f"unimodal,modality={cell.row.partition('_')[2]}"
    else:
      recipe = cell.row
    alone = openmoji.get_config(f"{recipe},epochs=7")
    alone.data.image_size = 16
    assert made.to_dict() == alone.to_dict()
  names = {c.row for c in cells.finals(config, tmp_path)}
  assert {"unimodal_image", "unimodal_text", "lb"} < names
  if not rows:
    assert set(RECIPES) - names == {"concat", "heuristic", "unimodal"}


def test_fields_reach_every_row_and_those_of_a_row_it_alone(tmp_path):
  config = tables.get_config(f"table1,dataset=openmoji,{ROWS}")
  config.update_from_flattened_dict(
    {"data.word_dropout": 0.3, "rows.lb.method.rate": 0.5}
  )
  own = cells.finals(config, tmp_path)
  made = {c.row: cells.run_config(config, c) for c in own}
  assert all(c.data.word_dropout == 0.3 for c in made.values())
  assert made["lb"].method.rate == 0.5
  assert all(validation.check(c) for c in made.values())


def test_an_encoder_by_key_is_every_row_s(tmp_path):
  config = tables.get_config(
    f"table1,dataset=openmoji,{ROWS},encoder.image=resnet.ResNet"
  )
  assert "encoder.image=resnet.ResNet" in config.table.notes[-1]
  for cell in cells.finals(config, tmp_path):
    made = cells.run_config(config, cell)
    assert made.encoders.image.name == "resnet.ResNet"
    assert made.encoders.image.depth == 18


def test_console_names_the_cells(fake, tmp_path, capsys):
  config = tables.get_config("table1,dataset=openmoji,rows=joint+multitask")
  assert grid.run(config, tmp_path, Console()) == 0
  out = capsys.readouterr().out
  assert "[1/2] joint, seed 0" in out and "[2/2] multitask, seed 0" in out
  (cost,) = read(tmp_path)["cost"]
  assert cost["reference"] == "multitask" and cost["seeds"] == 1
  assert out.splitlines()[-1] == cost["sentence"]
  assert "Table 1. Comparison of methods: openmoji" in out
