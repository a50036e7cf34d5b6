"""Contributions of the modalities in the files of a table."""

import csv
import json

import pytest

import fake_tables
from dmg_jax.tables import contribution_rows, page, summary, writers
from pages import Page


def measured(shift):
  own = {"image": 0.2 + shift, "text": 0.1}
  return {
    "shapley": own,
    "gain": {"image": 0.15, "text": -0.02},
    "alone": {"image": 0.55, "text": 0.4},
    "only": {"image": 0.3, "text": 0.05},
    "complementarity": 0.35,
    "nothing": 0.3,
    "together": 0.6 + shift,
  }


@pytest.fixture
def found(tmp_path, unrendered):
  """A table whose first row has contributions of two of three seeds."""
  made = fake_tables.made(tmp_path)
  for seed in (0, 1):
    path = tmp_path / made.rows[0].cells[seed].folder / "results.json"
    content = json.loads(path.read_text())
    content["contributions"] = {"test": measured(0.1 * seed)}
    path.write_text(json.dumps(content))
  config = fake_tables.tables.get_config(
    "table1,dataset=openmoji,seeds=3,rows=" + "+".join(fake_tables.FUSED)
  )
  return summary.collect(config, tmp_path)


def test_files(found, tmp_path):
  writers.write(found, tmp_path)
  page.write(found, tmp_path)
  text = (tmp_path / "table.md").read_text()
  assert "## Contributions of the modalities" in text
  assert "25.0 ± 7.1" in text and "-2.0 ± 0.0" in text
  assert "(2 of 3)" in text and "35.0 ± 0.0" in text
  web = Page((tmp_path / "table.html").read_text())
  assert "contributions" in web.ids and "25.0 ± 7.1" in web.text
  with (tmp_path / contribution_rows.CSV).open(encoding="utf-8") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 8
  assert rows[0] == {
    "row": "joint", "label": "Concat", "modality": "image",
    "measure": "shapley", "seeds": "2", "mean": "25.0000", "std": "7.0711",
  }  # fmt: skip
  stored = json.loads((tmp_path / "table.json").read_text())
  runs = stored["rows"][0]["runs"]
  assert [r["contributions"] for r in runs] == [measured(0), measured(0.1), {}]


def test_a_table_without_any_has_no_section(tmp_path, unrendered):
  made = fake_tables.made(tmp_path)
  page.write(made, tmp_path)
  assert "ontributions" not in (tmp_path / "table.md").read_text()
  assert "contributions" not in Page((tmp_path / "table.html").read_text()).ids
  assert not (tmp_path / contribution_rows.CSV).exists()
