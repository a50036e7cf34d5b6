"""A run's predictions on new samples, from Python, and as a program."""

import json
import re
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
from configs import manifest
from data_pipelines import core
from dmg_jax import assemble, evaluate, train
from dmg_jax.checkpoint import METRIC, Checkpoints
from dmg_jax.serve import export, predictor, program, restore

ROOT = Path(launch.__file__).parent
COLUMNS = ("photo:image", "caption:text", "sensor:array")
HEADS = ("fused", "caption", "photo", "sensor")


def write_run(config, folder):
  """A run that stopped at once, and how it is read back."""
  config.loader.resident = "off"  # As it is read back.
  setup = assemble.assemble(config)
  train._write_config(config, folder, None, setup=setup)
  checkpoints = Checkpoints(folder)
  checkpoints.save(setup.fresh(), {METRIC: 0.5})
  checkpoints.close()
  return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory):
  """A manifest, and the words of a command line on it."""
  folder = tmp_path_factory.mktemp("given")
  table = helpers.write_manifest(folder / "files", 48, COLUMNS)
  fields = {
    "data.manifest": str(table),
    "data.dir": str(folder / "data"),
    "data.image_size": 8,
    "encoders.image.widths": (8,),
    "encoders.image.features": 8,
    "encoders.text.features": 8,
    "eval.batch_size": 8,
  }
  return table, fields


