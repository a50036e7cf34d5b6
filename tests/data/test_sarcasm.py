"""Sarcasm: the official counts, a download with faults, batches."""

import ast
import collections
import csv
import json

import numpy as np
import pytest

import tweets
from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.load.loader import Loader
from data_pipelines.sets import sarcasm
from data_pipelines.sets._tweets import prepare
from data_pipelines.sets._tweets import raw as tweets_raw
from data_pipelines.transforms import preprocess, text
from helpers import samples

LINES = {"train.txt": 90, "valid2.txt": 20, "test2.txt": 20}
SPLIT = {"train.txt": "train", "valid2.txt": "val", "test2.txt": "test"}


def read(folder):
  files = sarcasm.SARCASM.layout.files[0]
  paths = {split: folder / name for split, name in files.items()}
  return tweets_raw.read(paths, sarcasm.parse)


def test_official_counts():
  found = read(tweets.annotations(tweets.SARCASM))
  assert found.problems == []
  assert found.left_out == {"train": 29_040 - 19_816, "val": 0, "test": 0}
  counts = {
    split: tuple(sorted(collections.Counter(r.label for r in rows).items()))
    for split, rows in found.rows.items()
  }
  assert counts == {
    "train": ((0, 11_174), (1, 8_642)),
    "val": ((0, 1_451), (1, 959)),
    "test": ((0, 1_450), (1, 959)),
  }
  splits = prepare.with_outer(found.rows, 0.1)
  outer = collections.Counter(row.label for row in splits["outer"])
  assert outer == {0: 1_117, 1: 864}
  ids = [{row.id for row in rows} for rows in splits.values()]
  assert sum(map(len, ids)) == len(set.union(*ids)) == 24_635
  # Follows from ids, not from the order of lines.
  turned = {split: rows[::-1] for split, rows in found.rows.items()}
  again = prepare.with_outer(turned, 0.1)
  assert {r.id for r in again["outer"]} == {r.id for r in splits["outer"]}


@pytest.fixture(scope="module")
def download(tmp_path_factory):
  """The first lines of the real files and a picture for each tweet."""
  source = tweets.annotations(tweets.SARCASM)
  folder = tmp_path_factory.mktemp("sarcasm")
  for name, count in LINES.items():
    for line in tweets.some(source / name, folder / "text" / name, count):
      key = ast.literal_eval(line)[0]
      tweets.draw(folder / "dataset_image" / f"{key}.jpg", int(key) % 256)
  return folder


def expected(download):
  """{(split, id): (text, label)} of what is to be read, train and outer one."""
  rows = {}
  for name, split in SPLIT.items():
    for line in (download / "text" / name).read_text("utf-8").splitlines():
      key, words, *labels = ast.literal_eval(line)
      if split != "train" or not sarcasm.WORDS & set(words.split()):
        rows[split, key] = words, labels[-1]
  return rows


@pytest.fixture(scope="module")
def prepared(download, tmp_path_factory):
  folder = tmp_path_factory.mktemp("prepared")
  return folder, sarcasm.prepare(folder, raw=str(download), workers=0)


@pytest.mark.parametrize("min_area", [1.0, 0.5])
def test_new_tweets_become_the_arrays_of_the_split(
  download, prepared, min_area
):
  data = sarcasm.load(
    prepared[0], image_size=24, max_words=9, min_area=min_area
  )
  made, texts = preprocess.of(data), expected(download)
  view = data.view.get("image", lambda x: x)
  for split in ("val", "test"):
    sample = data.sources[split][3]
    key, inputs = sample["id"], sample["inputs"]
    picture = made["image"](download / "dataset_image" / f"{key}.jpg")
    np.testing.assert_array_equal(picture, view(inputs["image"]))
    words = made["text"](texts[split, key][0])
    np.testing.assert_array_equal(words, inputs["text"])


