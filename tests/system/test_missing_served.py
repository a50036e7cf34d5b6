"""Predictions for samples that lack modalities, and the exported program."""

import csv
import json

import jax.export
import numpy as np
import pytest

import dmg_jax
import helpers
from configs import manifest
from data_pipelines import core
from dmg_jax.serving import program

HEADS = ("fused", "caption", "photo", "sensor")
OPTIONAL = ("photo", "caption", "sensor")  # The run's all have a sensor.
LACKS = {  # position in test -> columns
  0: ("photo:image",),
  2: ("caption:text",),
  3: ("photo:image", "caption:text"),
  9: ("caption:text",),
}


def emptied(rows, value=""):
  rows = [dict(r) for r in rows]
  for i, columns in LACKS.items():
    rows[i] |= dict.fromkeys(columns, value)
  return rows


@pytest.fixture(scope="module")
def table(pairs):
  """The table of the other runs with empty cells in train and test."""
  rows = helpers.read_table(pairs[0])
  train = [r for r in rows if r["split"] == "train"]
  train[1]["photo:image"] = train[5]["caption:text"] = ""
  test = emptied(r for r in rows if r["split"] == "test")
  return helpers.write_table(pairs[0].with_name("lacking.csv"), train + test)


@pytest.fixture(scope="module")
def words(pairs, table):
  """Fields of its config."""
  return {**pairs[1], "data.manifest": str(table), "data.missing": "allow"}


@pytest.fixture(scope="module")
def folder(quick, words, tmp_path_factory):
  del quick
  config = manifest.get_config("multitask")
  config.update_from_flattened_dict(words)
  return helpers.write_run(config, tmp_path_factory.mktemp("lacks") / "run")


@pytest.fixture(scope="module")
def run(folder):
  return dmg_jax.load(folder)


@pytest.fixture(scope="module")
def rows(pairs):
  """The samples of test without their labels, nothing missing."""
  found = [r for r in helpers.read_table(pairs[0]) if r["split"] == "test"]
  return [{c: r[c] for c in helpers.COLUMNS} for r in found]


@pytest.fixture(scope="module")
def new(table, rows):
  """Tables of new samples with empty cells: {ending: path}."""
  lines = emptied(rows, None)
  lines[0].pop("photo:image")  # Of JSONL a key may be absent, too.
  lines[2]["caption:text"] = float("nan")
  jsonl = helpers.write_table(table.with_name("n.jsonl"), lines)
  return {
    ".csv": helpers.write_table(table.with_name("n.csv"), emptied(rows)),
    ".jsonl": jsonl,
    ".parquet": helpers.write_table(
      table.with_name("n.parquet"), emptied(rows, None)
    ),
  }


def columns(rows, folder, empty=None):
  """The samples as columns of values."""
  filled = emptied(rows, "")
  read = {
    "photo": lambda cell: folder / cell,
    "caption": str,
    "sensor": lambda cell: np.load(folder / cell),
  }
  headers = dict(zip(read, helpers.COLUMNS, strict=True))
  return {
    m: [read[m](r[headers[m]]) if r[headers[m]] else empty for r in filled]
    for m in read
  }


@pytest.fixture(scope="module")
def found(run, rows, table):
  return run.predict(columns(rows, table.parent))


def lacking(count):
  cut = {i: tuple(c.split(":")[0] for c in cs) for i, cs in LACKS.items()}
  return [cut.get(i, ()) for i in range(count)]


def same(one, other, atol=1e-6):
  assert list(one.missing) == list(other.missing)
  for h, p in one.probabilities.items():
    np.testing.assert_allclose(p, other.probabilities[h], atol=atol)


def test_own_heads_of_what_is_missing_say_nothing(run, found, rows, table):
  assert run.predictor.optional == OPTIONAL
  assert list(found.missing) == lacking(len(rows))
  assert np.isfinite(found.probabilities["fused"]).all()
  assert tuple(found.probabilities) == HEADS
  for m in HEADS[1:]:
    gone = [m in lacks for lacks in found.missing]
    p = found.probabilities[m]
    np.testing.assert_array_equal(np.isnan(p), np.tile(gone, (3, 1)).T)
  # They are those of evaluation.
  split = run.predict(split="test")
  same(found, split)
  # One head is left where two are missing.
  np.testing.assert_allclose(
    found.probabilities["fused"][3],
    found.probabilities["sensor"][3],
    rtol=1e-5,
  )


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_tables(ending, run, new, found):
  got = run.predict(new[ending])
  same(got, found)
  assert got.notes == ()


