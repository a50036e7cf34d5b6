"""Own data by a manifest: formats, splits, preparing, the config."""

import shutil
import sys

import numpy as np
import pytest
from PIL import Image

import helpers
from configs import manifest as config_file
from data_pipelines import core, manifest
from data_pipelines.core import decoded, storage, summary
from data_pipelines.load.loader import Loader
from data_pipelines.manifest import rows
from data_pipelines.transforms import image, text
from dmg_jax.training import experiment
from helpers import load_manifest as load
from helpers import prepare_manifest as prepare
from helpers import read_table, samples


def assert_equal(one, other):
  assert one.spec == other.spec
  one, other = samples(one), samples(other)
  assert one.keys() == other.keys()
  for key, (label, inputs) in one.items():
    assert label == other[key][0]
    for m, array in inputs.items():
      np.testing.assert_array_equal(array, other[key][1][m])


def test_three_modalities(made, tmp_path):
  data = load(made, tmp_path)
  spec = data.spec
  assert spec.name == "pairs.csv" and spec.classes == helpers.CLASSES
  assert list(spec.modalities) == ["photo", "caption", "sound"]
  assert spec.modalities["photo"].shape == (8, 8, 3)
  assert spec.modalities["caption"].shape == (64,)
  assert spec.modalities["sound"].shape == (33, 125, 1)  # one second
  assert spec.sizes["test"] == 20 and sum(spec.sizes.values()) == 80
  given = read_table(made)
  words = text.WordVocabulary.build(
    given[int(key) - 1]["caption:text"]
    for split, key in samples(data)
    if split == "train"
  )
  assert spec.modalities["caption"].vocab_size == len(words)
  for (split, key), (label, inputs) in samples(data).items():
    row = given[int(key) - 1]
    assert label == row["label"]
    assert split == "test" if row["split"] == "test" else split != "test"
    expected = words.encode(row["caption:text"], 64)
    np.testing.assert_array_equal(inputs["caption"], expected)
    picture = image.read(made.parent / row["photo:image"], 8)
    np.testing.assert_array_equal(inputs["photo"], picture)
    assert abs(inputs["sound"].mean()) < 1e-4
    assert inputs["sound"].std() == pytest.approx(1, abs=1e-3)
  batch = Loader(data, "train", 8, seed=0).batch(0)
  assert batch.inputs["sound"].shape == (8, 33, 125, 1)


def test_formats_give_equal_data(made, tmp_path):
  table = [{**r, "id": f"k{i}"} for i, r in enumerate(read_table(made))]
  folder = shutil.copytree(made.parent, tmp_path / "files")
  paths = [
    helpers.write_table(folder / f"m{end}", table)
    for end in (".csv", ".jsonl", ".parquet")
  ]
  windows = paths[0].read_text(encoding="utf-8").replace("\n", "\r\n")
  paths.append(folder / "excel.csv")
  paths[-1].write_bytes(b"\xef\xbb\xbf" + windows.encode())
  one, *others = [load(p, tmp_path / "data") for p in paths]
  assert any(key == "k7" for _, key in samples(one))
  for other in others:
    spec = one.spec.__class__(**{**vars(other.spec), "name": one.spec.name})
    assert_equal(one, core.Dataset(spec, other.sources))


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  path = tmp_path / "a.parquet"
  path.write_bytes(b"")
  with pytest.raises(ModuleNotFoundError, match=r"\[parquet\]"):
    load(path, tmp_path)


def test_preparing_again(made, tmp_path, monkeypatch):
  folder = shutil.copytree(made.parent, tmp_path / "files")
  path, data = folder / made.name, tmp_path / "data"
  first = prepare(path, data)
  with monkeypatch.context() as context:
    context.setattr(storage, "write", None)  # is not called again
    assert prepare(path, data) == first
    load(path, data)
  assert len(list(data.iterdir())) == 1
  # Damage is mended by prepare, and refused by load.
  records = next(data.rglob("*.array_record*"))
  records.write_bytes(b"")
  with pytest.raises(core.DataError, match="damaged"):
    load(path, data)
  assert prepare(path, data) == first
  # Whatever changes, data are made anew; max_words is not of them.
  load(path, data, max_words=3)
  assert len(list(data.iterdir())) == 1
  Image.new("RGB", (9, 9)).save(folder / "new.png")
  rows_ = read_table(path)
  rows_[0]["photo:image"] = "new.png"
  helpers.write_table(path, rows_)
  assert prepare(path, data).folder != first.folder
  Image.new("RGB", (19, 9)).save(folder / "new.png")
  prepare(path, data)
  prepare(path, data, held_out=0.2)
  assert len(list(data.iterdir())) == 4
  # Half-done work leaves nothing behind.
  monkeypatch.setattr(summary.PreparedSummary, "to_json", None)
  with pytest.raises(TypeError):
    prepare(path, data, held_out=0.3)
  assert len(list(data.iterdir())) == 4


