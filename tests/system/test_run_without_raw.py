"""A finished run needs what was prepared, and nothing of the user is lost."""

import json
import os
import shutil

import numpy as np
import pytest

import dmg_jax
import helpers
from dmg_jax.errors import DataError


@pytest.fixture
def moved(work, pairs, tmp_path):
  """A copy of a run and its data; the manifest is not where it was."""
  folder = shutil.copytree(work, tmp_path / "away" / "runs" / "r")
  shutil.copytree(pairs[1]["data.dir"], tmp_path / "away" / "data")
  stored = json.loads((folder / "config.json").read_text())
  stored["config"]["data"].update(manifest="raw/absent.csv", dir="data")
  stored["data"].pop("folder", None)
  (folder / "config.json").write_text(json.dumps(stored))
  return folder


def test_the_raw_manifest_is_gone(moved, tmp_path, monkeypatch):
  (tmp_path / "elsewhere").mkdir()
  monkeypatch.chdir(tmp_path / "elsewhere")
  run = dmg_jax.load(moved)
  assert run.modalities == {
    "photo": "image", "caption": "text", "sensor": "array"
  }  # fmt: skip
  assert run.evaluate("test")["fused"]["accuracy"] >= 0
  assert not list((tmp_path / "elsewhere").iterdir())


def test_prepared_data_are_gone_too(moved, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  shutil.move(tmp_path / "away" / "data", tmp_path / "kept")
  with pytest.raises(DataError, match=r"prepared data of the run.*absent\.csv"):
    dmg_jax.load(moved).evaluate("test")
  found = dmg_jax.load(moved, data_dir=tmp_path / "kept").evaluate("test")
  assert "fused" in found


def test_one_raw_file_is_gone(work, pairs, tmp_path, monkeypatch):
  folder = shutil.copytree(pairs[0].parent, tmp_path / "files")
  run = shutil.copytree(work, tmp_path / "run")
  stored = json.loads((run / "config.json").read_text())
  stored["config"]["data"]["manifest"] = str(folder / pairs[0].name)
  (run / "config.json").write_text(json.dumps(stored))
  next(folder.glob("*.npy")).unlink()
  assert "fused" in dmg_jax.load(run).evaluate("test")


@pytest.mark.parametrize("kind", ["itself", "link", "hard link", "config"])
def test_files_of_the_user_are_not_replaced(kind, loaded, new, tmp_path):
  table = helpers.write_table(tmp_path / "new.csv", [{"id": 1, "a": 2}])
  path = {"itself": table}.get(kind, tmp_path / "other.csv")
  if kind == "link":
    path.symlink_to(table)
  elif kind == "hard link":
    os.link(table, path)
  elif kind == "config":
    path.write_text("id,fused_prediction,fused:a,fused:b,mine\n")
  before = path.read_bytes()
  made = dmg_jax.Prediction(("a", "b"), {"fused": np.ones((1, 2)) / 2})
  with pytest.raises(ValueError, match="is there and is no table of predict"):
    made.write(path)
  assert path.read_bytes() == before
  beside = tmp_path / "fresh.part"
  beside.write_text("mine")
  for _ in range(2):  # One's own may be written again.
    made.write(tmp_path / "fresh.csv")
  assert beside.read_text() == "mine"


def test_exports_replace_exports_alone(loaded, tmp_path):
  for name, text in (
    ("photo/holiday.txt", "mine"),
    ("photo/model.safetensors", "mine"),
    ("predictor.json", '{"mine": 1}'),
  ):
    file = tmp_path / name.replace("/", "-") / name
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(ValueError, match="is there and is no file of an exp"):
      loaded.export(tmp_path / name.replace("/", "-"))
    assert file.read_text() == text
  (tmp_path / "file").write_text("mine")
  with pytest.raises(ValueError, match="is a file"):
    loaded.export(tmp_path / "file")
