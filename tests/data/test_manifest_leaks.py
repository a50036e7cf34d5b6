"""The same content in two splits is noted, under whatever name."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest

import helpers
from data_pipelines.manifest import memory
from helpers import MANIFEST, read_table
from helpers import prepare_manifest as prepare

KINDS = ("photo:image", "caption:text", "sensor:array")
SPLITS = ("train", "train", "train", "outer", "val", "test")


@pytest.fixture
def path(tmp_path):
  return helpers.write_manifest(tmp_path / "files", 60, KINDS, splits=SPLITS)


def changed(path, tmp_path, change):
  """Notes on shared content after ``change(row of test, row of train)``."""
  rows = read_table(path)
  for i, row in enumerate(rows):
    row["caption:text"] = f"{row['caption:text']} no. {i}"
  by = {s: [r for r in rows if r["split"] == s] for s in SPLITS}
  for one, other in zip(by["test"][:4], by["train"], strict=False):
    change(one, other)
  helpers.write_table(path, rows)
  return shared(prepare(path, tmp_path / "data"))


def shared(made):
  return [n for n in made.notes if "shares content" in n]


def test_nothing_is_said_of_nothing(path, tmp_path):
  assert not changed(path, tmp_path, lambda one, other: None)


def test_copies_of_files_under_another_name(path, tmp_path):
  def copy(one, other):
    for column in ("photo:image", "sensor:array"):
      name = f"copy_{one[column]}"
      shutil.copy(path.parent / other[column], path.parent / name)
      one[column] = name

  assert changed(path, tmp_path, copy) == [
    "'test' shares content with 'train': column 'photo:image' has 4 pictures "
    "in both; column 'sensor:array' has 4 arrays in both"
  ]


@pytest.mark.parametrize("how", ["same", "dot", "up", "link", "hard"])
def test_one_file_under_several_paths(path, tmp_path, how):
  def rename(one, other):
    name, folder = other["photo:image"], path.parent
    if how == "link":
      os.symlink(name, folder / f"l_{name}")
    elif how == "hard":
      os.link(folder / name, folder / f"h_{name}")
    one["photo:image"] = {
      "same": name, "dot": f"./{name}", "up": f"../{folder.name}/{name}",
      "link": f"l_{name}", "hard": f"h_{name}",
    }[how]  # fmt: skip

  assert changed(path, tmp_path, rename) == [
    "'test' shares content with 'train': column 'photo:image' has 4 pictures "
    "in both"
  ]


def test_whole_samples_are_counted_apart(path, tmp_path):
  def same(one, other):
    one |= {c: other[c] for c in KINDS}

  assert changed(path, tmp_path, same) == [
    "'test' shares content with 'train': 4 of 10 samples are the same in all "
    "modalities; column 'photo:image' has 4 pictures in both; column "
    "'caption:text' has 4 texts in both; column 'sensor:array' has 4 arrays in "
    "both"
  ]


def test_each_two_splits_are_compared(path, tmp_path):
  rows = read_table(path)
  first = {}
  for row in rows:
    for column in KINDS:
      first.setdefault(column, row[column])
  seen = set()
  for row in rows:
    if row["split"] not in seen:
      seen.add(row["split"])
      row |= first
  helpers.write_table(path, rows)
  said = shared(prepare(path, tmp_path / "data"))
  pairs = [note.split(": ")[0] for note in said]
  assert pairs == [
    f"{b!r} shares content with {a!r}"
    for a, b in (
      ("train", "outer"), ("train", "val"), ("train", "test"),
      ("outer", "val"), ("outer", "test"), ("val", "test"),
    )
  ]  # fmt: skip
  assert all("1 of 10 samples is the same in all" in note for note in said)


def test_copies_within_train_reach_what_is_taken_from_it(tmp_path):
  rows = [
    {"split": s, "label": i % 2, "a:text": f"{s} {i % 20}"}
    for s, n in (("train", 40), ("test", 20))
    for i in range(n)
  ]
  path = helpers.write_table(tmp_path / "m.csv", rows)
  said = shared(prepare(path, tmp_path / "data", held_out=0.2))
  assert [note.split(":")[0] for note in said][:2] == [
    "'outer' shares content with 'train'", "'val' shares content with 'train'",
  ]  # fmt: skip
  rows += [{"split": "test", "label": 0, "a:text": "train 3"}]
  made = prepare(helpers.write_table(path, rows), tmp_path / "data")
  assert "'test' shares content with 'train': 1 of 21 samples is the same" in (
    made.notes
  )


def test_texts_that_many_rows_have_are_no_sign(tmp_path):
  rows = [
    {"split": s, "label": i % 2, "a:text": f"{s} {i}", "b:text": f"yes {i % 2}"}
    for s in ("train", "test")
    for i in range(30)
  ]
  path = helpers.write_table(tmp_path / "m.csv", rows)
  assert not shared(prepare(path, tmp_path / "data"))


def test_long_files_are_compared_to_the_end(tmp_path):
  rng = np.random.default_rng(0)
  arrays = rng.normal(size=(40, 20_000)).astype(np.float32)
  arrays[30, :] = arrays[0]
  arrays[31, :] = arrays[1]
  arrays[31, 10_000] += 1  # In the middle alone.
  rows = []
  for i, array in enumerate(arrays):
    np.save(tmp_path / f"{i}.npy", array)
    split = "train" if i < 28 else "test"
    rows.append({"split": split, "label": i % 2, "a:array": f"{i}.npy"})
  path = helpers.write_table(tmp_path / "m.csv", rows)
  said = "'test' shares content with 'train': 1 of 12 samples is the same"
  assert shared(prepare(path, tmp_path / "data")) == [said]
  frame = pd.DataFrame(rows)
  frame["a:array"] = list(arrays)
  assert shared(memory.prepare(frame, tmp_path / "d", **MANIFEST)) == [said]
