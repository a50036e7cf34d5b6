"""New samples are preprocessed as the data's own, to the bit."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import helpers
from data_pipelines import core
from data_pipelines.manifest.unlabelled import Unlabelled
from data_pipelines.sets import openmoji  # fmt: skip
from data_pipelines.sets._audio_video import load, media
from data_pipelines.sets._tweets import prepare
from data_pipelines.transforms import image, kinds, preprocess

KINDS = (
  "photo:image", "caption:text", "sound:audio", "sensor:array", "clip:video"
)  # fmt: skip


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """A manifest of all kinds."""
  pytest.importorskip("av")
  folder = tmp_path_factory.mktemp("kinds")
  return helpers.write_manifest(folder, 24, KINDS)


@pytest.fixture(scope="module")
def dataset(table, tmp_path_factory):
  return helpers.load_manifest(table, tmp_path_factory.mktemp("data"), frames=2)


@pytest.fixture(scope="module")
def preprocessors(dataset):
  """As they are after a stay in a file."""
  stored = {
    m: preprocess.describe(spec, dataset.preprocessing[m])
    for m, spec in dataset.spec.modalities.items()
  }
  stored = json.loads(json.dumps(stored))
  return {m: preprocess.Preprocessor.from_json(s) for m, s in stored.items()}


def write_new(path, table, keep=lambda row: True, **changes):
  """The rows of a manifest without splits and labels."""
  rows = [
    {h: changes.get(h, row[h]) for h in KINDS}
    for row in helpers.read_table(table)
    if keep(row)
  ]
  return helpers.write_table(path, rows)


def test_the_same_arrays(table, dataset, preprocessors):
  new = write_new(
    table.with_name("new.csv"), table, lambda row: row["split"] == "test"
  )
  rows = Unlabelled(new, preprocessors)
  batches = list(rows.batches(4))
  assert len(rows) == 6 and [len(b["photo"]) for b in batches] == [4, 2]
  assert rows.ids == ["1", "2", "3", "4", "5", "6"] and rows.labels is None
  source = dataset.sources["test"]
  for m, spec in dataset.spec.modalities.items():
    found = np.concatenate([b[m] for b in batches])
    assert found.dtype == spec.dtype and found.shape[1:] == spec.shape
    expected = [source[i]["inputs"][m] for i in range(len(source))]
    np.testing.assert_array_equal(found, np.stack(expected))


def test_labels_and_ids_are_passed_on(table, preprocessors):
  rows = helpers.read_table(table)[:3]
  for i, row in enumerate(rows):
    row.update(split="", label=f"new {i}", id=f"n{i}")
  path = helpers.write_table(table.with_name("named.jsonl"), rows)
  found = Unlabelled(path, preprocessors)
  assert found.ids == ["n0", "n1", "n2"]
  assert found.labels == ["new 0", "new 1", "new 2"]


def test_arrays_in_place_of_files(table, preprocessors, tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (9, 5, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  np.testing.assert_array_equal(
    preprocessors["photo"](pixels), preprocessors["photo"](tmp_path / "a.png")
  )
  values = np.arange(6.0).reshape(2, 3)
  np.save(tmp_path / "a.npy", values)
  np.testing.assert_array_equal(
    preprocessors["sensor"](values),
    preprocessors["sensor"](str(tmp_path / "a.npy")),
  )
  frames = np.stack([pixels, 255 - pixels])
  assert preprocessors["clip"](frames).shape == (2, 8, 8, 3)
  wave = np.sin(np.arange(900.0))
  assert preprocessors["sound"](wave).shape == preprocessors["sound"].spec.shape
  for m, wrong, said in (
    ("photo", pixels.astype(float), "uint8 .h w 3."),
    ("clip", pixels, "uint8 .t h w 3."),
    ("sound", frames, "wave"),
    ("sensor", values[:1], r"\(1, 3\)"),
    ("sensor", values * np.nan, "NaN"),
    ("caption", 3, "str"),
    ("caption", " ", "empty"),
    ("photo", "absent.png", "no such file"),
  ):
    with pytest.raises(ValueError, match=said):
      preprocessors[m](wrong)


def test_all_that_is_wrong_is_listed(table, preprocessors, tmp_path):
  rows = [{h: row[h] for h in KINDS} for row in helpers.read_table(table)[:6]]
  folder = table.parent
  (folder / "text.png").write_text("no picture")
  np.save(folder / "long.npy", np.zeros(7))
  rows[1]["photo:image"] = "text.png"
  rows[2]["caption:text"] = ""
  rows[4].update({"sensor:array": "long.npy", "sound:audio": "absent.wav"})
  path = helpers.write_table(folder / "bad.csv", rows)
  batches = Unlabelled(path, preprocessors).batches(1)
  next(batches)
  with pytest.raises(core.DataError) as caught:
    next(batches)
  text = str(caught.value)
  assert "4 problems in 3 rows" in text and "skip_bad" not in text
  for part in (
    "row 2, column 'photo:image': ", "text.png cannot be used as image",
    "row 3, column 'caption:text': the cell is empty",
    "row 5, column 'sensor:array'", "(7,)", "absent.wav: there is no such",
  ):  # fmt: skip
    assert part in text, text


def test_rows_behind_an_open_quote_are_not_lost(table, preprocessors, capsys):
  lines = table.read_text(encoding="utf-8").splitlines()
  lines = [f"{i or 'id'},{line}" for i, line in enumerate(lines)][:8]
  path = table.with_name("open.csv")
  lines[3] = f'"{lines[3]}'
  path.write_text("\n".join(lines), encoding="utf-8")
  with pytest.raises(core.DataError, match="row 3, column 'id': the quote"):
    list(Unlabelled(path, preprocessors).batches(8))
  rows = helpers.read_table(table)[:2]
  rows[1]["caption:text"] = "one line\nand another"
  Unlabelled(helpers.write_table(path, rows), preprocessors)
  assert "note: column 'caption:text': 1 cell of several" in (
    capsys.readouterr().err
  )


def test_columns_that_are_missing(table, preprocessors, tmp_path):
  rows = [{"photo:array": "a.npy", "caption": "x", "sound:audio": "b.wav"}]
  path = helpers.write_table(tmp_path / "few.csv", rows)
  with pytest.raises(core.DataError) as caught:
    Unlabelled(path, preprocessors)
  text = str(caught.value)
  assert "4 problems" in text and "'sound:audio';" not in text
  for header in ("photo:image", "caption:text", "sensor:array", "clip:video"):
    assert f"there is no column '{header}'; there are photo:array" in text
  with pytest.raises(core.DataError, match="has no rows"):
    path.write_text(",".join(KINDS) + "\n", encoding="utf-8")
    Unlabelled(path, preprocessors)
  with pytest.raises(core.DataError, match=r"--config\.eval\.manifest"):
    Unlabelled(tmp_path / "absent.csv", preprocessors)


def test_pictures_and_names_of_emoji(data_dir, tmp_path):
  dataset = openmoji.load(data_dir, image_size=16)
  from data_pipelines.core import storage

  folder = storage.folder_of(data_dir, openmoji.NAME, openmoji.VERSION)
  record = storage.read(folder, "test", ("image",))[3]
  (tmp_path / "emoji.png").write_bytes(record["image"])
  made, inputs = preprocess.of(dataset), dataset.sources["test"][3]["inputs"]
  np.testing.assert_array_equal(
    made["image"](tmp_path / "emoji.png"), inputs["image"]
  )
  np.testing.assert_array_equal(
    made["text"](record["text"].decode()), inputs["text"]
  )
  assert 1 in made["text"]("zyzzyva cat")  # An unknown word.
  assert set(dataset.select(["text"]).preprocessing) == {"text"}


def test_tokens_of_new_texts(tmp_path):
  pytest.importorskip("transformers")
  pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "cat", "##s"]
  (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
  rows = [
    {"split": s, "label": i % 2, "a:text": ("red cats", "cat")[i % 2]}
    for i, s in enumerate(["train", "train", "test", "test"] * 5)
  ]
  path = helpers.write_table(tmp_path / "a.csv", rows)
  data = helpers.load_manifest(
    path, tmp_path / "data", tokenizer=str(tmp_path), max_words=6
  )
  made = preprocess.of(data)["a"]
  for i, words in enumerate(("red cats", " cat ")):
    expected = data.sources["test"][i]["inputs"]["a"]
    np.testing.assert_array_equal(made(words), expected)


def test_pictures_of_tweets(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  stored = prepare._picture(tmp_path / "a.png")["jpeg"].tobytes()
  with Image.open(io.BytesIO(stored)) as picture:
    assert picture.size == (256, 256)
  settings = prepare.picture_settings(24)
  spec = core.ModalitySpec("image", (24, 24, 3), "uint8")
  made = preprocess.Preprocessor(spec, settings)
  np.testing.assert_array_equal(made.decode(stored), made(tmp_path / "a.png"))
  step = kinds.SquashedImage(settings)
  np.testing.assert_array_equal(
    image.resize(step.unpack(stored), 24), made.decode(stored)
  )


@pytest.mark.slow
def test_clips(tmp_path):
  pytest.importorskip("av")
  rng = np.random.default_rng(0)
  film = tmp_path / helpers._write_video(tmp_path, "a", 1, rng)
  wav = tmp_path / helpers._write_audio(tmp_path, "a", 0, rng)
  settings = media.ClipSettings(2, 24, 4000, 0.3)
  fields = media.make(media.Clip("x", "test", str(wav), str(film)), settings)
  record = {**fields, "label": 0, "id": b"1"}
  for i in range(2):
    record[f"frame_{i}"] = record[f"frame_{i}"].tobytes()
  own = media.preprocessing(settings, 16)
  decoded = load._decode(
    record,
    kinds.ClipAudio(own["audio"]),
    kinds.ClipVideo(own["video"]),
    ("frame_0", "frame_1"),
  )["inputs"]
  expected = {
    "audio": decoded["audio"], "video": image.resize(decoded["video"], 16)
  }  # fmt: skip
  for m, path in (("audio", wav), ("video", film)):
    array = expected[m]
    spec = core.ModalitySpec(m, array.shape, array.dtype)
    own = media.preprocessing(settings, 16)[m]
    made = preprocess.Preprocessor(spec, own)
    np.testing.assert_array_equal(made(path), array)


def test_data_that_do_not_say():
  with pytest.raises(ValueError, match=r"'toy' does not say.*array, image"):
    preprocess.of(helpers.toy_dataset())
