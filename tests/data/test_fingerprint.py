"""What tells prepared data from others."""

import copy
import os

import numpy as np
import pytest

import helpers
from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.core.fingerprint import Fingerprint
from data_pipelines.sets import openmoji

CLASSES = ("ant", "bee")
KINDS = ("one:array", "caption:text")


def examples():
  rng = np.random.default_rng(0)
  return {
    split: [
      (
        f"{split}{i}",
        {
          "x": rng.normal(size=(3, 2)),
          "label": i % 2,
          "text": "a b",
          "p": b"1",
        },
      )
      for i in range(3)
    ]
    for split in ("train", "test")
  }


def fingerprint(splits, classes=CLASSES):
  taken = Fingerprint()
  for split, pairs in splits.items():
    assert list(taken.passing(split, iter(pairs))) == pairs
  return taken.text(classes)


def test_the_same_data(tmp_path):
  one = fingerprint(examples())
  assert one == fingerprint(examples()) and len(one) == 32
  other = {
    s: [(k, dict(reversed(f.items()))) for k, f in pairs]
    for s, pairs in reversed(examples().items())
  }
  assert fingerprint(other) == one
  for _, fields in other["train"]:
    fields["p"] = tmp_path / "picture"
  (tmp_path / "picture").write_bytes(b"1")
  assert fingerprint(other) == one


def moved(splits):
  splits["train"].append(splits["test"].pop())


def swapped(splits):
  splits["train"].reverse()


def renamed(splits):
  splits["test"][0] = ("another", splits["test"][0][1])


def longer(splits):
  splits["train"][0][1].update(text="a", p=b" b1")


CHANGES = {
  "x": lambda x: x + np.eye(3, 2) * 1e-15,
  "label": lambda x: 1 - x,
  "text": lambda x: "a  b",
  "p": lambda x: b"2",
}


@pytest.mark.parametrize("change", [*CHANGES, moved, swapped, renamed, longer])
def test_any_change_is_seen(change):
  splits = copy.deepcopy(examples())
  if callable(change):
    change(splits)
  else:
    fields = splits["test"][1][1]
    fields[change] = CHANGES[change](fields[change])
  assert fingerprint(splits) != fingerprint(examples())


def test_shapes_types_and_classes_are_seen():
  one = {"train": [("a", {"x": np.arange(6)})]}
  for x in (np.arange(6).reshape(2, 3), np.arange(6, dtype=np.int32)):
    assert fingerprint({"train": [("a", {"x": x})]}) != fingerprint(one)
  assert fingerprint(one, ("ant", "cat")) != fingerprint(one)


def test_openmoji(data_dir, tmp_path):
  data = openmoji.load(data_dir, image_size=8)
  folder = storage.folder_of(data_dir, openmoji.NAME, openmoji.VERSION)
  made = core.PreparedSummary.read(folder)
  assert data.fingerprint == made.fingerprint and len(made.fingerprint) == 32
  assert data.select(["text"]).fingerprint == data.fingerprint


def test_a_manifest_and_its_files(tmp_path):
  """A touched file stays as it was prepared; changed content does not."""
  path, data = helpers.write_manifest(tmp_path / "m", 40, KINDS), tmp_path / "d"
  loaded = [helpers.load_manifest(path, data).fingerprint]
  array = path.parent / "one_0003.npy"
  os.utime(array, (1, 1))
  loaded.append(helpers.load_manifest(path, data).fingerprint)
  assert loaded[0] == loaded[1] and len(list(data.iterdir())) == 1
  np.save(array, np.load(array)[::-1])  # in place, of the same size
  loaded.append(helpers.load_manifest(path, data).fingerprint)
  table = helpers.read_table(path)
  table[5]["caption:text"] = "something else"
  helpers.write_table(path, table)
  loaded.append(helpers.load_manifest(path, data).fingerprint)
  assert len(set(loaded)) == 3 and len(list(data.iterdir())) == 3