@pytest.mark.parametrize("empty", [float("nan"), "", np.full((2, 3), np.nan)])
def test_entries_that_are_empty(empty, run, rows, table, found):
  same(run.predict(columns(rows, table.parent, empty)), found)


def test_a_modality_that_no_sample_has(run, rows, table):
  whole = columns(rows, table.parent)
  empty = {**whole, "photo": [None] * len(rows)}
  del whole["photo"]
  made = run.predict(whole)
  assert all("photo" in gone for gone in made.missing)
  same(made, run.predict(empty))
  path = table.with_name("narrow.csv")
  kept = [{c: r[c] for c in helpers.COLUMNS[1:]} for r in emptied(rows)]
  given = run.predict(helpers.write_table(path, kept))
  same(made, given)
  (note,) = given.notes
  assert note == "there is no column 'photo:image': all samples lack photo"


def test_what_stays_refused(loaded, rows, new):
  with pytest.raises(ValueError, match=r"sensor \(array\).*got caption"):
    loaded.predict({"caption": ["a cat"]})
  # A run that knows no such samples says what would.
  path = new[".csv"]
  with pytest.raises(core.DataError) as caught:
    loaded.predict(path)
  text = str(caught.value)
  assert "row 1, column 'photo:image': the cell is empty" in text
  assert "(caption, photo)" in text or "(photo, caption)" in text
  assert "--config.data.missing=allow (missing='allow' in Python)" in text
  bad = [dict(r) for r in rows]
  bad[1]["photo:image"] = "absent.png"
  with pytest.raises(core.DataError) as caught:
    loaded.predict(helpers.write_table(path.with_name("b.csv"), bad))
  assert "data.missing" not in str(caught.value)


@pytest.mark.parametrize(
  ("field", "value", "optional"),
  [
    ("data.drop", "caption:0.3+sensor:0.3", ("caption", "sensor")),
    ("data.missing", "allow", ("photo", "caption", "sensor")),
    ("train.modality_dropout", 0.3, ("photo", "caption", "sensor")),
  ],
)
def test_what_may_be_missing(
  field, value, optional, quick, pairs, rows, tmp_path
):
  """The table is whole; the run hides, allows, or drops modalities."""
  del quick
  config = manifest.get_config("multitask")
  config.update_from_flattened_dict({**pairs[1], field: value})
  run = dmg_jax.load(helpers.write_run(config, tmp_path / "run"))
  assert run.predictor.optional == optional
  made = run.predict({"photo": [pairs[0].parent / rows[0]["photo:image"]]})
  assert made.missing == (("caption", "sensor"),)
  np.testing.assert_allclose(
    made.probabilities["fused"], made.probabilities["photo"], rtol=1e-5
  )


def read_csv(path):
  with path.open(encoding="utf-8", newline="") as file:
    return list(csv.DictReader(file))


def test_the_command_writes_empty_cells(command, words, folder, new, found):
  """A table of predictions has what is missing, and replaces its like."""
  output = folder.parent / "out.csv"
  arguments = (
    "--config=configs/manifest.py:multitask", f"--workdir={folder}",
    "--mode=predict", f"--config.eval.output={output}",
    *(f"--config.{k}={str(v).replace(' ', '')}" for k, v in words.items()),
  )  # fmt: skip
  for path in (new[".jsonl"], new[".csv"]):
    code, _, err = command(*arguments, f"--config.eval.manifest={path}")
    assert (code, err) == (0, "")
  table = read_csv(output)
  heads = [f"{h}_prediction" for h in HEADS]
  assert list(table[0])[:6] == ["id", "missing", *heads]
  for i, row in enumerate(table):
    assert row["missing"] == "+".join(found.missing[i])
    for h in HEADS:
      own = [row[f"{h}:{c}"] for c in helpers.CLASSES]
      if h in found.missing[i]:
        assert {row[f"{h}_prediction"], *own} == {""}
        continue
      expected = found.probabilities[h][i]
      np.testing.assert_allclose([*map(float, own)], expected, atol=2e-6)
      best = helpers.CLASSES[int(expected.argmax())]
      assert row[f"{h}_prediction"] == best
  assert command(*arguments)[0] == 0  # Of test, with labels.
  assert list(read_csv(output)[0])[:3] == ["id", "label", "missing"]


