"""Tables of runs with weights of classes, and chosen by another score."""

import json

from configs import tables
from dmg_jax.tables import summary


def columns(keys):
  config = tables.get_config(f"table1,dataset=openmoji,rows=joint,{keys}")
  return [c.name for c in summary._columns(summary._scores(config), [])]


def test_columns_follow_what_runs_are_trained_for():
  assert columns("seeds=1") == ["accuracy", "macro-F1"]
  more = ["accuracy", "macro-F1", "balanced accuracy"]
  assert columns("class_weights=balanced") == more
  assert columns("sampler=balanced") == more
  assert columns("select_by=balanced_accuracy") == more
  assert columns("select_by=map") == ["accuracy", "macro-F1", "mAP"]
  assert columns("select_by=loss") == ["accuracy", "macro-F1"]


def test_the_notes_name_the_score(run, fake, tmp_path):
  keys = "seeds=1,trials=2,rows=joint,select_by=macro_f1"
  assert run("table1", keys) == 0
  notes = json.loads((tmp_path / "table.json").read_text())["notes"]
  said = " ".join(s for part in notes.values() for s in part)
  assert "the state of each run that was best on val by macro-F1." in said
  assert "The trial that was best on val by the fused macro-F1 was" in said
  assert "Run with select_by=macro_f1" in said


def test_a_method_with_its_own_order_leaves_the_rest_of_the_table():
  """That row is unsuitable, which a cell says when it is run."""
  from pathlib import Path

  from dmg_jax.tables import cells

  keys = "rows=joint+bss,sampler=balanced"
  config = tables.get_config(f"table1,dataset=openmoji,{keys}")
  cells.check(config)
  assert [c.row for c in cells.finals(config, Path())][:2] == ["joint", "bss"]
