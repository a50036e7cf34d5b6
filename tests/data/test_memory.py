"""Own data from memory: the arrays of a manifest, and its checks."""

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

import helpers
from data_pipelines import core, manifest
from data_pipelines.manifest import memory
from data_pipelines.manifest.unlabelled import Unlabelled
from data_pipelines.transforms import preprocess
from helpers import MANIFEST, read_table, samples

KINDS = ("photo:image", "caption:text", "sound:audio", "sensor:array")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  return helpers.write_manifest(tmp_path_factory.mktemp("files"), 48, KINDS)


def columns_of(path, *left_out):
  rows = read_table(path)
  return {c: [r[c] for r in rows] for c in rows[0] if c not in left_out}


def opened(path, cells, read):
  return [read(path.parent / cell) for cell in cells]


def picture(path):
  with Image.open(path) as whole:
    return whole.copy()


def in_memory(path, *left_out):
  """The columns of a manifest with what its files hold."""
  columns = columns_of(path, *left_out)
  columns["photo:image"] = opened(path, columns["photo:image"], picture)
  columns["sensor:array"] = opened(path, columns["sensor:array"], np.load)
  columns["sound:audio"] = opened(
    path, columns["sound:audio"], lambda p: soundfile.read(p)[0]
  )
  return columns


def prepare(columns, data_dir, **options):
  return memory.prepare(columns, data_dir, **(MANIFEST | options))


def load(made, folder, **options):
  key = made.versions["key"]
  return manifest.load(folder, prepared=key, **(MANIFEST | options))


def assert_equal(one, other):
  assert one.spec.modalities == other.spec.modalities
  assert one.spec.sizes == other.spec.sizes
  one, other = samples(one), samples(other)
  assert list(one) == list(other)
  for key, (label, inputs) in one.items():
    assert label == other[key][0]
    for m, array in inputs.items():
      np.testing.assert_array_equal(array, other[key][1][m])


def test_values_paths_and_a_file_make_the_same_arrays(table, tmp_path):
  of_file = helpers.load_manifest(table, tmp_path)
  frame = pd.DataFrame(columns_of(table))
  paths = prepare(frame, tmp_path, folder=table.parent)
  assert_equal(of_file, load(paths, tmp_path))
  values = prepare(in_memory(table), tmp_path)
  assert values.versions["key"] != paths.versions["key"]
  assert_equal(of_file, load(values, tmp_path))
  assert prepare(in_memory(table), tmp_path) == values
  assert len(list(tmp_path.iterdir())) == 3
  changed = in_memory(table)
  changed["sensor:array"][5] = changed["sensor:array"][5] + 1
  prepare(changed, tmp_path)
  assert len(list(tmp_path.iterdir())) == 4


def test_without_split_all_rows_are_train(tmp_path):
  numbers = np.arange(40.0).reshape(20, 2)
  columns = {"label": np.arange(20) % 2, "a:array": numbers}
  data = load(prepare(columns, tmp_path), tmp_path, standardise=True)
  assert data.spec.sizes == {"train": 16, "outer": 2, "val": 2}
  assert data.spec.classes == ("0", "1")
  ids = [s["id"] for s in map(data.sources["train"].__getitem__, range(16))]
  assert ids == sorted(ids, key=int)
  raw = prepare(columns, tmp_path, standardise=False)
  data = load(raw, tmp_path, standardise=False)
  for (_, key), (_, inputs) in samples(data).items():
    np.testing.assert_array_equal(inputs["a"], numbers[int(key) - 1])


