"""Captioned pictures: a manifest that training accepts."""

import io
import json
import os
import pathlib
import zipfile

import numpy as np
import pytest
from PIL import Image

import launch
from data_pipelines import core
from data_pipelines.tools import captions
from helpers import load_manifest, read_table

SHARED = pathlib.Path(
  os.environ.get("DMG_SHARED_DATA")
  or pathlib.Path(launch.__file__).parents[1] / "shared" / "data"
)
REAL = SHARED / "openclipart"
SIZES = {"cat": 10, "dog": 10, "odd": 5, "rest": 10}
ROWS = [
  {"id": f"{name}/{i}", "kind": name, "title": f"a {name}, no. {i}"}
  for name, size in SIZES.items()
  for i in range(size)
]
CHOICE = {"label": "kind", "text": "title", "drop": "rest", "smallest": 6}


def picture(number):
  file = io.BytesIO()
  pixels = np.full((5, 5, 3), number, np.uint8)
  Image.fromarray(pixels).save(file, format="PNG")
  return file.getvalue()


def table(folder, rows=ROWS, name="t.jsonl"):
  text = "".join(f"{json.dumps(row)}\n" for row in rows)
  (folder / name).write_text(text, encoding="utf-8")
  return folder / name


@pytest.fixture
def images(tmp_path):
  path = tmp_path / "p.zip"
  with zipfile.ZipFile(path, "w") as file:
    for i, row in enumerate(ROWS):
      file.writestr(f"{row['id']}.png", picture(i))
  return path


def test_from_a_zip(images, tmp_path):
  out = tmp_path / "out"
  made = captions.write(table(tmp_path), images, out, **CHOICE)
  rows = read_table(out / "manifest.csv")
  assert tuple(rows[0]) == captions.HEADER and len(rows) == 20
  given = {row["id"]: (i, row) for i, row in enumerate(ROWS)}
  for row in rows:
    number, source = given[row["id"]]
    assert row["label"] == source["kind"]
    assert row["text:text"] == source["title"]
    assert (out / row["image:image"]).read_bytes() == picture(number)
  assert made.counts["train"] == {"cat": 6, "dog": 6}
  assert made.counts["test"] == {"cat": 2, "dog": 2}
  assert made.notes == ("left out: odd (5), rest (10)",)


def test_a_folder_is_the_same(images, tmp_path):
  with zipfile.ZipFile(images) as file:
    file.extractall(tmp_path / "p")
  for name, source in (("a", images), ("b", tmp_path / "p")):
    captions.write(table(tmp_path), source, tmp_path / name, **CHOICE)
  captions.write(table(tmp_path), images, tmp_path / "c", **CHOICE, seed=1)
  a, b, c = (read_table(tmp_path / n / "manifest.csv") for n in "abc")
  assert a == b != c


def test_a_manifest_that_loads(images, tmp_path, capsys):
  out = tmp_path / "out"
  words = [f"--table={table(tmp_path)}", f"--images={images}", f"--out={out}"]
  assert captions.main([*words, "--label=kind", "--text=title"]) == 0
  assert f"manifest={out / 'manifest.csv'}" in capsys.readouterr().out
  data = load_manifest(out / "manifest.csv", tmp_path / "data")
  assert data.spec.classes == ("cat", "dog", "odd", "rest")
  kinds = {m: s.kind for m, s in data.spec.modalities.items()}
  assert kinds == {"image": "image", "text": "text"}
  assert captions.main([*words, "--label=kind", "--text=title"]) == 1
  assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("rows", "said"),
  [
    ([], "is empty"),
    ([[1]], "line 1 is no object, got list"),
    ([{"id": 1, "kind": "a"}], "line 1 has no title; its fields are id, kind"),
    ([ROWS[0], ROWS[0]], "line 2: id 'cat/0' is there twice"),
    ([*ROWS, {**ROWS[0], "id": "cat/x"}], r"lacks the pictures of 1 .*cat/x\."),
    (ROWS[20:], "no class has 6 rows"),
    (ROWS[:20], "no class 'rest' to drop; there are cat, dog"),
  ],
)
def test_wrong_tables(images, tmp_path, rows, said):
  source = table(tmp_path, rows, "wrong.jsonl")
  with pytest.raises(core.DataError, match=said):
    captions.write(source, images, tmp_path / "out", **CHOICE)
  assert not (tmp_path / "out").exists()


def test_wrong_files(images, tmp_path):
  out, good = tmp_path / "out", table(tmp_path)
  with pytest.raises(core.DataError, match=r"no table .*--table"):
    captions.write(tmp_path / "gone", images, out)
  with pytest.raises(core.DataError, match=r"no folder or zip .*--images"):
    captions.write(good, tmp_path / "gone", out, **CHOICE)
  broken = tmp_path / "b.jsonl"
  broken.write_text("{\n")
  with pytest.raises(core.DataError, match="line 1 is no JSON"):
    captions.write(broken, images, out)
  broken.write_bytes(b"\xff\xfe\x00")
  with pytest.raises(core.DataError, match="not UTF-8"):
    captions.write(broken, images, out)
  images.write_bytes(images.read_bytes()[:500])
  with pytest.raises(core.DataError, match=r"p\.zip is no zip, or a damaged"):
    captions.write(good, images, out, **CHOICE)
  assert {p.name for p in tmp_path.iterdir()} == {"b.jsonl", "p.zip", "t.jsonl"}


@pytest.mark.skipif(not REAL.is_dir(), reason="no openclipart in shared data")
def test_the_real_clip_arts(tmp_path):
  made = captions.write(
    REAL / "cliparts.jsonl",
    REAL / "images_64px.zip",
    tmp_path / "a",
    label="category",
    text="title",
    drop="unsorted",
    smallest=100,
  )
  assert len(made.classes) == 12
  assert {s: sum(n.values()) for s, n in made.counts.items()} == {
    "train": 3795,
    "outer": 634,
    "val": 634,
    "test": 1265,
  }
