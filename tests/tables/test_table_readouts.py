"""Read-outs and linear probes of a table's rows."""

import csv
import json

import pytest

import fake_tables
from configs import tables
from dmg_jax.cli import modes
from dmg_jax.tables import page, readout_rows, summary, writers
from pages import Page

ROWS = {"joint": (0.6, 0.62), "lb": (0.68, 0.7)}
KEYS = "table1,dataset=openmoji,seeds=2,rows=joint+lb"
NAMES = {
  "feature_ablation": "R3 feature ablation",
  "input_ablation": "R4 input ablation",
  "linear_probe": "linear probe",
}


def scores(accuracy):
  return {"accuracy": accuracy, "macro_f1": accuracy / 2}


def found(row, seed):
  """What ``readouts.json`` of a run holds; R3 is missing for the text."""
  own = "R1 split head" if row == "joint" else "R2 own head"
  image = dict.fromkeys(["own", *NAMES], scores(0.2 + 0.1 * seed))
  text = {k: scores(0.5) for k in image if k != "feature_ablation"}
  return {
    "names": {"own": own, **NAMES},
    "scores": {
      "fused": {"own": scores(0.6), "linear_probe": scores(0.75)},
      "image": {**image, "linear_probe": scores(0.4)},
      "text": text,
    },
    "chance": scores(0.235),
    "absent": {"text": {"feature_ablation": "why not"}},
    "notes": [],
  }


@pytest.fixture
def table(tmp_path, unrendered):
  """A table of two rows and seeds; one of the four runs has no read-outs."""
  fake_tables.made(tmp_path, rows=ROWS, seeds=2)
  for row, seed in (("joint", 0), ("joint", 1), ("lb", 1)):
    path = tmp_path / row / f"seed_{seed}" / "readouts.json"
    path.write_text(json.dumps(found(row, seed)))
  return summary.collect(tables.get_config(KEYS), tmp_path)


def test_lines(table):
  head, body = readout_rows.grid(table)
  assert head == [
    "method", "features of", "own head", *NAMES.values(),
  ]  # fmt: skip
  spread = "25.0 ± 7.1"
  assert body[0] == [
    "Concat", "image", f"{spread} (R1)", spread, spread, "40.0 ± 0.0",
  ]  # fmt: skip
  assert body[1][2:4] == ["50.0 ± 0.0 (R1)", "–"]
  assert body[2] == [
    "Concat",
    "all (fused)",
    "60.0 ± 0.0",
    "–",
    "–",
    "75.0 ± 0.0",
  ]
  assert body[3][:3] == ["Ours-LB", "image", "30.0 (R2), 1 of 2"]
  said = " ".join(readout_rows.notes(table))
  assert "23.5" in said and "feature ablation: why not" in said


def test_files(table, tmp_path):
  writers.write(table, tmp_path)
  page.write(table, tmp_path)
  text = (tmp_path / "table.md").read_text("utf-8")
  assert text.count("## Read-outs and linear probes") == 1
  assert "| Concat  | image       |   25.0 ± 7.1 (R1) |" in text
  web = Page((tmp_path / "table.html").read_text("utf-8"))
  assert "30.0 (R2), 1 of 2" in web.text and "readouts" in web.ids
  with (tmp_path / "readouts.csv").open(encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  probe = next(r for r in rows if r["read-out"] == "linear_probe")
  assert (probe["row"], probe["head"], probe["seeds"]) == (
    "joint",
    "image",
    "2",
  )
  assert float(probe["accuracy mean"]) == pytest.approx(40)
  assert float(probe["macro_f1 std"]) == pytest.approx(0)
  stored = json.loads((tmp_path / "table.json").read_text("utf-8"))
  assert stored["rows"][1]["runs"][0]["readouts"] == {}
  assert stored["rows"][1]["runs"][1]["readouts"] == found("lb", 1)


def test_nothing_of_it_before_it_is_read(tmp_path, unrendered):
  table = fake_tables.made(tmp_path, rows=ROWS, seeds=2)
  page.write(table, tmp_path)
  assert "Read-outs" not in (tmp_path / "table.md").read_text("utf-8")
  assert "Read-outs" not in (tmp_path / "table.html").read_text("utf-8")
  assert not (tmp_path / "readouts.csv").exists()


def test_the_mode_reads_what_is_missing(table, tmp_path, monkeypatch):
  read = []

  def of_runs(folders, changes):
    assert changes["data"]["dir"] == "elsewhere"
    for folder in folders:
      read.append(folder.relative_to(tmp_path).as_posix())
      (folder / "readouts.json").write_text(json.dumps(found("lb", 0)))
      yield found("lb", 0)

  monkeypatch.setattr(readout_rows.readouts, "of_runs", of_runs)
  monkeypatch.setattr(readout_rows, "write_report", lambda folder: None)
  config = tables.get_config(KEYS)
  config.data.dir = "elsewhere"
  config.update_from_flattened_dict({"shard": 0, "shards": 4})
  for shard, expected in ((1, []), (0, ["lb/seed_0"]), (2, []), (3, [])):
    read.clear()
    config.shard = shard
    assert modes.run("readouts", config, tmp_path, quiet=True) == 0
    assert read == expected
  text = (tmp_path / "table.md").read_text("utf-8")
  assert "25.0 ± 7.1 (R2)" in text


def test_no_run_is_done(tmp_path):
  with pytest.raises(
    ValueError, match=r"no run .* is finished: train it first"
  ):
    modes.run("readouts", tables.get_config(KEYS), tmp_path, quiet=True)
  assert not (tmp_path / "table.md").exists()
