"""A run stays with its data; what is said while they are prepared."""

import json
from types import SimpleNamespace

import pytest
import tensorflow_datasets as tfds

import helpers
from configs import manifest
from data_pipelines import core
from data_pipelines.core import catalog, storage
from dmg_jax.cli import modes
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, run_folder, runner

FIELDS = {
  "train.batch_size": 8,
  "train.epochs": 1,
  **{
    f"encoders.{kind}.features": 8 for kind in ("array", "text")
  },
  "encoders.text.width": 8,
}  # fmt: skip


@pytest.fixture
def table(tmp_path):
  return helpers.write_manifest(tmp_path / "m", 60, ("one:array", "text:text"))


@pytest.fixture
def start(command, table, tmp_path):
  """``launch.py`` on the manifest: ``(exit code, output, errors)``."""
  fields = {"data.manifest": table, "data.dir": tmp_path / "data", **FIELDS}
  words = [f"--config.{name}={value}" for name, value in fields.items()]

  def run(*more):
    work = f"--workdir={tmp_path / 'run'}"
    return command("--config=configs/manifest.py:joint", work, *words, *more)

  return run


def edit(table, text):
  rows = helpers.read_table(table)
  rows[3]["text:text"] = text
  helpers.write_table(table, rows)


def run_on(folder, fingerprint, config=None):
  """What a run of ``config`` left behind, as far as it matters here."""
  data = {"data": {"fingerprint": fingerprint}} if fingerprint else {}
  content = {"config": config.to_dict() if config else {}, **data}
  (folder / "config.json").write_text(json.dumps(content))
  return folder


def test_fingerprints_are_compared_where_they_are_known(tmp_path):
  for there, now in (("", "b"), ("a", ""), ("", ""), ("a", "a")):
    run_folder.check_data(now, run_on(tmp_path, there))
  run_folder.check_data("a", tmp_path / "not yet there")
  with pytest.raises(ValueError, match=r"changed since .*config\.json, now b"):
    run_folder.check_data("b", run_on(tmp_path, "a"))


def test_every_mode_compares_before_it_works(monkeypatch, tmp_path):
  config = manifest.get_config("joint")
  work = run_on(tmp_path, "1" * 32, config)
  other = SimpleNamespace(dataset=SimpleNamespace(fingerprint="2" * 32))
  monkeypatch.setattr(experiment, "assemble", lambda *_, **__: other)
  for start in (
    lambda: runner.run(config, work, Console(quiet=True)),
    lambda: modes.run("evaluate", config, str(work)),
    lambda: modes.run("predict", config, str(work)),
  ):
    with pytest.raises(ValueError, match="data have changed"):
      start()
  # A finished run is not assembled: its data are looked at alone.
  (work / "results.json").write_text("{}")
  folder = storage.folder_of(tmp_path / "data", "toy", "1.0.0")
  made = core.PreparedSummary("toy", str(folder), {"train": {"a": 1}})
  features = {"id": tfds.features.Text()}
  storage.write(folder, features, {"train": [("a", {"id": "a"})]}, made)
  monkeypatch.setattr(catalog, "prepare", lambda *_: made)
  with pytest.raises(ValueError, match="data have changed"):
    runner.run(config, work, Console(quiet=True))
  assert sorted(p.name for p in work.iterdir()) == [
    "config.json", "data", "results.json"
  ]  # fmt: skip


@pytest.mark.slow
def test_a_run_stays_with_its_data(start, table, tmp_path):
  work, before = tmp_path / "run", table.read_bytes()
  code, _, err = start()
  assert code == 0 and "note: split 'outer' is absent" in err
  stored = json.loads((work / "config.json").read_text())
  assert len(stored["data"]["fingerprint"]) == 32
  edit(table, "other words")
  results = (work / "results.json").read_text()
  refused = [start(), start("--mode=evaluate"), start("--mode=predict")]
  (work / "results.json").unlink()
  refused.append(start())
  for code, out, err in refused:
    *_, last = err.splitlines()
    assert (code, out) == (1, "") and "data have changed" in last
    assert str(work / "config.json") in last and "--workdir" in last
  assert not list(work.glob("evaluation*")) + list(work.glob("predictions*"))
  # The old data are back; the file is another in time only.
  table.write_bytes(before)
  assert start("--mode=evaluate")[0] == 0
  (work / "results.json").write_text(results)
  assert start()[0] == 0
  # A folder from before there were fingerprints is taken as it is.
  edit(table, "other words")
  del stored["data"]
  (work / "config.json").write_text(json.dumps(stored))
  assert start()[0] == 0


@pytest.mark.slow
def test_finished_runs_are_shown_without_their_data(start, table):
  assert start("--quiet") == (0, "", "")
  table.unlink()
  code, out, _ = start()
  assert code == 0 and "fused" in out
  assert "the run's data cannot be compared" in out and table.name in out


def test_quiet_while_data_are_prepared(start, table):
  """Notes are not shown, what is wrong is."""
  assert start("--mode=prepare", "--quiet") == (0, "", "")
  rows = helpers.read_table(table)
  rows[3]["one:array"] = "absent.npy"
  helpers.write_table(table, rows)
  code, out, err = start("--mode=prepare", "--quiet")
  assert (code, out) == (1, "") and "absent.npy" in err