def test_all_that_is_wrong_is_listed(table, tmp_path):
  columns = in_memory(table)
  columns["photo:image"][1] = np.zeros((4, 4, 3))
  columns["photo:image"][2] = None
  columns["sensor:array"][3] = [[1.0], [2.0, 3.0]]
  columns["sensor:array"][4] = np.zeros(7)
  columns["sound:audio"][5] = "absent.wav"
  columns["caption:text"][6] = 0.5
  columns["label"][7] = float("nan")
  with pytest.raises(core.DataError) as caught:
    prepare(columns, tmp_path / "data")
  text = str(caught.value)
  for part in (
    "the table: 7 problems in 7 rows (counted from 1)",
    "row 2, column 'photo:image': this ndarray cannot be used as image: an "
    "array must be uint8 [h w 3] or [h w], got float64 of shape (4, 4, 3)",
    "row 3, column 'photo:image': the cell is empty",
    "row 4, column 'sensor:array': this list cannot be used as array: ",
    "row 5, column 'sensor:array': this ndarray has shape (7,), 45 of 46 have",
    "row 6, column 'sound:audio': absent.wav: there is no such file",
    "row 7, column 'caption:text': 0.5 is neither a text nor a whole number",
    "row 8, column 'label': the cell is empty",
  ):
    assert part in text, (part, text)
  assert not (tmp_path / "data").exists()
  kept = prepare(columns, tmp_path / "data", skip_bad=True)
  assert kept.problems[0] == "7 of 48 rows left out"


def test_columns_that_do_not_fit(tmp_path):
  for columns, error, said in (
    ({"label": [0], "a:text": ["x", "y"]}, ValueError, "'label' has 1"),
    ({"a:text": ["x", "y"]}, core.DataError, "no column 'label'"),
    ({"label": [0, 1], "a": [1, 2]}, core.DataError, "no column of a modality"),
    ({"label": [0, 0], "a:text": "xy"}, core.DataError, "two classes"),
    ({"label": [], "a:text": []}, core.DataError, "no row of split 'train'"),
  ):
    with pytest.raises(error, match=said):
      prepare(columns, tmp_path)


def test_grey_pictures_and_videos(tmp_path):
  pytest.importorskip("av")
  rng = np.random.default_rng(0)
  grey = rng.integers(0, 256, (12, 8, 8), np.uint8)
  clips = rng.integers(0, 256, (12, 5, 8, 8, 3), np.uint8)
  columns = {"label": ["a", "b"] * 6, "g:image": grey, "v:video": clips}
  data = load(prepare(columns, tmp_path, frames=5), tmp_path, frames=5)
  for (_, key), (_, inputs) in samples(data).items():
    shown = np.repeat(grey[int(key) - 1][..., None], 3, axis=-1)
    np.testing.assert_array_equal(inputs["g"], shown)
    np.testing.assert_array_equal(inputs["v"], clips[int(key) - 1])


def test_prepared_data_by_their_key(tmp_path):
  columns = {"label": [0, 1] * 6, "a:text": ["cat", "dog"] * 6}
  made = prepare(columns, tmp_path)
  key = made.versions["key"]
  assert manifest.prepare(tmp_path, prepared=key, **MANIFEST) == made
  with pytest.raises(core.DataError, match=f"'0' in .*there are {key}.*dir"):
    manifest.load(tmp_path, prepared="0", **MANIFEST)
  with pytest.raises(core.DataError, match="image_size=8, not 16"):
    load(made, tmp_path, image_size=16)
  with pytest.raises(ValueError, match=r"both .*keep one of --config\.data"):
    manifest.load(tmp_path, manifest="a.csv", prepared=key)
  with pytest.raises(ValueError, match=r"--config\.data\.manifest"):
    manifest.load(tmp_path)
  assert load(made, tmp_path, max_words=3).spec.modalities["a"].shape == (3,)


def test_new_samples_from_memory(table, tmp_path):
  data = helpers.load_manifest(table, tmp_path)
  made = preprocess.of(data)
  columns = in_memory(table, "split", "label")
  bare = {c.partition(":")[0]: cells for c, cells in columns.items()}
  for given in (columns, bare, pd.DataFrame(columns_of(table, "split"))):
    rows = Unlabelled(given, made, table.parent)
    found = list(rows.batches(20))
    assert [len(b["photo"]) for b in found] == [20, 20, 8]
    known = {key: inputs for (_, key), (_, inputs) in samples(data).items()}
    for m in made:
      array = np.concatenate([b[m] for b in found])
      expected = np.stack([known[i][m] for i in rows.ids])
      np.testing.assert_array_equal(array, expected)
  bare["photo"][3] = None
  rows = Unlabelled(bare, made)
  with pytest.raises(core.DataError, match="row 4, column 'photo:image'"):
    list(rows.batches(8))
