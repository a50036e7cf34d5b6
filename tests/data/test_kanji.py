"""Kanji: pictures and runs of strokes from KanjiVG's files."""

import collections

import numpy as np
import pytest
from PIL import Image

from data_pipelines import core
from data_pipelines.tools import _kanji_sources, kanji
from helpers import read_table

GROUP = '<g kvg:element="{0}" kvg:original="{1}" kvg:radical="{2}">'
STROKE = '<path kvg:type="{0}" d="{1}"/>'
BAR = "M10,50c20,0,60,0,90,0"


def file(folder, code, radical, types, role="general", d=BAR):
  """A file as KanjiVG's, with strokes of these types."""
  folder.mkdir(exist_ok=True)
  group = GROUP.format("x", radical, role)
  strokes = "".join(STROKE.format(t, d) for t in types)
  text = f"<svg>{group}{strokes}</g></svg>"
  (folder / f"{code:05x}.svg").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """Two radicals of 20 characters, and one of 2."""
  folder = tmp_path_factory.mktemp("kanji") / "drawn"
  for i in range(42):
    radical = "水火木"[i // 20]
    bits = [(i >> b) & 1 for b in range(5)]
    file(folder, 0x4E00 + i, radical, ["㇐a" if b else "㇑/㇔" for b in bits])
  file(folder, 0x4E00 + 99, "水", ["㇐"], role="nelson")  # no such radical
  file(folder, 0x3042, "水", ["㇐"])  # a syllable
  (folder / "04e00-Kaisho.svg").write_text("a variant", encoding="utf-8")
  return folder


def test_writes_what_strokes_say(source, tmp_path):
  out = tmp_path / "kanji"
  made = kanji.write(out, source, size=16, longest=2, smallest=20, test=0.4)
  table = read_table(out / "manifest.csv")
  assert tuple(table[0]) == kanji.HEADER
  assert len(table) == 40
  sizes = {s: sum(c.values()) for s, c in made.counts.items()}
  assert sizes == {"train": 16, "outer": 4, "val": 4, "test": 16}
  known = ["^㇐", "^㇐㇐", "^㇐㇑", "^㇑", "^㇑㇐", "^㇑㇑"]
  known += ["㇐", "㇐㇐", "㇐㇑", "㇑", "㇑㇐", "㇑㇑"]
  for row in table:
    i = ord(row["id"]) - 0x4E00
    assert row["label"] == "水火"[i // 20]
    strokes = "".join("㇐" if (i >> b) & 1 else "㇑" for b in range(5))
    # Counted over, other than str.count would.
    pairs = [strokes[k : k + 2] for k in range(4)]
    seen = collections.Counter([*strokes, *pairs])
    seen.update(["^" + strokes[0], "^" + strokes[:2]])
    got = np.load(out / row["strokes:array"], allow_pickle=False)
    assert got.tolist() == [seen[run] for run in known]
    with Image.open(out / row["picture:image"]) as picture:
      assert picture.size == (16, 16)


def test_twins_stand_in_one_split(tmp_path):
  for i in range(40):  # ten different sequences, four of each
    types = ["㇐" if (i % 10 >> b) & 1 else "㇑" for b in range(4)]
    file(tmp_path / "in", 0x5000 + i, "水", types)
  kanji.write(tmp_path / "out", tmp_path / "in", smallest=1, test=0.4)
  table = read_table(tmp_path / "out" / "manifest.csv")
  splits = [{r["split"] for r in table if ord(r["id"]) % 10 == k} for k in
            range(10)]  # fmt: skip
  assert [len(s) for s in splits] == [1] * 10
  assert set().union(*splits) == set(core.SPLITS)


def test_draws_lines_and_curves():
  straight = _kanji_sources.points_of("M10,50c30,0,60,0,90,0")
  np.testing.assert_allclose([y for _, y in straight], 50)
  assert straight[0] == (10, 50) and straight[-1] == pytest.approx((100, 50))
  # B(1/2) of a cubic curve is (p0 + 3 p1 + 3 p2 + p3) / 8.
  curve = _kanji_sources.points_of("M0,0C0,8,8,8,8,0")
  assert curve[len(curve) // 2] == pytest.approx((4, 6))
  drawn = _kanji_sources.draw(("M10,54.5c30,0,60,0,90,0",), 109)
  assert drawn[54, 20:90].min() > 200
  assert drawn[:50].max() == 0 and drawn[60:].max() == 0


@pytest.mark.parametrize(
  ("given", "match"),
  [
    ({"source": "none"}, "no folder .*--source"),
    ({"smallest": 30}, "no radical has 30 .*the largest has 20"),
    ({"size": 0}, "size must be a whole number >= 1, got 0"),
  ],
)
def test_refusals(source, tmp_path, given, match):
  options = {"source": source, **given}
  with pytest.raises((ValueError, core.DataError), match=match):
    kanji.write(tmp_path / "out", **options)
  assert not (tmp_path / "out").exists()


def test_empty_folder(tmp_path, capsys):
  (tmp_path / "in").mkdir()
  args = [f"--out={tmp_path / 'out'}", f"--source={tmp_path / 'in'}"]
  assert kanji.main(args) == 1
  assert "no file of a character" in capsys.readouterr().err
