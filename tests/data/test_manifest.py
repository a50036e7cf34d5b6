"""Own data by a manifest: formats, kinds, problems, splits."""

import csv
import importlib.util
import shutil
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

import helpers
from configs import manifest as config_file
from data_pipelines import _manifest_rows as rows
from data_pipelines import audio, core, image, report, storage, text, video
from data_pipelines import manifest as pipeline
from data_pipelines.loader import Loader
from dmg_jax import assemble

MODALITIES = ("photo:image", "caption:text", "sound:audio")
OPTIONS = {"image_size": 8, "sample_rate": 8000, "nperseg": 64, "noverlap": 0}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A manifest of three modalities; not to be changed."""
  return helpers.write_manifest(tmp_path_factory.mktemp("three"), 80)


def load(path, folder, **options):
  return pipeline.load(folder, manifest=str(path), **(OPTIONS | options))


def prepare(path, folder, **options):
  return pipeline.prepare(folder, manifest=str(path), **(OPTIONS | options))


def table_of(path):
  with path.open(encoding="utf-8", newline="") as file:
    return list(csv.DictReader(file))


def samples(dataset):
  return {
    (split, s["id"]): (dataset.spec.classes[s["label"]], s["inputs"])
    for split, source in dataset.sources.items()
    for s in (source[i] for i in range(len(source)))
  }


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
  given = table_of(made)
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
  table = [{**r, "id": f"k{i}"} for i, r in enumerate(table_of(made))]
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
  rows_ = table_of(path)
  rows_[0]["photo:image"] = "new.png"
  helpers.write_table(path, rows_)
  assert prepare(path, data).folder != first.folder
  Image.new("RGB", (19, 9)).save(folder / "new.png")
  prepare(path, data)
  prepare(path, data, held_out=0.2)
  assert len(list(data.iterdir())) == 4
  # Half-done work leaves nothing behind.
  monkeypatch.setattr(report.Report, "to_json", None)
  with pytest.raises(TypeError):
    prepare(path, data, held_out=0.3)
  assert len(list(data.iterdir())) == 4


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
  table = [{"id": f"{i}", **r} for i, r in enumerate(table_of(path), 1)]
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
  (13, "split", "unknown split 'trian' (did you mean 'train'?)"),
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
  monkeypatch.setattr("data_pipelines._manifest_table._SHOWN", 100)
  path = broken(tmp_path)
  with pytest.raises(report.ListedDataError) as caught:
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
  assert str(caught.value).count("\n") == 21


def test_bad_rows_can_be_left_out(tmp_path):
  path = broken(tmp_path)
  made = prepare(path, tmp_path / "data", skip_bad=True)
  assert made.problems[0] == "16 of 62 rows left out"
  assert len(made.problems) == 24
  assert "problem: left out row 1, column 'photo:image': gone.png" in (
    made.summary()
  )
  data = load(path, tmp_path / "data", skip_bad=True)
  kept = {key for _, key in samples(data)}
  assert len(kept) == 46 and not kept & {"1", "13", "20", "61", "62"}
  assert data.spec.classes == helpers.CLASSES


@pytest.mark.parametrize("content,parts", [
  ("", ["no column 'split'", "no column 'label'", "photo:image"]),
  ("split,label\n", ["kinds: image, text, audio, video, array"]),
  ("split,lable,a:text\n", ["no column 'label'; there are split, lable"]),
  ("split,label,a:imgae\n", ["column 'a:imgae'", "did you mean 'image'"]),
  ("split,label,a b:text\n", ["letters, digits"]),
  ("split,label,a:text,a:image\n", ["another modality 'a'"]),
  ("split,label,label,a:text\n", ["column 'label': it occurs twice"]),
  ("split;label;a:text\n", ["divided by ';'"]),
  ("split,label,a:text\n", ["no row of split 'train'", "split 'test'"]),
  ("split,label,a:text\ntrain,x,y\ntrain,z,y\n", ["no row of split 'test'"]),
  ("split,label,a:text\ntrain,x,y\ntest,x,y\n", ["two classes"]),
  ("split,label,a:text\ntrain,x,y\ntrain,z,y\ntest,x,y\n", ["too few rows"]),
  ('split,label,a:text\ntrain,x,"y\n', [", line 2"]),
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
  lines = '{"split": "train", "label": 1.5, "a:text": "x"}\n[]\n{"spl\n'
  (tmp_path / "d.jsonl").write_text(lines)
  with pytest.raises(core.DataError) as caught:
    load(tmp_path / "d.jsonl", tmp_path)
  assert "row 1, column 'label': 1.5 is neither" in str(caught.value)
  assert "row 2: the line is no JSON object" in str(caught.value)
  assert "row 3: " in str(caught.value)


@pytest.mark.parametrize("option,value", [
  ("image_size", 0), ("noverlap", 64), ("seconds", -1.0), ("frames", 0),
  ("held_out", 0.0), ("max_words", 0), ("word_dropout", 1.0),
])  # fmt: skip
def test_options_out_of_range(made, tmp_path, option, value):
  with pytest.raises(ValueError, match=option):
    load(made, tmp_path, **{option: value})


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


def test_arrays_are_standardised_by_training_rows(tmp_path):
  kinds = ("a:array", "b:array")
  path = helpers.write_manifest(tmp_path / "files", 60, kinds)
  raw = load(path, tmp_path / "data", standardise=False)
  data = load(path, tmp_path / "data")
  for m in ("a", "b"):
    assert data.spec.modalities[m].shape == (2, 3)
    train = np.stack([s["inputs"][m] for s in raw.sources["train"]])
    np.testing.assert_allclose(
      data.sources["test"][3]["inputs"][m],
      (raw.sources["test"][3]["inputs"][m] - train.mean(0)) / train.std(0),
      rtol=1e-4,
    )
  assert raw.sources["train"][0]["inputs"]["a"].mean() > 4


def test_a_constant_array_is_zero(tmp_path):
  np.save(tmp_path / "x.npy", np.float32(1e6))
  table = [
    {"split": s, "label": i % 2, "a:array": "x.npy"}
    for i, s in enumerate(["train", "train", "test", "test"] * 5)
  ]
  data = load(helpers.write_table(tmp_path / "a.csv", table), tmp_path / "d")
  assert data.sources["test"][0]["inputs"]["a"].tolist() == 0
  made = prepare(tmp_path / "a.csv", tmp_path / "d")
  assert "column 'a:array': 1 files of test also train" in made.notes


def test_sounds(tmp_path):
  path = tmp_path / "a.wav"
  wave = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
  soundfile.write(path, np.stack([wave, 0 * wave], 1), 8000)
  half = audio.read(path, 8000)
  np.testing.assert_allclose(half, wave / 2, atol=1e-4)
  finer = audio.read(path, 16000)
  assert finer.shape == (16000,) and finer.dtype == np.float32
  np.testing.assert_allclose(finer[1000:-1000:2], half[500:-500], atol=1e-2)
  power = audio.log_spectrogram(finer, 24000, 16000, 512, 353)
  assert power.shape == (257, 148, 1) and power.dtype == np.float32
  assert power[..., 0].mean(1).argmax() == round(440 / (16000 / 512))
  silent = audio.log_spectrogram(np.zeros(9, np.float32), 600, 16000, 512, 0)
  assert np.abs(silent).max() < 1e-6


def test_length_of_sounds(made, tmp_path):
  assert load(
    made, tmp_path, seconds=0.5
  ).spec.modalities["sound"].shape == (33, 62, 1)  # fmt: skip
  files = shutil.copytree(made.parent, tmp_path / "files")
  soundfile.write(files / "sound_0000.wav", np.ones(8000 * 3), 8000)
  soundfile.write(files / "sound_0003.wav", np.ones(8000 * 4), 8000)  # of test
  longest = prepare(files / made.name, tmp_path / "data")
  data = load(files / made.name, tmp_path / "data")
  frames = data.spec.modalities["sound"].shape[1]
  in_train = any(key == "1" for split, key in samples(data) if split == "train")
  assert frames == (375 if in_train else 125)
  assert any("sound: clips of " in note for note in longest.notes)


def test_pictures(tmp_path):
  tall = np.zeros((40, 20, 3), np.uint8)
  tall[:20] = [250, 0, 0]
  photo = Image.fromarray(tall)
  exif = photo.getexif()
  exif[0x0112] = 3  # upside down
  photo.save(tmp_path / "a.jpg", exif=exif, quality=95)
  read = image.read(tmp_path / "a.jpg", 8)
  assert read.shape == (8, 8, 3) and read[:, 0].min() == 255
  assert read[6, 4, 0] > 200 > 50 > read[1, 4, 0]
  deep = np.full((5, 5), 257 * 100, np.uint16)
  Image.fromarray(deep).save(tmp_path / "b.png")
  assert (image.read(tmp_path / "b.png", 5) == 100).all()
  array = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
  turned = [image.mirror(np.random.default_rng(i), array) for i in range(20)]
  same = [np.array_equal(t, array) for t in turned]
  assert 3 < sum(same) < 17
  mirrored = turned[same.index(False)]
  np.testing.assert_array_equal(mirrored, array[:, :, ::-1])


def test_augmentation_is_by_kind(made, tmp_path):
  data = load(made, tmp_path)
  assert data.augment == {}
  data = load(made, tmp_path, flip=True, word_dropout=0.5)
  assert set(data.augment) == {"photo", "caption"}
  batch = Loader(data, "train", 8, seed=0).batch(1)
  assert batch.inputs["photo"].shape == (8, 8, 8, 3)


def test_positions_of_frames():
  assert video.positions(8, 8).tolist() == list(range(8))
  assert video.positions(100, 4).tolist() == [12, 37, 62, 87]
  assert video.positions(2, 4).tolist() == [0, 0, 1, 1]


@pytest.mark.skipif(not importlib.util.find_spec("av"), reason="no PyAV")
def test_videos(tmp_path):
  path = helpers.write_manifest(tmp_path / "v", 24, ("clip:video",))
  data = load(path, tmp_path / "data", frames=3)
  assert data.spec.modalities["clip"].shape == (3, 8, 8, 3)
  for label, inputs in samples(data).values():
    shown = inputs["clip"].mean((0, 1, 2)).argmax()
    assert helpers.CLASSES[shown] == label
  (path.parent / "clip_0001.avi").write_bytes(b"RIFF no video")
  sound = path.parent / "clip_0002.avi"
  soundfile.write(sound.with_suffix(".wav"), np.zeros(800), 8000)
  sound.with_suffix(".wav").replace(sound)
  with pytest.raises(core.DataError) as caught:
    load(path, tmp_path / "data", frames=3)
  assert "row 2, column 'clip:video': clip_0001.avi" in str(caught.value)
  assert "row 3, column 'clip:video': clip_0002.avi" in str(caught.value)


def test_videos_without_their_package(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "av", None)
  table = [
    {"split": s, "label": i % 2, "a:video": "x.mp4"}
    for i, s in enumerate(["train", "test"] * 2)
  ]
  path = helpers.write_table(tmp_path / "a.csv", table)
  with pytest.raises(ModuleNotFoundError, match=r"\[video\]"):
    load(path, tmp_path / "data")


def test_config():
  config = config_file.get_config("joint,epochs=2")
  assert set(config.encoders) == set(core.KINDS)
  assert config.data.manifest == "" and config.data.name == "manifest"


def test_an_encoder_is_looked_up_by_name_then_by_kind():
  config = config_file.get_config("joint")
  found = assemble.encoder_options(config, "photo", "image")
  assert found.name == "small.ConvNet"
  with config.unlocked():
    config.encoders.photo = {"name": "small.MLP"}
  assert assemble.encoder_options(config, "photo", "image").name == "small.MLP"
  del config.encoders["image"]
  with pytest.raises(ValueError, match=r"'scan' or its kind 'image'.*photo"):
    assemble.encoder_options(config, "scan", "image")


def test_a_model_of_any_modalities(tmp_path):
  kinds = ("one:array", "two:array", "caption:text")
  path = helpers.write_manifest(tmp_path / "files", 60, kinds)
  config = config_file.get_config("joint,batch_size=8")
  config.data.update(manifest=str(path), dir=str(tmp_path / "data"))
  setup = assemble.assemble(config)
  assert setup.problem.modalities == ("one", "two", "caption")
  # Names that metrics use are refused.
  table = [{"fused:text": r["caption:text"], **r} for r in table_of(path)]
  helpers.write_table(path, table)
  with pytest.raises(ValueError, match="'fused'"):
    assemble.assemble(config)
