"""``table.html`` from folders made by hand."""

import json
import shutil

import pytest
from matplotlib.image import imread

from configs import tables
from dmg_jax.tables import cells, page, pictures, summary
from fake_runs import metrics
from fake_tables import FUSED, made
from pages import Page

EVIL = '<script>alert("&")</script>'


@pytest.fixture
def undrawn(monkeypatch):
  """No pictures, for tests of the page."""
  monkeypatch.setattr(pictures, "draw_all", lambda found, folder: {})


def read(folder):
  return Page((folder / page.FILE).read_text(encoding="utf-8"))


def test_page(tmp_path):
  found = made(tmp_path)
  for cell in ("lb/seed_0", "lb/seed_2"):
    (tmp_path / cell / "report").mkdir()
    (tmp_path / cell / "report" / "report.html").write_text("page")
  stored = tmp_path / "joint" / "seed_0" / "config.json"
  content = json.loads(stored.read_text())
  facts = {"command": "python launch.py --config=a", "git": "0123abc"}
  stored.write_text(json.dumps({**content, **facts}))
  page.write(found, tmp_path)
  got = read(tmp_path)
  assert len(got.images) == 2
  assert (
    "Ours-LB has the highest mean fused accuracy, 68.3 ± 1.5 %." in got.text
  )
  assert "Ours-LB is better than Concat: +7.3 [+6.0, +8.0]" in got.text
  assert "Against the best other row: Ours-LB is better than MLA" in got.text
  links = [x for x in got.links if not x.startswith("#")]
  assert links == [f"lb/seed_{i}/report/report.html" for i in (0, 2)]
  assert all((tmp_path / x).exists() for x in links)
  assert "python launch.py --config=a" in got.text and "0123abc" in got.text
  text = (tmp_path / page.FILE).read_text()
  assert '<span class="best">68.3 ± 1.5</span>' in text
  assert '<span class="second">66.0 ± 0.5</span>' in text
  for name in ("fused", "modalities"):
    image = imread(tmp_path / "report" / f"{name}.png")
    assert image.shape[1] == 990
    assert 0.01 < (image[..., :3].min(axis=-1) < 0.9).mean() < 0.5
    assert (tmp_path / "report" / f"{name}.pdf").stat().st_size > 2000
  names = {p.name for p in (tmp_path / "report").iterdir()}
  assert len(names) == 4


def test_figures_of_the_paper_stand_beside(tmp_path, undrawn):
  del undrawn
  rows = [*FUSED, "lfm_paper"]
  found = made(tmp_path, dataset="crema_d", rows=rows)
  page.write(found, tmp_path)
  got = read(tmp_path)
  assert "83.62" in got.text and "as reported there" in got.text


def test_nothing_done_and_one_row(tmp_path):
  config = tables.get_config("table1,dataset=openmoji,seeds=2,rows=h+lb")
  page.write(summary.collect(config, tmp_path), tmp_path)
  got = read(tmp_path)
  assert "0 of 4 runs are done" in got.text and got.images == []
  assert "configs/tables.py:table1,dataset=openmoji" in got.text
  cell = cells.finals(config, tmp_path)[0]
  cell.folder.mkdir(parents=True)
  content = {"config": cells.run_config(config, cell).to_dict()}
  (cell.folder / "config.json").write_text(json.dumps(content))
  tree = metrics({"fused": 0.5, "image": 0.3, "text": 0.4})
  results = {"readout": "R1 split head", "test": tree}
  (cell.folder / "results.json").write_text(json.dumps(results))
  page.write(summary.collect(config, tmp_path), tmp_path)
  got = read(tmp_path)
  assert "1 of 4 runs are done" in got.text and len(got.images) == 2
  shutil.rmtree(cell.folder)
  page.write(summary.collect(config, tmp_path), tmp_path)
  assert not list((tmp_path / "report").glob("*.png"))


def test_other_rows_than_ours(tmp_path, undrawn):
  del undrawn
  found = made(tmp_path, rows=("joint", "mla"))
  page.write(found, tmp_path)
  text = read(tmp_path).text
  assert "MLA has the highest mean fused accuracy" in text
  assert "MLA is better than Concat" in text and "Against" not in text


def test_values_are_escaped(tmp_path, undrawn):
  del undrawn
  found = made(tmp_path, seeds=1)
  path = tmp_path / "joint" / "seed_0" / "config.json"
  stored = json.loads(path.read_text())
  path.write_text(json.dumps({**stored, "git": EVIL, "command": EVIL}))
  for row in found.rows:
    object.__setattr__(row, "label", f"{row.label} {EVIL}")
  page.write(found, tmp_path)
  assert EVIL in read(tmp_path).text
