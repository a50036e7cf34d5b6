"""Own data by a manifest: whatever is wrong is listed at once."""

import numpy as np
import pytest
import soundfile

import helpers
from data_pipelines import core
from data_pipelines import manifest as pipeline
from data_pipelines.errors import ListedDataError
from helpers import load_manifest as load
from helpers import prepare_manifest as prepare
from helpers import read_table, samples

MODALITIES = ("photo:image", "caption:text", "sound:audio")


def broken(tmp_path):
  """A manifest with one of each bad row, and good ones of two classes."""
  folder = tmp_path / "bad"
  path = helpers.write_manifest(
    folder, 60, (*MODALITIES, "feature:array"), name="bad.csv"
  )
  (folder / "junk.png").write_bytes(b"\x89PNG no picture")
  (folder / "junk.wav").write_bytes(b"RIFF no sound")
  soundfile.write(folder / "none.wav", np.zeros(0), 8000)
  np.save(folder / "wide.npy", np.zeros((2, 9)))
  np.save(folder / "nan.npy", np.full((2, 3), np.nan))
  np.save(folder / "pickle.npy", np.array([{}]), allow_pickle=True)
  np.savez(folder / "many.npz", a=np.zeros(3))
  changes = {
    1: {"photo:image": "gone.png"},
    2: {"photo:image": "junk.png"},
    5: {"sound:audio": "junk.wav"},
    6: {"sound:audio": "none.wav"},
    7: {"feature:array": "wide.npy"},
    9: {"feature:array": "nan.npy"},
    10: {"feature:array": "pickle.npy"},
    11: {"feature:array": "many.npz"},
    13: {"split": "trian"},
    14: {"label": ""},
    15: {"caption:text": " "},
    17: {"id": "18"},
    20: {"label": "owl"},  # of test
    21: {"photo:image": "", "feature:array": "gone.npy"},
  }
  table = [{"id": f"{i}", **r} for i, r in enumerate(read_table(path), 1)]
  for number, change in changes.items():
    table[number - 1] |= change
  helpers.write_table(path, table)
  with path.open("a", encoding="utf-8") as file:
    file.write('61,train,ant,a,"b, c",d,e,f\n,,,,,,\n\n62,test,ant\n')
  return path


PROBLEMS = [
  (1, "photo:image", "gone.png: there is no such file"),
  (2, "photo:image", "junk.png cannot be used as image: "),
  (5, "sound:audio", "junk.wav cannot be used as audio: "),
  (6, "sound:audio", "none.wav cannot be used as audio: it holds no samples"),
  (7, "feature:array", "wide.npy has shape (2, 9), 53 of 54 have (2, 3)"),
  (9, "feature:array", "nan.npy cannot be used as array: some numbers are NaN"),
  (10, "feature:array", "pickle.npy cannot be used as array: "),
  (11, "feature:array", "many.npz cannot be used as array: it holds several"),
  (13, "split", "unknown split 'trian'; did you mean 'train'?"),
  (14, "label", "the cell is empty"),
  (15, "caption:text", "the cell is empty"),
  (18, "id", "'18' is the id of row 17, too"),
  (20, "label", "no row of split 'train' is of class 'owl'"),
  (21, "photo:image", "the cell is empty"),
  (21, "feature:array", "gone.npy: there is no such file"),
  (61, None, "8 cells, the header has 7"),
  (61, "photo:image", "a: there is no such file"),
]


def test_problems_are_listed_at_once(tmp_path, monkeypatch):
  monkeypatch.setattr("data_pipelines.manifest.faults._SHOWN", 100)
  path = broken(tmp_path)
  with pytest.raises(ListedDataError) as caught:
    load(path, tmp_path / "data")
  message = str(caught.value)
  for number, column, said in PROBLEMS:
    place = f"row {number}" + (f", column {column!r}" if column else "")
    assert f"  {place}: {said}" in message, (place, message)
  assert f"{path}: 23 problems in 16 rows" in message
  assert "skip_bad" in message
  assert not (tmp_path / "data").exists()
  monkeypatch.undo()
  with pytest.raises(core.DataError) as caught:
    load(path, tmp_path / "data")
  assert "23 problems in 16 rows" in str(caught.value)
  assert "the first 20:" in str(caught.value)
  assert str(caught.value).count("\n") == 22


