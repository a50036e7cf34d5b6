"""The table over missing rates: its rows, its runs, what is compared."""

import json

import pytest

from configs import openmoji, tables
from dmg_jax.tables import cells, pictures, summary
from fake_train import FakeTrain

BASES = ("zero_feature", "modality_dropout", "ensemble", "own_heads", "lb")


def config(keys):
  return tables.get_config(f"missing,{keys}")


def drops(made):
  return {
    name: cells.run_config(made, cells.TableRun(name, 0, None)).data.drop
    for name in made.table.rows
  }


def test_ours_is_told_from_the_paper_s():
  said = " ".join(config("dataset=openmoji").table.notes)
  assert "its objective is not the paper's" in said


def test_every_row_at_every_rate():
  made = config("dataset=openmoji")
  names = [f"{b}_{p}" for p in (0, 30, 70) for b in BASES]
  assert list(made.table.rows) == names
  found = drops(made)
  assert {found[f"{b}_0"] for b in BASES} == {""}
  assert {found[f"{b}_70"] for b in BASES} == {"image:0.35+text:0.35"}


def test_one_modality_is_hidden_at_the_whole_rate():
  made = config("dataset=openmoji,hidden=text,rates=0.05+0.9,rows=joint+mla")
  assert drops(made) == {
    "joint_5": "text:0.05", "mla_5": "text:0.05",
    "joint_90": "text:0.9", "mla_90": "text:0.9",
  }  # fmt: skip


def test_a_row_is_the_run_of_its_recipe():
  """What the table says of a row can be run alone, and is the same."""
  made = config("dataset=openmoji")
  for name in made.table.rows:
    row = made.rows[name]
    cell = cells.run_config(made, cells.TableRun(name, 0, None))
    alone = openmoji.get_config(row.variant)
    assert cell.to_dict() == {**alone.to_dict(), "seeds": 1}
  assert made.rows.modality_dropout_70.variant == (
    "joint,modality_dropout=0.3,drop=image:0.35+text:0.35"
  )


@pytest.mark.parametrize(
  ("keys", "told"),
  [
    ("dataset=openmoji,rates=0.3+1", "rates are shares in [0, 1)"),
    ("dataset=openmoji,rates=0.125", "at most two decimals"),
    ("dataset=openmoji,rates=x", "got 'x'"),
    ("dataset=openmoji,rates=0.3+0.30", "a rate twice"),
    ("dataset=openmoji,hidden=sound", "'sound'"),
    ("dataset=openmoji,hidden=text+text", "names a modality twice"),
    ("dataset=openmoji,drop=text:0.5", "drop differs from row to row"),
    ("dataset=manifest", "hidden=image+text"),
  ],
)
def test_what_cannot_be_is_told(keys, told):
  with pytest.raises(ValueError) as caught:
    config(keys)
  assert told in str(caught.value)


def test_other_tables_have_no_rates():
  with pytest.raises(ValueError, match="rates"):
    tables.get_config("table1,dataset=openmoji,rates=0.3")


# Zero features win while nothing is missing, own heads otherwise.
def accuracy(config):
  recipe = config.recipe
  own = {"joint": 0.8, "multitask": 0.7, "ensemble": 0.5, "lb": 0.6}[recipe]
  lost = 0.5 if recipe == "joint" else 0.1
  lost += 0.05 * bool(config.train.modality_dropout)
  rate = {"": 0.0, "image:0.15+text:0.15": 0.3, "image:0.35+text:0.35": 0.7}
  return own - lost * rate[config.data.drop] + 0.015 * config.seed


@pytest.fixture
def table(monkeypatch, tmp_path, run):
  FakeTrain(accuracy).stand_in(monkeypatch)
  monkeypatch.setattr(pictures, "draw_all", lambda found, folder: {})
  assert run("missing", "seeds=3") == 0
  return tmp_path


def test_marks_and_comparisons_stay_within_a_rate(table):
  rows = json.loads((table / "table.json").read_text())["rows"]
  best = {r["row"] for r in rows if r["columns"][0]["mark"] == "best"}
  assert {"zero_feature_0", "own_heads_30", "own_heads_70"} <= best
  assert not {"own_heads_0", "zero_feature_30", "zero_feature_70"} & best
  for row in rows:
    base, _, percent = row["row"].rpartition("_")
    if base == "zero_feature":
      assert row["comparison"] is None
    else:
      assert row["comparison"]["with"] == f"zero_feature_{percent}"
  text = (table / "table.md").read_text()
  assert "Own heads at 70 % is better than Zero feature at 70 %" in text
  assert "Own heads at 70 % is better than Zero feature at 0 %" not in text
  page = (table / "table.html").read_text()
  assert "Own heads at 30&nbsp;% has the highest mean fused accuracy" in page


def test_the_picture_has_a_line_for_each_row(table):
  made = config("dataset=openmoji,seeds=3")
  figure = pictures.groups(summary.collect(made, table))
  assert figure is not None
  (axes,) = figure.axes
  assert [x.get_label() for x in axes.lines] == [
    "Zero feature", "Modality dropout", "Ensemble", "Own heads", "Ours-LB",
  ]  # fmt: skip
  heights = axes.lines[3].get_ydata()
  assert heights == pytest.approx([71.5, 68.5, 64.5])