def test_parquet_has_nulls(found, tmp_path):
  parquet = pytest.importorskip("pyarrow.parquet")
  for _ in range(2):  # It replaces its like.
    found.write(tmp_path / "x.parquet")
  table = parquet.read_table(tmp_path / "x.parquet").to_pylist()
  for i, row in enumerate(table):
    assert row["missing"] == "+".join(found.missing[i])
    for h, p in found.probabilities.items():
      own = [row[f"{h}:{c}"] for c in helpers.CLASSES]
      if h in found.missing[i]:
        assert {row[f"{h}_prediction"], *own} == {None}
      else:
        np.testing.assert_array_equal(own, p[i])


def test_no_column_where_nothing_can_be_missing(loaded, rows, table, tmp_path):
  whole = {
    "photo": [table.parent / r["photo:image"] for r in rows],
    "caption": [r["caption:text"] for r in rows],
    "sensor": [np.load(table.parent / r["sensor:array"]) for r in rows],
  }
  made = loaded.predict(whole)
  assert made.missing is None
  made.write(tmp_path / "x.csv")
  assert "missing" not in read_csv(tmp_path / "x.csv")[0]


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
  pytest.importorskip("flatbuffers")
  made = tmp_path_factory.mktemp("served")
  said = run.export(made)
  assert not [s for s in said if s.startswith("predictor:")]
  return made


def given(found, run, rows, folder):
  """Arrays of a program: whole inputs, and what is there."""
  filled = columns(rows, folder)
  made = {}
  for m, preprocessor in run.predictor.preprocessors.items():
    spec = preprocessor.spec
    made[m] = np.stack([
      np.zeros(spec.shape, spec.dtype) if x is None else preprocessor(x)
      for x in filled[m]
    ])  # fmt: skip
  for m in OPTIONAL:
    there = [m not in gone for gone in found.missing]
    made[f"present/{m}"] = np.array(there, np.float32)
  return made


@pytest.mark.parametrize("count", [1, 7])
def test_a_program_with_masks(count, exported, run, rows, table, found):
  facts = json.loads((exported / program.FACTS).read_text(encoding="utf-8"))
  assert facts["present"] == list(OPTIONAL) and facts["batch"] == "b"
  code = bytearray((exported / program.PROGRAM).read_bytes())
  alone = jax.export.deserialize(code)
  x = {k: v[:count] for k, v in given(found, run, rows, table.parent).items()}
  made = alone.call(x)
  for h, p in found.probabilities.items():
    np.testing.assert_allclose(made[h], p[:count], atol=1e-6)
  bad = dict(x)
  for m, garbage in (("photo", 255), ("caption", 1)):
    gone = x[f"present/{m}"] == 0
    bad[m] = np.where(gone.reshape(-1, *(1,) * (x[m].ndim - 1)), garbage, x[m])
    bad[m] = bad[m].astype(x[m].dtype)
    assert gone.any() == (bad[m] != x[m]).any()
  again = alone.call(bad)
  for h, p in made.items():
    np.testing.assert_array_equal(p, again[h])


def test_an_export_is_loaded(exported, run, rows, table, found):
  served = dmg_jax.load(exported)
  assert served.optional == OPTIONAL
  new = columns(rows, table.parent)
  same(served.predict(new), found)
  one = served.predict({m: x[3:4] for m, x in new.items() if m == "sensor"})
  assert one.missing == (("photo", "caption"),)
  np.testing.assert_allclose(
    one.probabilities["fused"], found.probabilities["fused"][3:4], atol=1e-6
  )