def test_bad_rows_can_be_left_out(tmp_path, capsys):
  path = broken(tmp_path)
  made = prepare(path, tmp_path / "data", skip_bad=True)
  assert made.problems[0] == "16 of 62 rows left out"
  assert len(made.problems) == 24
  assert "problem: left out row 1, column 'photo:image': gone.png" in (
    made.summary()
  )
  data = load(path, tmp_path / "data", skip_bad=True)
  assert not capsys.readouterr().err  # prepare has said it
  load(path, tmp_path / "other", skip_bad=True)
  said = capsys.readouterr().err
  assert "note: split 'val' is absent" in said
  assert "problem: 16 of 62 rows left out (and 23 more); --mode=prepare" in said
  kept = {key for _, key in samples(data)}
  assert len(kept) == 46 and not kept & {"1", "13", "20", "61", "62"}
  assert data.spec.classes == helpers.CLASSES


@pytest.mark.parametrize("content,parts", [
  ("", ["is empty", "split, label"]),
  ("\n,,\n", ["no column 'split'", "none with a name", "photo:image"]),
  ("split,label\n", ["kinds: image, text, audio, video, array"]),
  ("split,lable,a:text\n", ["no column 'label'; there are split, lable"]),
  ("split,label,a:imgae\n", ["column 'a:imgae'", "did you mean 'image'"]),
  ("split,label,a b:text\n", ["letters, digits", "a_b:text"]),
  ("split,label,_2:text\n", ["a letter first: view_2:text"]),
  ("split,label,a:text,a:image\n", ["another modality 'a'"]),
  ("split,label,label,a:text\n", ["column 'label': it occurs twice"]),
  ("split;label;a:text\n", ["divided by ';'"]),
  ("split,label,a:text\n", ["no row of split 'train'", "split 'test'"]),
  ("split,label,a:text\ntrain,x,y\ntrain,z,y\n", ["no row of split 'test'"]),
  ("split,label,a:text\ntrain,x,y\ntest,x,y\n", ["two classes"]),
  ("split,label,a:text\ntrain,x,y\ntrain,z,y\ntest,x,y\n", ["too few rows"]),
  ('split,label,a:text\ntrain,x,"y\n', ["row 1, column 'a:text'", "line 2 of"]),
])  # fmt: skip
def test_what_is_no_manifest(tmp_path, content, parts):
  path = tmp_path / "a.csv"
  path.write_text(content, encoding="utf-8")
  with pytest.raises(core.DataError) as caught:
    load(path, tmp_path / "data")
  for part in (str(path), *parts):
    assert part in str(caught.value)


def test_files_that_are_no_manifest(tmp_path):
  with pytest.raises(core.DataError, match=r"no manifest .*a\.csv"):
    load(tmp_path / "a.csv", tmp_path)
  with pytest.raises(core.DataError, match=r"\.xlsx.*\.csv"):
    load(tmp_path / "a.xlsx", tmp_path)
  with pytest.raises(ValueError, match=r"--config\.data\.manifest"):
    pipeline.load(tmp_path)
  (tmp_path / "b.csv").write_bytes("split,label,ä:text".encode("latin-1"))
  with pytest.raises(core.DataError, match="UTF-8"):
    load(tmp_path / "b.csv", tmp_path)
  (tmp_path / "c.parquet").write_bytes(b"nothing")
  with pytest.raises(core.DataError, match="no Parquet file"):
    load(tmp_path / "c.parquet", tmp_path)
  lines = '{"split": "train", "label": [1.5], "a:text": "x"}\n[]\n{"spl\n'
  (tmp_path / "d.jsonl").write_text(lines)
  with pytest.raises(core.DataError) as caught:
    load(tmp_path / "d.jsonl", tmp_path)
  assert "row 1, column 'label': a list of length 1 is" in str(caught.value)
  assert "row 2: the line is no JSON object" in str(caught.value)
  assert "row 3: " in str(caught.value)


@pytest.mark.parametrize("option,value", [
  ("image_size", 0), ("noverlap", 64), ("seconds", -1.0), ("frames", 0),
  ("held_out", 0.0), ("max_words", 0), ("word_dropout", 1.0),
])  # fmt: skip
def test_options_out_of_range(made, tmp_path, option, value):
  with pytest.raises(ValueError, match=option):
    load(made, tmp_path, **{option: value})