def plain(n, splits=("train", "train", "test")):
  return [
    rows.Row(i, f"id{i}", splits[i % len(splits)], f"c{i % 7 // 3}", {})
    for i in range(n)
  ]


def test_carved_splits():
  given = plain(700)
  splits, notes = rows.carve(given, 0.1)
  ids = {s: {r.id for r in members} for s, members in splits.items()}
  assert sum(map(len, ids.values())) == len(set.union(*ids.values())) == 700
  assert ids["test"] == {r.id for r in given if r.split == "test"}
  train = [r for r in given if r.split == "train"]
  for c in ("c0", "c1", "c2"):
    total = sum(r.label == c for r in train)
    for split in ("outer", "val"):
      own = sum(r.label == c for r in splits[split])
      assert own == round(0.1 * total)
  assert len(notes) == 2
  # The order of rows has no influence.
  again, _ = rows.carve(given[::-1], 0.1)
  assert again == splits
  # What is given stays; classes of few rows keep one for training.
  own = [r._replace(split="val") if r.number < 30 else r for r in given]
  splits, notes = rows.carve(own, 0.1)
  assert {r.number for r in splits["val"]} == set(range(30))
  assert len(notes) == 1 and "'outer'" in notes[0]
  few = [rows.Row(i, str(i), "train", "ab"[i % 2], {}) for i in range(6)]
  splits, _ = rows.carve(few, 0.1)
  assert [len(splits[s]) for s in ("train", "outer", "val")] == [2, 2, 2]


@pytest.mark.parametrize("word", ["val", "valid", "Validation", "dev"])
def test_words_for_splits_and_labels_that_are_numbers(tmp_path, word):
  table = [
    {"split": s, "label": i % 11, "note": "x", "a:text": f"w{i}"}
    for i, s in enumerate(["train", "Train", word, "outer", "test"] * 22)
  ]
  path = helpers.write_table(tmp_path / "a.jsonl", table)
  data = load(path, tmp_path / "data")
  assert data.spec.classes == tuple(map(str, range(11)))
  assert data.spec.sizes == {"train": 44, "outer": 22, "val": 22, "test": 22}
  assert samples(data)["test", "50"][0] == str(49 % 11)
  made = prepare(path, tmp_path / "data")
  assert made.notes == (
    "column 'note' is not used: a modality's is called name:kind",
  )


def test_config():
  config = config_file.get_config("joint,epochs=2")
  assert set(config.encoders) == {*core.KINDS, "sequence"}
  assert config.data.manifest == "" and config.data.name == "manifest"


def test_an_encoder_is_looked_up_by_name_then_by_kind():
  config = config_file.get_config("joint")
  found = experiment.encoder_options(config, "photo", "image")
  assert found.name == "small.ConvNet"
  with config.unlocked():
    config.encoders.photo = {"name": "small.MLP"}
    del config.encoders["image"]
  assert (
    experiment.encoder_options(config, "photo", "image").name == "small.MLP"
  )
  # A column text:array holds arrays.
  assert experiment.encoder_options(config, "text", "array").name == "small.MLP"
  assert experiment.encoder_options(config, "text", "text").name != "small.MLP"
  with pytest.raises(ValueError, match=r"'scan' or its kind 'image'.*photo"):
    experiment.encoder_options(config, "scan", "image")


def test_a_model_of_any_modalities(tmp_path):
  kinds = ("one:array", "two:array", "caption:text")
  path = helpers.write_manifest(tmp_path / "files", 60, kinds)
  config = config_file.get_config("joint,batch_size=8")
  config.data.update(manifest=str(path), dir=str(tmp_path / "data"))
  setup = experiment.assemble(config)
  assert setup.problem.modalities == ("one", "two", "caption")
  # Names that metrics use are refused.
  table = [{"fused:text": r["caption:text"], **r} for r in read_table(path)]
  helpers.write_table(path, table)
  with pytest.raises(ValueError, match="'fused'"):
    experiment.assemble(config)


def test_labels_are_read_without_decoding(made, tmp_path, monkeypatch):
  """Data that do not fit into memory: only the column is decoded."""
  whole = manifest.load(tmp_path, manifest=str(made)).sources["train"]
  monkeypatch.setattr(decoded, "cache_if_small", lambda source, _: source)
  monkeypatch.setattr(manifest, "_decode", pytest.fail)
  stored = manifest.load(tmp_path, manifest=str(made)).sources["train"]
  want = core.labels(whole)
  assert len(want) and (core.labels(stored) == want).all()
  assert not hasattr(stored, "take")