def test_samples(download, prepared):
  folder, made = prepared
  data = sarcasm.load(folder, image_size=24, max_words=9, flip=False)
  assert len(data.fingerprint) == 32
  want = expected(download)
  found = samples(data)
  official = {
    ("train" if split == "outer" else split, key): sample
    for (split, key), sample in found.items()
  }
  assert official.keys() == want.keys() and len(found) == len(want)
  assert {split for split, _ in found} == set(core.SPLITS)
  words = text.WordVocabulary.build(
    want["train", key][0] for split, key in found if split == "train"
  )
  assert data.spec.modalities["text"].vocab_size == len(words)
  for (split, key), (label, inputs) in official.items():
    line, number = want[split, key]
    assert label == ("not_sarcastic", "sarcastic")[number]
    np.testing.assert_array_equal(inputs["text"], words.encode(line, 9))
    # Squashed: the red half stays a half, whatever the sides were.
    picture = inputs["image"].astype(int)
    assert picture.shape == (24, 24, 3)
    assert abs(picture[:, :8] - (254, 0, 0)).max() < 8
    assert abs(picture[:, -8:] - (0, 0, int(key) % 256)).max() < 8
  assert sum(map(len, made.counts.values())) == 4 * 2
  # All that is wrong is that there are fewer than the paper has.
  assert len(made.problems) == 3
  assert "samples instead of 19816, the paper's" in made.problems[0]
  assert any("training lines left out" in note for note in made.notes)
  rows = (folder / "sarcasm" / "1.0.0" / raw.FILE).read_text()
  assert rows == "sample,kind,reason\n"
  assert not (folder / "sarcasm" / "work").exists()


def test_preparing_again(download, prepared, tmp_path):
  folder, made = prepared
  assert sarcasm.prepare(folder) == made  # the download is not needed
  other = sarcasm.prepare(tmp_path, raw=str(download), held_out=0.3, workers=0)
  assert other.folder != made.folder
  assert sum(other.counts["outer"].values()) > sum(
    made.counts["outer"].values()
  )
  sarcasm.load(tmp_path, held_out=0.3)
  with pytest.raises(ValueError, match=r"--config\.data\.raw"):
    sarcasm.load(tmp_path)


def test_batches(prepared):
  folder, _ = prepared
  plain = sarcasm.load(folder, image_size=16)
  batch = Loader(plain, "train", 16, seed=0).batch(0)
  assert batch.inputs["image"].shape == (16, 16, 16, 3)
  assert batch.inputs["text"].shape == (16, 128)
  red = batch.inputs["image"][:, 0, 0, 0] > 200
  assert red.any() and not red.all()  # some are mirrored
  cut = sarcasm.load(folder, image_size=16, min_area=0.25, flip=False)
  batch = Loader(cut, "train", 16, seed=0).batch(0)
  assert batch.inputs["image"].shape == (16, 16, 16, 3)
  shares = (batch.inputs["image"][..., 0] > 128).mean(axis=(1, 2))
  assert shares.std() > 0.05  # no longer a half each
  whole, same = (
    next(Loader(d, "val", 8, seed=0).padded()) for d in (plain, cut)
  )
  difference = abs(
    whole.inputs["image"].astype(int) - same.inputs["image"].astype(int)
  )
  assert difference.max() <= 1


def put(path, lines, start=b""):
  path.write_bytes(start + "\n".join(map(str, lines)).encode() + b"\n")


def broken(folder, download):
  """Writes a download with faults; returns {sample: kind, part of reason}."""
  lines = {
    name: (download / "text" / name).read_text("utf-8").splitlines()
    for name in LINES
  }
  keep = {
    name: [x for x in own if "<url>" not in x] for name, own in lines.items()
  }
  train = keep["train.txt"]
  ids = [ast.literal_eval(line)[0] for line in train]
  test_id = ast.literal_eval(keep["test2.txt"][0])[0]
  train[3] = "['123', 'no end"
  train[4] = ["77", "a text", 2]
  train[5] = train[11]
  train[7] = [test_id, "in test, too", 0]
  train[8] = ["78", "  ", 1]
  train[9] = ["79", "three labels", 1, 1, 1]
  train[10] = "__import__('os').getcwd()"
  (folder / "text").mkdir(parents=True)
  put(folder / "text" / "train.txt", train, b"\xef\xbb\xbf")
  put(folder / "text" / "valid2.txt", [f"{x}\r" for x in keep["valid2.txt"]])
  put(folder / "text" / "test2.txt", keep["test2.txt"])
  with (folder / "text" / "train.txt").open("ab") as file:
    file.write(b"['80', '\xff', 0]\n")
  last = f"train.txt, line {len(train) + 1}"
  for key in (
    ids[:1]
    + ids[11:]
    + [
      ast.literal_eval(line)[0]
      for name in ("valid2.txt", "test2.txt")
      for line in keep[name]
    ]
  ):
    tweets.draw(folder / "images" / f"{key}.png", 9)
  tweets.draw(folder / "images" / f"{ids[2]}.jpg", 9, (400, 300))
  whole = folder / "images" / f"{ids[2]}.jpg"
  whole.write_bytes(whole.read_bytes()[:900])
  (folder / "images" / f"{ids[6]}.jpg").write_bytes(b"")
  return {
    "train.txt, line 4": (raw.UNDECODABLE, "no Python list"),
    "77": (raw.SKIPPED, "train.txt, line 5: label 2 is not one of 0, 1"),
    ids[11]: (raw.SKIPPED, f"line 12: id {ids[11]!r} is that of"),
    test_id: (raw.SKIPPED, f"line 8: id {test_id!r} is that of test2"),
    "78": (raw.SKIPPED, "train.txt, line 9: the text is empty"),
    "train.txt, line 10": (raw.UNDECODABLE, "one or two labels"),
    "train.txt, line 11": (raw.UNDECODABLE, "no Python list"),
    last: (raw.UNDECODABLE, "utf-8"),
    ids[1]: (raw.MISSING, f"{ids[1]}.jpg"),
    ids[2]: (raw.UNDECODABLE, "truncated"),
    ids[6]: (raw.UNDECODABLE, "empty file"),
  }


