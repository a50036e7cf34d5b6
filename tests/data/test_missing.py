"""Own data with empty cells: missing modalities, in every format."""

import json
import pathlib
import re

import jax
import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

import helpers
from data_pipelines import core
from data_pipelines.load.loader import Loader
from data_pipelines.manifest import memory
from helpers import MANIFEST, read_table
from helpers import load_manifest as load
from helpers import prepare_manifest as prepare

KINDS = ("photo:image", "caption:text", "sound:audio", "sensor:array")
ALLOW = {"missing": "allow"}
EMPTY = {  # row -> columns
  1: ("photo:image",),
  2: ("caption:text", "sound:audio"),
  4: ("sensor:array",),  # of test
  6: ("photo:image", "caption:text", "sound:audio"),
  9: ("sensor:array", "photo:image"),
  12: ("caption:text",),  # of test
}


def emptied(rows, cells=EMPTY, value=""):
  rows = [dict(r) for r in rows]
  for number, columns in cells.items():
    rows[number - 1] |= dict.fromkeys(columns, value)
  return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Files and a whole table of 48 rows."""
  made = tmp_path_factory.mktemp("missing")
  helpers.write_manifest(made, 48, KINDS, name="whole.csv")
  return made


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="module")
def table(folder):
  rows = emptied(read_table(folder / "whole.csv"))
  rows[0]["photo:image"] = "  "  # A blank cell is empty.
  return helpers.write_table(folder / "pairs.csv", rows)


@pytest.fixture(scope="module")
def data(table, data_dir):
  return load(table, data_dir, **ALLOW)


def samples(data):
  """{(split, id): sample}."""
  return {
    (split, s["id"]): s
    for split, source in data.sources.items()
    for s in (source[i] for i in range(len(source)))
  }


def same(one, other):
  assert one.spec.modalities == other.spec.modalities
  assert one.preprocessing == other.preprocessing
  a, b = samples(one), samples(other)
  assert a.keys() == b.keys()
  for key, sample in a.items():
    jax.tree.map(np.testing.assert_array_equal, sample, b[key])


def test_empty_cells_are_missing_modalities(data, folder, data_dir):
  assert all(s.optional for s in data.spec.modalities.values())
  whole = samples(load(folder / "whole.csv", data_dir))
  found = samples(data)
  assert found.keys() == whole.keys()
  for (_, key), sample in found.items():
    lacks = EMPTY.get(int(key), ())
    assert {*sample.get("missing", ())} == {c.split(":")[0] for c in lacks}
    for m, spec in data.spec.modalities.items():
      array = sample["inputs"][m]
      assert (array.shape, array.dtype) == (spec.shape, spec.dtype)
      assert array.any() != (m in sample.get("missing", ()))
  picture = found["test", "8"]["inputs"]["photo"]
  np.testing.assert_array_equal(picture, whole["test", "8"]["inputs"]["photo"])


def test_batches_say_what_is_there(data):
  loader = Loader(data, "test", 8, seed=0, shuffle=False)
  first, last = loader.padded()
  ids = [data.sources["test"][i]["id"] for i in range(12)]
  for m in data.spec.modalities:
    lacks = [
      any(c.startswith(f"{m}:") for c in EMPTY.get(int(i), ())) for i in ids
    ]
    both = np.concatenate([first.present[m], last.present[m]])
    np.testing.assert_array_equal(both[:12], ~np.array(lacks))
    assert not both[12:].any()


def test_the_summary_counts_them(table, data_dir):
  notes = prepare(table, data_dir, **ALLOW).notes
  found = {n.split()[0]: n for n in notes if " is missing in " in n}
  assert list(found) == ["photo", "caption", "sound", "sensor"]
  total = {
    m: sum(map(int, re.findall(r"(\d+) of", note))) for m, note in found.items()
  }
  assert total == {"photo": 3, "caption": 3, "sound": 2, "sensor": 2}
  assert "1 of 12 rows of test" in found["sensor"]


def test_formats_give_equal_data(data, table, folder, data_dir):
  rows = emptied(read_table(folder / "whole.csv"), value=None)
  lines = [
    {k: v for k, v in row.items() if v is not None or i % 2 == 0}
    for i, row in enumerate(rows)
  ]
  lines[0]["photo:image"] = float("nan")
  path = folder / "pairs.jsonl"
  path.write_text("".join(json.dumps(x) + "\n" for x in lines))
  same(load(path, data_dir, **ALLOW), data)
  path = helpers.write_table(folder / "pairs.parquet", rows)
  same(load(path, data_dir, **ALLOW), data)
  frame = pd.read_csv(table)
  frame.loc[1, "caption:text"] = pd.NA
  made = memory.prepare(frame, data_dir, folder=folder, **MANIFEST, **ALLOW)
  key = made.versions["key"]
  again = load("", data_dir, prepared=key, **ALLOW)
  same(again, data)


def test_values_in_memory_give_equal_data(data, folder, data_dir):
  rows = emptied(read_table(folder / "whole.csv"), value=None)
  reads = {
    "photo:image": lambda p: Image.open(p).copy(),
    "sound:audio": lambda p: soundfile.read(p)[0],
    "sensor:array": np.load,
  }
  columns = {c: [r[c] for r in rows] for c in rows[0]}
  for c, read in reads.items():
    columns[c] = [x and read(folder / x) for x in columns[c]]
  empty = np.full_like(np.load(folder / rows[0]["sensor:array"]), np.nan)
  columns["sensor:array"][3] = empty  # As a row of an array of floats.
  columns["caption:text"][1] = float("nan")
  made = memory.prepare(columns, data_dir, **MANIFEST, **ALLOW)
  same(load("", data_dir, prepared=made.versions["key"], **ALLOW), data)


def test_only_what_is_there_counts(data, folder, data_dir):
  """Vocabulary, moments and lengths are those of the table without the rest."""
  rows = read_table(folder / "whole.csv")
  for c in KINDS:
    # The splits are those of the whole table, by a hash of the id.
    outer = {s["id"] for split in ("outer", "val") for s in data.sources[split]}
    kept = [
      {"id": f"{i}"}
      | {k: r[k] for k in ("split", "label", c)}
      | {"split": "val" if f"{i}" in outer else r["split"]}
      for i, r in enumerate(rows, 1)
      if c not in EMPTY.get(i, ())
    ]
    kept += [kept[-1] | {"split": "outer", "id": "last"}]
    path = helpers.write_table(folder / f"only_{c.split(':')[0]}.csv", kept)
    alone = load(path, data_dir)
    m = c.split(":")[0]
    assert alone.preprocessing[m] == data.preprocessing[m]
    assert alone.spec.modalities[m].vocab_size == (
      data.spec.modalities[m].vocab_size
    )


def test_nothing_missing_is_as_ever(folder, data_dir):
  path = folder / "whole.csv"
  made = [prepare(path, data_dir, **options) for options in ({}, ALLOW)]
  folders = [pathlib.Path(x.folder) for x in made]
  assert folders[0] != folders[1]
  prints = [core.PreparedSummary.read(f).fingerprint for f in folders]
  assert prints[0] == prints[1] != ""
  for name in ("modalities.json", "features.json"):
    texts = [(f / name).read_text() for f in folders]
    assert texts[0] == texts[1] and "optional" not in texts[0]
  made = load(path, data_dir, **ALLOW)
  assert Loader(made, "train", 4, seed=0).batch(0).present is None


def test_columns_without_an_empty_cell_are_never_missing(folder, data_dir):
  rows = emptied(read_table(folder / "whole.csv"), {4: ("sensor:array",)})
  path = helpers.write_table(folder / "one.csv", rows)
  made = load(path, data_dir, **ALLOW)
  assert [m for m, s in made.spec.modalities.items() if s.optional] == [
    "sensor"
  ]
  batch = Loader(made, "train", 4, seed=0).batch(0)
  np.testing.assert_array_equal(batch.present["sensor"], np.ones(4))


def test_decoded_splits_are_kept(table, tmp_path, monkeypatch, data):
  monkeypatch.setattr("data_pipelines.core.decoded.LEAST", 1)
  first = load(table, tmp_path, **ALLOW)
  assert list(tmp_path.rglob("decoded/*.npz"))
  monkeypatch.setattr("data_pipelines.manifest._decode", pytest.fail)
  same(load(table, tmp_path, **ALLOW), first)
  same(first, data)


def test_refused_by_default_with_the_fix(table, data_dir):
  with pytest.raises(core.DataError) as error:
    load(table, data_dir)
  message = str(error.value)
  assert "10 problems in 6 rows" in message
  assert "row 1, column 'photo:image': the cell is empty" in message
  assert "--config.data.missing=allow (missing='allow' in Python)" in message


@pytest.mark.parametrize(
  "cells, said",
  [
    ({3: KINDS}, ["row 3: all modalities are missing"]),
    (
      {i: ("sensor:array",) for i in range(1, 49) if i % 4},
      ["column 'sensor:array': no row of split 'train' has it"],
    ),
    ({5: ("label",)}, ["row 5, column 'label': the cell is empty"]),
    ({5: ("split",)}, ["row 5, column 'split': the cell is empty"]),
  ],
)
def test_what_stays_a_fault(cells, said, folder, tmp_path):
  rows = emptied(read_table(folder / "whole.csv"), cells)
  path = helpers.write_table(folder / "bad.csv", rows)
  with pytest.raises(core.DataError) as error:
    load(path, tmp_path, **ALLOW)
  message = str(error.value)
  assert "1 problem" in message and "data.missing" not in message
  assert all(s in message for s in said)


def test_a_named_file_must_exist(folder, tmp_path):
  rows = emptied(read_table(folder / "whole.csv"))
  rows[2]["photo:image"] = "gone.png"
  rows[6] |= dict.fromkeys(KINDS, "")
  path = helpers.write_table(folder / "gone.csv", rows)
  with pytest.raises(core.DataError, match=r"gone\.png: there is no such file"):
    load(path, tmp_path, **ALLOW)
  made = prepare(path, tmp_path, skip_bad=True, **ALLOW)
  assert made.problems[0] == "2 of 48 rows left out"
  assert any("row 7: all modalities are missing" in p for p in made.problems)
  assert sum(sum(n.values()) for n in made.counts.values()) == 46


def test_an_unknown_choice(table, data_dir):
  with pytest.raises(ValueError, match="choose from allow, refuse"):
    load(table, data_dir, missing="alow")


def test_shared_content_and_texts_without_words(folder, tmp_path):
  rows = emptied(read_table(folder / "whole.csv"), {1: KINDS[:1], 2: KINDS[1:]})
  rows[0]["caption:text"] = "!?"
  copy = {c: rows[0][c] for c in KINDS}
  rows[3] |= copy  # of test
  path = helpers.write_table(folder / "copy.csv", rows)
  notes = " | ".join(prepare(path, tmp_path, **ALLOW).notes)
  assert "1 of 12 samples is the same in all modalities" in notes
  assert "caption: 2 of 47 texts have no word" in notes


def test_sequences_of_any_length(tmp_path):
  rng = np.random.default_rng(0)
  table = {"label": ["a", "b"] * 12, "note:text": ["x y"] * 24}
  steps = [rng.normal(size=(3 + i, 2)) for i in range(24)]
  gone = [i for i in range(24) if i % 3 == 0]
  table["s:array"] = [None if i in gone else x for i, x in enumerate(steps)]
  made = memory.prepare(table, tmp_path, **MANIFEST, **ALLOW)
  data = load("", tmp_path, prepared=made.versions["key"], **ALLOW)
  spec = data.spec.modalities["s"]
  assert spec.ragged and spec.optional
  loader = Loader(data, "train", 4, seed=0)
  for step in range(loader.steps_per_epoch):
    batch = loader.batch(step)
    ids = [int(data.sources["train"][i]["id"]) - 1 for i in batch.index]
    x = batch.inputs["s"]
    for row, i in enumerate(ids):
      assert batch.present["s"][row] == (i not in gone)
      assert x["mask"][row].sum() == (0 if i in gone else 3 + i)
      assert x["values"][row].any() == (i not in gone)
