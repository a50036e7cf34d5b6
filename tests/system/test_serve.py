"""A run's predictions on new samples, from Python, and as a program."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import dmg_jax
import helpers
import launch
from data_pipelines import core
from dmg_jax.evaluation import metrics
from dmg_jax.serving import predictor
from dmg_jax.training import restore

ROOT = Path(launch.__file__).parent
HEADS = ("fused", "caption", "photo", "sensor")


@pytest.fixture
def predict(command, pairs):
  """``launch.py --mode=predict`` on a run."""

  def run(folder, mode="predict", **fields):
    fields = {**pairs[1], **{f"eval.{k}": v for k, v in fields.items()}}
    return command(
      "--config=configs/manifest.py:h", f"--workdir={folder}",
      f"--mode={mode}",
      *(f"--config.{k}={str(v).replace(' ', '')}" for k, v in fields.items()),
    )  # fmt: skip

  return run


@pytest.fixture
def at_once(loaded, restored, monkeypatch):
  """Nothing is restored and compiled again."""
  setup, state = restored
  monkeypatch.setattr(restore, "configured", lambda *_: setup)
  monkeypatch.setattr(restore, "chosen", lambda *_: state)
  monkeypatch.setattr(predictor, "of_run", lambda *_: loaded.predictor)


def read_heads(rows, classes):
  return {
    h: np.array([[float(r[f"{h}:{c}"]) for c in classes] for r in rows])
    for h in HEADS
  }


def assert_alike(mine, split):
  """The same predictions, and probabilities to the last digit of the file.

  Batches of another size are another program, which may round otherwise.
  """
  assert [list(r) for r in mine] == [list(r) for r in split]
  for one, other in zip(mine, split, strict=True):
    for column, value in one.items():
      if ":" in column:
        assert float(value) == pytest.approx(float(other[column]), abs=1.5e-6)
      else:
        assert value == other[column]


def test_new_samples_as_those_of_test(predict, work, new, found, at_once):
  path, rows = new
  assert predict(work)[::2] == (0, "")
  split = helpers.read_table(work / "predictions_test.csv")
  code, out, err = predict(work, manifest=path)
  assert (code, err) == (0, "") and "predictions_of_new.csv" in out
  mine = helpers.read_table(work / "predictions_of_new.csv")
  assert list(mine[0])[1:] == list(split[0])[2:]
  assert [r.pop("id") for r in mine] == [f"{i + 1}" for i in range(len(rows))]
  labels = [(r.pop("id"), r.pop("label"))[1] for r in split]
  assert labels == [r["label"] for r in rows]
  assert_alike(mine, split)
  heads = read_heads(mine, helpers.CLASSES)
  assert tuple(found.probabilities) == HEADS
  for h, expected in heads.items():
    assert np.ptp(expected, axis=0).max() > 1e-3  # Inputs tell.
    np.testing.assert_allclose(found.probabilities[h], expected, atol=1e-6)
  assert found.labels == [r["fused_prediction"] for r in mine]


def test_parquet_with_labels_and_ids(
  predict, work, new, found, at_once, tmp_path
):
  parquet = pytest.importorskip("pyarrow.parquet")
  path, rows = new
  kept = [{**r, "id": f"n{i}", "label": "?"} for i, r in enumerate(rows)]
  table = helpers.write_table(path.with_name("named.jsonl"), kept)
  output = tmp_path / "deep" / "out.parquet"
  assert predict(work, manifest=table, output=output)[::2] == (0, "")
  mine = parquet.read_table(output).to_pylist()
  assert [r["id"] for r in mine] == [f"n{i}" for i in range(len(rows))]
  assert {r["label"] for r in mine} == {"?"}
  for h, expected in read_heads(mine, helpers.CLASSES).items():
    np.testing.assert_array_equal(found.probabilities[h], expected)


def test_nothing_half_written(predict, work, new, at_once, tmp_path):
  path, rows = new
  bad = [{c: row[c] for c in helpers.COLUMNS} for row in rows]
  bad[-1]["photo:image"], bad[-2]["caption:text"] = "absent.png", ""
  table = helpers.write_table(path.with_name("bad.csv"), bad)
  before = set(work.rglob("*"))
  code, out, err = predict(work, manifest=table, output=tmp_path / "x.csv")
  assert (code, out) == (1, "")
  assert "2 problems in 2 rows" in err and "absent.png: there is no" in err
  assert f"row {len(rows) - 1}, column 'caption:text'" in err
  assert set(work.rglob("*")) == before and not list(tmp_path.iterdir())
  for name, said in (("x.xlsx", ".csv or .parquet"), ("", "is a folder")):
    code, _, err = predict(work, manifest=path, output=tmp_path / name)
    assert code == 1 and err.count("\n") == 1
    assert said in err or ".csv or .parquet" in err


def test_only_predictions_take_a_manifest(predict, work, new):
  code, out, err = predict(work, mode="evaluate", manifest=new[0])
  assert (code, out) == (1, "") and "--mode=predict" in err


def test_a_file_for_each_seed(predict, work, new, at_once, tmp_path):
  path, _ = new
  for name in ("seed_0", "seed_1"):
    shutil.copytree(work, tmp_path / "runs" / name)
  shutil.copy(work / "config.json", tmp_path / "runs")
  several = dmg_jax.load(tmp_path / "runs")
  assert [run.folder.name for run in several.runs] == ["seed_0", "seed_1"]
  with pytest.raises(ValueError, match=r"2 runs.*seed_0.*runs\[0\]\.predict"):
    several.predict(path)
  output = tmp_path / "out.csv"
  assert predict(tmp_path / "runs", manifest=path, output=output)[0] == 0
  assert {p.name for p in tmp_path.glob("out*")} == {
    "out_seed_0.csv", "out_seed_1.csv"
  }  # fmt: skip


def test_wrong_inputs(loaded, tmp_path):
  words, values = ["a cat"], [np.zeros((2, 3))]
  for inputs, said in (
    ({"caption": words}, r"photo \(image\).*got caption"),
    ({"photo": "a.png", "caption": words, "sensor": values}, "must be a list"),
    ({"photo": [], "caption": words, "sensor": values}, "as many rows"),
  ):
    with pytest.raises(ValueError, match=said):
      loaded.predict(inputs)
  with pytest.raises(core.DataError) as caught:
    loaded.predict({"photo": ["a.png"], "caption": [""], "sensor": values})
  text = str(caught.value)
  assert "row 1, column 'photo:image': a.png: there is no such file" in text
  assert "row 1, column 'caption:text': this str cannot be used as text" in text
  assert ": the text is empty" in text
  empty = loaded.predict({"photo": [], "caption": [], "sensor": []})
  assert empty.labels == [] and empty.probabilities["fused"].shape == (0, 3)


def test_importing_is_cheap():
  code = "import sys, dmg_jax; assert not {'jax', 'numpy'} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_softmax_is_of_float32_at_least():
  logits = jax.numpy.zeros((1, 2), jax.numpy.bfloat16)
  assert metrics.softmax(logits).dtype == np.float32
