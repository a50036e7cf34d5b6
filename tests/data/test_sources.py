"""Prepared data are kept until a content changes; many samples open at once."""

import os
import shutil

import numpy as np
import pytest

import helpers
from data_pipelines.core import decoded, storage
from data_pipelines.manifest import memory, sources, table
from helpers import load_manifest as load
from helpers import prepare_manifest as prepare
from helpers import read_table, samples

HEADERS = ("one:array", "caption:text", "two:array")


@pytest.fixture
def path(tmp_path):
  return helpers.write_manifest(tmp_path / "files", 40, HEADERS)


@pytest.fixture
def never(monkeypatch):
  """From its call on, nothing is prepared."""
  return lambda: monkeypatch.setattr(storage, "write", None)


def touch(folder):
  for file in folder.iterdir():
    found = file.stat()
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


def test_a_touch_changes_nothing(path, tmp_path, never, monkeypatch):
  data = tmp_path / "data"
  first = prepare(path, data)
  never()
  touch(path.parent)
  assert prepare(path, data) == first
  # The new times are noted: nothing is read any more, not even the table.
  asked = []
  state = sources.state
  monkeypatch.setattr(sources, "digest", None)
  monkeypatch.setattr(table, "read", lambda _: pytest.fail("is read"))
  monkeypatch.setattr(sources, "state", lambda p: asked.append(p) or state(p))
  load(path, data)
  assert len(asked) == len({*asked}) == 80
  assert len(list(data.iterdir())) == 1


def test_what_changes_and_comes_back(path, tmp_path, never):
  data, file = tmp_path / "data", path.parent / "one_0000.npy"
  first, before = prepare(path, data), np.load(file)
  np.save(file, before + 1)  # Of the same size.
  second = prepare(path, data)
  assert second.folder != first.folder
  never()
  np.save(file, before)
  assert prepare(path, data) == first
  file.unlink()
  with pytest.raises(Exception, match=r"one_0000\.npy: there is no such file"):
    prepare(path, data)


def test_a_copy_elsewhere_is_the_same(path, tmp_path, never):
  first = prepare(path, tmp_path / "data")
  never()
  copy = tmp_path / "copy"
  shutil.copytree(path.parent, copy / "m", copy_function=shutil.copyfile)
  shutil.move(tmp_path / "data", copy / "data")
  shutil.rmtree(path.parent)
  again = prepare(copy / "m" / path.name, copy / "data")
  assert again.counts == first.counts


@pytest.mark.parametrize("damage", ["gone", "damaged"])
def test_data_without_notes_are_read(damage, path, tmp_path, never):
  """As those that were prepared before there were notes."""
  first = prepare(path, tmp_path / "data")
  (note,) = (tmp_path / "data").rglob(f"{sources.FOLDER}/*.json")
  if damage == "gone":
    shutil.rmtree(note.parent)
  else:
    note.write_text('[["a", [1')
  never()
  assert prepare(path, tmp_path / "data") == first
  assert note.exists()


def test_files_of_a_table_in_memory(path, tmp_path, never):
  rows = read_table(path)
  columns = {c: [r[c] for r in rows] for c in rows[0]}

  def prepared():
    return memory.prepare(columns, tmp_path / "data", folder=path.parent)

  first = prepared()
  touch(path.parent)
  never()
  assert prepared() == first
  file = path.parent / "one_0000.npy"
  np.save(file, np.load(file) + 1)
  with pytest.raises(TypeError):  # Now it would be written.
    prepared()


def test_decoded_samples_are_kept(path, tmp_path, monkeypatch):
  monkeypatch.setattr(decoded, "LEAST", 30)
  data = tmp_path / "data"
  expected = samples(load(path, tmp_path / "other"))
  monkeypatch.setattr(decoded, "LEAST", 1)

  def check(dataset):
    found = samples(dataset)
    assert found.keys() == expected.keys()
    for key, (label, inputs) in found.items():
      assert label == expected[key][0]
      for m, array in inputs.items():
        assert array.dtype == expected[key][1][m].dtype
        np.testing.assert_array_equal(array, expected[key][1][m])

  prepare(path, data)  # Decodes them, too.
  with monkeypatch.context() as context:
    context.setattr(storage, "read_fields", None)
    check(load(path, data))
    (train,) = data.rglob(f"{decoded.FOLDER}/train-*.npz")
    with pytest.raises(TypeError):  # Other options, other arrays.
      load(path, data, max_words=2)
  whole = train.read_bytes()
  for damaged in (whole[:-1], whole[: len(whole) // 2], b""):
    train.write_bytes(damaged)
    check(load(path, data))
    assert len(train.read_bytes()) == len(whole)
  middle = len(whole) // 3
  train.write_bytes(whole[:middle] + b"\x7f\x01\x7f" + whole[middle + 3 :])
  check(load(path, data))


def test_few_kinds_of_decoded_samples_are_kept(path, tmp_path, monkeypatch):
  monkeypatch.setattr(decoded, "LEAST", 1)
  for length in range(1, 7):
    load(path, tmp_path / "data", max_words=length)
  files = list((tmp_path / "data").rglob("*.npz"))
  assert len(files) == 3 * 4
  newest = load(path, tmp_path / "data", max_words=6)
  assert newest.spec.modalities["caption"].shape == (6,)
  assert sorted(files) == sorted((tmp_path / "data").rglob("*.npz"))


def test_a_folder_that_cannot_be_written_to(path, tmp_path, monkeypatch):
  def refuse(*_, **__):
    raise OSError("read-only")

  prepare(path, tmp_path / "data")
  monkeypatch.setattr(decoded, "LEAST", 1)
  monkeypatch.setattr(decoded, "_save", refuse)
  assert load(path, tmp_path / "data").spec.sizes["test"] == 10
  assert not list((tmp_path / "data").rglob("*.npz"))
