"""Food-101: releases in all forms, with the faults that downloads have."""

import collections
import csv
import json

import numpy as np
import pytest

import tweets
from configs import food101 as config_file
from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.load.loader import Loader
from data_pipelines.sets import food101
from data_pipelines.sets._tweets.raw import Annotations
from data_pipelines.sets.food101 import lists
from data_pipelines.transforms import preprocess
from helpers import samples

DISHES = ("apple_pie", "hot_dog", "pho")
TITLES = (
  'Grandma\'s "best" {}, with 3 apples',
  "Crème brûlée? No: {} | récipe",
  "{}\nof two lines",
  "plain {}",
)


def entries(count, start):
  """[(file, title, class)] for each dish."""
  return [
    (f"{dish}_{i}.jpg", TITLES[i % 4].format(dish), dish)
    for dish in DISHES
    for i in range(start, start + count)
  ]


TRAIN, TEST = entries(20, 0), entries(5, 20)


def paint(folder, rows, part):
  for name, _, dish in rows:
    shade = int(name.rpartition("_")[2].split(".")[0].split("-")[0]) * 10
    tweets.draw(folder / "images" / part / dish / name, shade % 256)


def put_titles(folder, train=TRAIN, test=TEST, header=(), end="\n"):
  (folder / "texts").mkdir(parents=True, exist_ok=True)
  for part, rows in (("train", train), ("test", test)):
    path = folder / "texts" / f"{part}_titles.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
      out = csv.writer(file, lineterminator=end)
      out.writerows([header] if header else [])
      out.writerows(rows)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  folder = tmp_path_factory.mktemp("pictures")
  paint(folder, TRAIN, "train")
  paint(folder, TEST, "test")
  return folder


@pytest.fixture
def download(pictures, tmp_path):
  folder = tmp_path / "UPMC_Food101"
  folder.mkdir()
  (folder / "images").symlink_to(pictures / "images")
  put_titles(folder)
  return folder


def problems(folder):
  path = folder / "food101" / "1.0.0" / raw.FILE
  with path.open(encoding="utf-8", newline="") as file:
    return {r["sample"]: (r["kind"], r["reason"]) for r in csv.DictReader(file)}


def test_official_numbers():
  numbers = np.array(list(food101.PICTURES.values()))
  assert numbers.shape == (101, 2)
  assert numbers.sum(axis=0).tolist() == [67_988, 22_716]
  assert list(food101.CLASSES) == sorted(food101.CLASSES)


def test_official_splits_by_class():
  """What the release holds is told as whole; a row less is told."""
  rows = {
    part: [
      food101.parse(lists.Item(f"{dish}_{i}.jpg", "a", dish))
      for dish, n in food101.PICTURES.items()
      for i in range(n[k])
    ]
    for k, part in enumerate(("train", "test"))
  }
  splits = food101.FOOD101.divide(rows, 0.1)
  sizes = {s: len(m) for s, m in splits.items()}
  assert sizes["test"] == 22_716
  assert sizes["train"] + sizes["outer"] + sizes["val"] == 67_988
  assert abs(sizes["val"] - 6_799) < 60 and abs(sizes["outer"] - 6_799) < 60
  counts = {
    s: collections.Counter(food101.CLASSES[r.label] for r in m)
    for s, m in splits.items()
  }
  for dish, (train, _) in food101.PICTURES.items():
    assert counts["val"][dish] == round(0.1 * train)
    assert abs(counts["outer"][dish] - 0.1 * train) <= 1
  assert food101.FOOD101.differences(counts) == []
  counts["val"]["pho"] -= 1
  (told,) = food101.FOOD101.differences(counts)
  assert "67987 samples instead of 67988" in told and "pho 651 of 652" in told


@pytest.mark.parametrize(
  ("header", "end"), [((), "\n"), (("Image_path", "text", "label"), "\r\n")]
)
def test_samples_of_the_release(download, tmp_path, header, end):
  put_titles(download, header=header, end=end)
  made = food101.prepare(tmp_path, raw=str(download), workers=0)
  data = food101.load(tmp_path, image_size=24, max_words=9, flip=False)
  found = samples(data)
  assert {key for _, key in found} == {name for name, _, _ in TRAIN + TEST}
  assert set(data.spec.classes) == set(food101.PICTURES)
  parts = collections.Counter(split for split, _ in found)
  assert parts == {"train": 48, "outer": 6, "val": 6, "test": 15}
  assert problems(tmp_path) == {}
  windows = any("Windows line ends" in note for note in made.notes)
  assert windows == (end == "\r\n")
  texts = preprocess.of(data)["text"]
  want = {name: (title, dish) for name, title, dish in TRAIN + TEST}
  for (_, key), (label, inputs) in found.items():
    assert label == want[key][1]
    np.testing.assert_array_equal(inputs["text"], texts(want[key][0]))
    shade = int(key.split("_")[-1][:-4]) * 10
    blue = inputs["image"][:, -8:].astype(int)
    assert abs(blue - (0, 0, shade)).max() < 8