def test_faults_are_listed_and_the_rest_trains(download, tmp_path):
  want = broken(tmp_path / "raw", download)
  made = sarcasm.prepare(tmp_path, raw=str(tmp_path / "raw"), workers=2)
  file = tmp_path / "sarcasm" / "1.0.0" / raw.FILE
  with file.open(encoding="utf-8", newline="") as rows:
    found = {
      r["sample"]: (r["kind"], r["reason"]) for r in csv.DictReader(rows)
    }
  assert found.keys() == want.keys()
  for key, (kind, part) in want.items():
    assert found[key][0] == kind and part in found[key][1], key
    assert key in found[key][1] or "train.txt, line" in found[key][1]
  assert made.problems[0].startswith("6 samples cannot be decoded")
  assert made.problems[1].startswith("4 samples skipped")
  assert made.problems[2].startswith("1 samples missing")
  assert "train.txt begins with a byte order mark, now ignored" in made.notes
  assert "valid2.txt has Windows line ends, now ignored" in made.notes
  data = sarcasm.load(tmp_path, image_size=8)
  sizes = {s: sum(c.values()) for s, c in made.counts.items()}
  assert data.spec.sizes == sizes
  Loader(data, "train", 16, seed=0).batch(0)


def test_json(download, tmp_path):
  names = {"train": "train", "val": "valid", "test": "test"}
  want = expected(download)
  for split, name in names.items():
    field = "image" if split == "train" else "image_id"
    entries = [
      {field: f"images/{key}.jpg" if split == "train" else int(key),
       "text": words, "label": label}
      for (own, key), (words, label) in want.items() if own == split
    ]  # fmt: skip
    path = tmp_path / "raw" / "annotations" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")
  (tmp_path / "raw" / "images").symlink_to(download / "dataset_image")
  made = sarcasm.prepare(tmp_path, raw=str(tmp_path / "raw"), workers=0)
  assert sum(sum(c.values()) for c in made.counts.values()) == len(want)
  path.write_text('{"a": 1}', encoding="utf-8")
  with pytest.raises(core.DataError, match=r"test\.json is no JSON list"):
    sarcasm.prepare(tmp_path / "b", raw=str(tmp_path / "raw"), workers=0)


def test_what_was_looked_for(download, tmp_path):
  with pytest.raises(core.DataError, match="there is no folder"):
    sarcasm.prepare(tmp_path, raw=str(tmp_path / "nowhere"))
  (tmp_path / "raw").mkdir()
  with pytest.raises(core.DataError, match=r"train\.txt, valid2\.txt, test2"):
    sarcasm.prepare(tmp_path, raw=str(tmp_path / "raw"))
  (tmp_path / "raw" / "text").symlink_to(download / "text")
  with pytest.raises(core.DataError, match=r"no pictures .*dataset_image"):
    sarcasm.prepare(tmp_path, raw=str(tmp_path / "raw"))
  tweets.draw(tmp_path / "raw" / "images" / "1.jpg", 1)
  with pytest.raises(
    core.DataError, match=r"no sample of train, outer, val, test.*\.jpg"
  ):
    sarcasm.prepare(tmp_path, raw=str(tmp_path / "raw"), workers=0)
  assert [p.name for p in tmp_path.iterdir() if p.name != "sarcasm"] == ["raw"]


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"image_size": 300}, "image_size"),
    ({"max_words": 0}, "max_words"),
    ({"min_area": 0.0}, "min_area"),
    ({"word_dropout": 1.0}, "word_dropout"),
    ({"held_out": 0.5}, "held_out"),
  ],
)
def test_options_out_of_range(options, words, tmp_path):
  with pytest.raises(ValueError, match=words):
    sarcasm.load(tmp_path, **options)