@pytest.fixture(scope="module")
def work(quick, given, tmp_path_factory):
  """The folder of a run; not to be changed."""
  del quick
  config = manifest.get_config("h")
  config.update_from_flattened_dict(given[1])
  return write_run(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture
def predict(command, given):
  """``launch.py --mode=predict`` on a run."""

  def run(folder, **fields):
    fields = {**given[1], **{f"eval.{k}": v for k, v in fields.items()}}
    return command(
      "--config=configs/manifest.py:h", f"--workdir={folder}",
      "--mode=predict",
      *(f"--config.{k}={str(v).replace(' ', '')}" for k, v in fields.items()),
    )  # fmt: skip

  return run


@pytest.fixture(scope="module")
def new(given):
  """The rows of test without split and label, and those of all."""
  table, _ = given
  rows = [r for r in helpers.read_table(table) if r["split"] == "test"]
  kept = [{c: row[c] for c in COLUMNS} for row in rows]
  return helpers.write_table(table.with_name("new.csv"), kept), rows


@pytest.fixture(scope="module")
def loaded(work):
  return dmg_jax.load(work, batch_size=8)


@pytest.fixture(scope="module")
def restored(work):
  changes = {"eval": {"batch_size": 8}, "loader": {"resident": "off"}}
  return restore.restore(work, changes)


@pytest.fixture
def at_once(loaded, restored, monkeypatch):
  """Nothing is restored and compiled again."""
  monkeypatch.setattr(restore, "restore", lambda *_: restored)
  monkeypatch.setattr(predictor, "of_run", lambda *_: loaded)


@pytest.fixture(scope="module")
def found(loaded, new):
  """Predictions on the new samples, by Python."""
  path, rows = new
  return loaded.predict(
    {
      "photo": [path.parent / r["photo:image"] for r in rows],
      "caption": [r["caption:text"] for r in rows],
      "sensor": [np.load(path.parent / r["sensor:array"]) for r in rows],
    }
  )


def read_heads(rows, classes):
  return {
    h: np.array([[float(r[f"{h}:{c}"]) for c in classes] for r in rows])
    for h in HEADS
  }


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
  assert mine == split and labels == [r["label"] for r in rows]
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
  bad = [{c: row[c] for c in COLUMNS} for row in rows]
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


def test_a_file_for_each_seed(predict, work, new, at_once, tmp_path):
  path, _ = new
  for name in ("seed_0", "seed_1"):
    shutil.copytree(work, tmp_path / "runs" / name)
  shutil.copy(work / "config.json", tmp_path / "runs")
  with pytest.raises(ValueError, match=r"2 runs.*seed_0"):
    dmg_jax.load(tmp_path / "runs")
  output = tmp_path / "out.csv"
  assert predict(tmp_path / "runs", manifest=path, output=output)[0] == 0
  assert {p.name for p in tmp_path.glob("out*")} == {
    "out_seed_0.csv", "out_seed_1.csv"
  }  # fmt: skip


def test_wrong_inputs(loaded, tmp_path):
  text, values = ["a cat"], [np.zeros((2, 3))]
  for inputs, said in (
    ({"caption": text}, r"photo \(image\).*got caption"),
    ({"photo": "a.png", "caption": text, "sensor": values}, "must be a list"),
    ({"photo": [], "caption": text, "sensor": values}, "as many entries"),
  ):
    with pytest.raises(ValueError, match=said):
      loaded.predict(inputs)
  with pytest.raises(core.DataError) as caught:
    loaded.predict({"photo": ["a.png"], "caption": [""], "sensor": values})
  assert "photo[0]: a.png" in str(caught.value)
  assert "caption[0]" in str(caught.value)
  empty = loaded.predict({"photo": [], "caption": [], "sensor": []})
  assert empty.labels == [] and empty.probabilities["fused"].shape == (0, 3)


def inputs_of(rows, loaded, folder):
  cells = {"photo": "photo:image", "sensor": "sensor:array"}
  made = {
    m: np.stack([loaded.intakes[m](folder / r[c]) for r in rows])
    for m, c in cells.items()
  }
  words = [loaded.intakes["caption"](r["caption:text"]) for r in rows]
  return {**made, "caption": np.stack(words)}


@pytest.fixture(scope="module")
def lowered(restored):
  variables, function = predictor.model(*restored)
  specs = restored[0].dataset.spec.modalities
  shapes = {m: (s.shape, s.dtype) for m, s in specs.items()}
  return program.lower(variables, function, shapes, 8)


def test_program(lowered, loaded, new, found):
  exported, notes = lowered
  assert notes == [] and exported.platforms == ("cpu", "cuda")
  assert {str(a.shape[0]) for a in exported.in_avals} == {"b"}
  arrays = inputs_of(new[1], loaded, new[0].parent)
  for count in (1, len(new[1])):
    made = exported.call({m: x[:count] for m, x in arrays.items()})
    assert set(made) == set(HEADS)
    for h, p in made.items():
      np.testing.assert_allclose(
        p, found.probabilities[h][:count], rtol=1e-5, atol=1e-6
      )


def test_what_cannot_be_lowered_is_told():
  def function(scale, inputs):
    return {"fused": scale * inputs["x"].reshape(int(inputs["x"].shape[0]), -1)}

  shapes = {"x": ((3,), np.float32)}
  exported, notes = program.lower(np.float32(2), function, shapes, 4)
  assert exported.in_avals[0].shape == (4, 3)
  assert exported.platforms == ("cpu", "cuda")
  assert len(notes) == 2 and "not for b = b on cpu" in notes[0]

  def never(scale, inputs):
    raise RuntimeError("never")

  with pytest.raises(ValueError, match=r"cannot be exported.*never"):
    program.lower(np.float32(2), never, shapes, 4)


ALONE = """
import json, sys
sys.modules.update(dict.fromkeys(("dmg_jax", "data_pipelines", "flax")))
import jax, jax.export, numpy as np
folder = sys.argv[1]
facts = json.load(open(folder + "/predictor.json", encoding="utf-8"))
with open(folder + "/predictor.jaxexport", "rb") as file:
  exported = jax.export.deserialize(bytearray(file.read()))
inputs = dict(np.load(folder + "/inputs.npz", allow_pickle=False))
for m, facts in facts["modalities"].items():
  assert inputs[m].dtype == facts["dtype"], m
  assert list(inputs[m].shape[1:]) == facts["shape"], m
np.savez(folder + "/outputs.npz", **exported.call(inputs))
"""


def test_export_without_this_package(restored, loaded, new, found, tmp_path):
  """What deserialises it knows jax alone; so does Python's ``load``."""
  pytest.importorskip("flatbuffers")
  said = export.predictor(tmp_path, *restored)
  assert said[0].startswith("written: ") and len(said) == 1
  np.savez(tmp_path / "inputs.npz", **inputs_of(new[1], loaded, new[0].parent))
  subprocess.run(
    [sys.executable, "-c", ALONE, str(tmp_path)], check=True, cwd=tmp_path
  )
  outputs = np.load(tmp_path / "outputs.npz", allow_pickle=False)
  assert set(outputs) == set(HEADS)
  for h, p in found.probabilities.items():
    np.testing.assert_allclose(outputs[h], p, rtol=1e-5, atol=1e-6)
  facts = json.loads((tmp_path / program.FACTS).read_text(encoding="utf-8"))
  assert facts["classes"] == list(helpers.CLASSES) and facts["batch"] == "b"
  assert "big" in facts["modalities"]["caption"]["preprocessing"]["words"]
  again = dmg_jax.load(tmp_path)
  one = again.predict({
    "photo": [new[0].parent / new[1][0]["photo:image"]],
    "caption": [new[1][0]["caption:text"]],
    "sensor": [new[0].parent / new[1][0]["sensor:array"]],
  })  # fmt: skip
  np.testing.assert_allclose(
    one.probabilities["fused"], found.probabilities["fused"][:1], rtol=1e-5
  )
  (tmp_path / program.PROGRAM).write_bytes(b"damaged")
  with pytest.raises(ValueError, match="write it again"):
    dmg_jax.load(tmp_path)


def test_export_says_what_is_missing(restored, monkeypatch, tmp_path):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  (said,) = export.predictor(tmp_path, *restored)
  assert "not written" in said and "pip install flatbuffers" in said


def test_importing_is_cheap():
  code = "import sys, dmg_jax; assert not {'jax', 'numpy'} & set(sys.modules)"
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_readme(quick, tiny, tmp_path, monkeypatch):
  """The lines of the section run as they stand."""
  del quick
  text = (ROOT / "README.md").read_text(encoding="utf-8")
  section = re.search(r"\n## Predict and serve\n(.*?)\n## ", text, re.S)[1]
  code = re.search(r"```python\n(.*?)```", section, re.S)[1]
  assert len([x for x in code.splitlines() if x.strip()]) == 5
  write_run(tiny("lb"), tmp_path / "runs" / "openmoji-lb")
  from PIL import Image

  Image.new("RGB", (20, 10), "red").save(tmp_path / "party.png")
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(code, names)
  (label,), p = names["found"].labels, names["found"].probabilities
  assert label in names["predictor"].classes and set(p) == {
    "fused", "image", "text"
  }  # fmt: skip
  np.testing.assert_allclose(p["fused"].sum(axis=-1), 1, atol=1e-6)


def test_softmax_is_of_float32_at_least():
  logits = jax.numpy.zeros((1, 2), jax.numpy.bfloat16)
  assert evaluate.softmax(logits).dtype == np.float32