def split_json(folder, train, val, test):
  parts = {"train": train, "val": val, "test": test}
  names = {s: [row[0] for row in rows] for s, rows in parts.items()}
  titles = {row[0]: row[1] for rows in parts.values() for row in rows}
  (folder / "split.json").write_text(json.dumps(names))
  (folder / "text.json").write_text(json.dumps(titles))
  classes = {dish: i for i, dish in enumerate(DISHES)}
  (folder / "class_idx.json").write_text(json.dumps(classes))


def mmbt(folder, train, val, test):
  for part, rows in (("train", train), ("dev", val), ("test", test)):
    lines = [
      json.dumps({
        "id": f"{dish}_{name}", "label": dish, "text": title,
        "img": f"images/{'test' if part == 'test' else 'train'}/{dish}/{name}",
      })
      for name, title, dish in rows
    ]  # fmt: skip
    (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("write", [split_json, mmbt])
def test_lists_with_a_val_of_their_own(write, download, tmp_path):
  val, train = TRAIN[::4], [r for i, r in enumerate(TRAIN) if i % 4]
  write(download, train, val, TEST)
  # Numbers of the original: 717-2 is one picture of a page with several.
  more = ("pho_7-2.jpg", "soup", "pho")
  (download / "images").unlink()
  paint(download, [*TRAIN, more], "train")
  paint(download, TEST, "test")
  made = food101.prepare(tmp_path, raw=str(download.parent), workers=0)
  found = samples(food101.load(tmp_path, image_size=8))
  assert {k for s, k in found if s == "val"} == {name for name, _, _ in val}
  assert {k for s, k in found if s == "test"} == {name for name, _, _ in TEST}
  assert problems(tmp_path).keys() == {"pho_7-2.jpg"}
  assert any("outer is 10% of the training" in note for note in made.notes)
  assert any("read from" in note for note in made.notes)


def test_faults_are_listed_and_the_rest_trains(download, tmp_path):
  (download / "images").unlink()
  train, test = [list(r) for r in TRAIN], [list(r) for r in TEST]
  paint(download, train, "train")
  paint(download, test, "test")
  folder = download / "images" / "train" / "apple_pie"
  train[0][1] = "   "  # apple_pie_0
  train[1][2] = "apple cake"
  train[2][2] = "Apple Pie "  # a spelling of the class: kept
  train[3][2] = "pho"
  (folder / "apple_pie_4.jpg").unlink()
  (folder / "apple_pie_5.jpg").write_bytes(b"")
  cut = (folder / "apple_pie_6.jpg").read_bytes()
  (folder / "apple_pie_6.jpg").write_bytes(cut[:300])
  (folder / "apple_pie_7.jpg").write_text("<html>Error 404</html>")
  tweets.draw(folder / "apple_pie_99.jpg", 3)
  (folder / "._apple_pie_1.jpg").write_bytes(b"Mac OS X")
  (folder / "Thumbs.db").write_bytes(b"x")
  put_titles(download, train, test)
  path = download / "texts" / "train_titles.csv"
  rows = path.read_bytes().replace(b"plain pho", b"caf\xe9 pho", 1)
  path.write_bytes(
    b"\xef\xbb\xbf"
    + b'hot_dog_900.jpg,"a quote that is never closed,hot_dog\n'
    + b"hot_dog_901.jpg,a title, with commas,hot_dog\n"
    + b"hot_dog_902.jpg,two cells\n"
    + rows
    + f"{TRAIN[30][0]},again,hot_dog\n".encode()
    + f"{TEST[0][0]},in test too,apple_pie\n".encode()
    + b"\n  \n"
  )
  made = food101.prepare(tmp_path, raw=str(download), workers=0)
  found = problems(tmp_path)
  broken = next(k for k, v in found.items() if "utf-8" in v[1])
  name = next(n for n, title, d in TRAIN if title == "plain pho")
  want = {
    "apple_pie_0.jpg": (raw.SKIPPED, "there is no title"),
    "apple_pie_1.jpg": (raw.SKIPPED, "'apple cake' is not one of the 101"),
    "apple_pie_3.jpg": (raw.SKIPPED, "its class is 'pho'"),
    "apple_pie_4.jpg": (raw.MISSING, "train/apple_pie/apple_pie_4.jpg"),
    "apple_pie_5.jpg": (raw.UNDECODABLE, "empty file"),
    "apple_pie_6.jpg": (raw.UNDECODABLE, "apple_pie_6.jpg"),
    "apple_pie_7.jpg": (raw.UNDECODABLE, "a web page"),
    "apple_pie_99.jpg": (raw.SKIPPED, "no list names this picture"),
    "train_titles.csv, line 1": (raw.UNDECODABLE, "1 cells"),
    "hot_dog_901.jpg": (raw.MISSING, "hot_dog_901.jpg"),
    "train_titles.csv, line 3": (raw.UNDECODABLE, "2 cells"),
    TRAIN[30][0]: (raw.SKIPPED, "too"),
    TEST[0][0]: (raw.SKIPPED, "is that of test_titles.csv"),
    broken: (raw.UNDECODABLE, "train_titles.csv, line"),
    name: (raw.SKIPPED, "no list names this picture"),
  }
  assert found.keys() == want.keys()
  for key, (kind, part) in want.items():
    assert found[key][0] == kind and part in found[key][1], key
  assert any("1 titles hold commas" in note for note in made.notes)
  data = food101.load(tmp_path, image_size=8)
  left = {key for _, key in samples(data)}
  assert left == {n for n, _, _ in TRAIN + TEST} - (found.keys() - {
    TRAIN[30][0], TEST[0][0]
  })  # fmt: skip
  Loader(data, "train", 16, seed=0).batch(0)


def test_titles_of_many_forms():
  """Records of a titles' file, without pictures."""
  lines = [
    'a_1.jpg,"one ""quoted"", title",x',
    'a_2.jpg,"two',
    'lines",x',
    "a_3.jpg,'single' quotes,x",
    'a_4.jpg,half a "quote,x',
    'a_5.jpg,"open,x',
    "a_6.jpg,behind it,x",
    'a_7.jpg,"open at the end,x',
  ]
  found = list(lists._records(lines))
  assert found == [
    (1, ["a_1.jpg", 'one "quoted", title', "x"]),
    (2, ["a_2.jpg", "two\nlines", "x"]),
    (4, ["a_3.jpg", "'single' quotes", "x"]),
    (5, ["a_4.jpg", 'half a "quote', "x"]),
    (6, ['a_5.jpg,"open,x']),
    (7, ["a_6.jpg", "behind it", "x"]),
    (8, ["a_7.jpg", "open at the end,x\n"]),
  ]


def test_names_that_all_classes_share(tmp_path):
  for dish in DISHES:
    for i in range(6):
      tweets.draw(tmp_path / "raw" / "images" / "train" / dish / f"{i}.jpg", i)
    tweets.draw(tmp_path / "raw" / "images" / "test" / dish / "0.jpg", 90)
  train = [(f"{i}.jpg", f"a {d}", d) for d in DISHES for i in range(1, 6)]
  test = [("0.jpg", f"a {d}", d) for d in DISHES]
  put_titles(tmp_path / "raw", train, test)
  food101.prepare(tmp_path, raw=str(tmp_path / "raw"), workers=0)
  found = samples(food101.load(tmp_path, image_size=16))
  assert len(found) == 18
  label, inputs = found["test", "pho/0.jpg"]
  assert label == "pho" and abs(int(inputs["image"][8, 12, 2]) - 90) < 8


def test_what_was_looked_for(download, tmp_path):
  with pytest.raises(core.DataError, match="there is no folder"):
    food101.prepare(tmp_path, raw=str(tmp_path / "nowhere"))
  with pytest.raises(ValueError, match=r"--config\.data\.raw"):
    food101.prepare(tmp_path)
  (download / "texts" / "test_titles.csv").unlink()
  with pytest.raises(core.DataError, match=r"train_titles\.csv, test_titles"):
    food101.prepare(tmp_path, raw=str(download))
  split_json(download, TRAIN, TRAIN[:1], TEST)
  (download / "text.json").write_text("[1]")
  with pytest.raises(core.DataError, match=r"text\.json is no JSON object"):
    food101.prepare(tmp_path, raw=str(download))
  (download / "text.json").write_text("{}")
  (download / "split.json").write_text('{"train": 3}')
  with pytest.raises(core.DataError, match="no list of pictures 'train'"):
    food101.prepare(tmp_path, raw=str(download))
  (download / "images").unlink()
  with pytest.raises(core.DataError, match="no pictures in"):
    food101.prepare(tmp_path, raw=str(download))


@pytest.mark.parametrize("line", ["[1]", "{", '{"img": 3, "label": "pho"}'])
def test_lines_that_are_no_rows(line, tmp_path):
  path = tmp_path / "train.jsonl"
  path.write_text(line)
  made = Annotations({}, [], {}, [])
  rows = list(lists._of_jsonl(path, made))
  if rows:
    with pytest.raises(ValueError, match="3 names no picture"):
      food101.parse(rows[0][1])
  else:
    (problem,) = made.problems
    assert problem.kind == raw.UNDECODABLE and "line 1" in problem.reason


def test_config():
  config = config_file.get_config("lb")
  assert config.data.max_words == 40 and config.data.image_size == 224
  assert config.encoders.text.name == "bert.Bert"
  assert config_file.get_config("h,encoders=clip").data.max_words == 40
  quick = config_file.get_config("h,quick=true")
  assert quick.encoders.image.name == "small.ConvNet"
