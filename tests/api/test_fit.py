"""``fit`` is the command, leaves nothing behind, and goes on after Ctrl-C."""

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas
import pytest

import dmg_jax
import helpers
import launch
from configs import openmoji
from dmg_jax.api import fitting
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import restore
from tiny_samples import SMALL, samples

ROOT = Path(launch.__file__).parent
FIELDS = {**SMALL, "train.batch_size": 8}


def weights(folder):
  state = restore.restore(folder, {"loader": {"resident": "off"}})[1]
  return jax.tree.leaves((state.params, state.opt_state, state.method))


def assert_same(one, other):
  """Results, metrics and weights of two work directories."""
  read = [json.loads((x / "results.json").read_text()) for x in (one, other)]
  for results in read:
    del results["timing"]
  assert read[0] == read[1]
  lines = [read_metrics(x / "metrics.jsonl") for x in (one, other)]
  assert str(lines[0]) == str(lines[1])  # NaN is equal to itself here.
  for a, b in zip(weights(one), weights(other), strict=True):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_fit_is_the_command(tmp_path):
  """Each in a process of its own, as users have them."""
  table = helpers.write_manifest(
    tmp_path / "files", 40, ("caption:text", "sensor:array")
  )
  work, data = tmp_path / "command", tmp_path / "data"
  fields = {**FIELDS, "data.dir": str(data)}
  words = [f"--config.{k}={v}".replace(" ", "") for k, v in fields.items()]
  command = [
    sys.executable, "launch.py", "--config=configs/manifest.py:h,epochs=2",
    f"--config.data.manifest={table}", f"--workdir={work}", *words, "--quiet",
  ]  # fmt: skip
  subprocess.run(command, cwd=ROOT, check=True)
  code = (
    "import dmg_jax, sys\n"
    f"run = dmg_jax.fit({str(table)!r}, recipe='h', epochs=2, "
    f"workdir={str(tmp_path / 'python')!r}, config={fields!r})\n"
    "assert 'matplotlib.pyplot' not in sys.modules  # No page unless asked.\n"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True
  )
  assert done.stdout == b""
  assert_same(work, tmp_path / "python")
  stored = [restore.stored(x)["config"] for x in (work, tmp_path / "python")]
  assert stored[0] == stored[1]


@pytest.mark.slow
def test_fit_of_a_config_file_is_the_command(data_dir, tmp_path):
  config = openmoji.get_config("lb,epochs=1")
  fields = {
    "data.image_size": 8,
    "data.dir": str(data_dir),
    "encoders.image.widths": (8,),
    "method.iterations": 1,
  }
  config.update_from_flattened_dict(fields)
  fitting.train(config, tmp_path / "command", Console(quiet=True), page=False)
  run = dmg_jax.fit(
    ROOT / "configs" / "openmoji.py",
    epochs=1,
    config=fields,
    workdir=tmp_path / "python",
  )
  assert_same(tmp_path / "command", run.folder)
  folders = (tmp_path / "command", run.folder)
  configs = [restore.stored(folder)["config"] for folder in folders]
  assert configs[0] == configs[1]


def test_nothing_is_left_behind(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  x, y = samples()
  run = dmg_jax.fit(x, y, recipe="joint", epochs=1, config=SMALL)
  folder = run.folder.parent
  assert folder.is_dir() and run.config.eval.test is False
  assert set(run.results) >= {"val", "timing"} and "test" not in run.results
  (one,) = run.runs
  del run
  gc.collect()
  assert one.predict(x).labels  # A part keeps the whole.
  one.close()
  assert not folder.exists() and not list(tmp_path.iterdir())
  with pytest.raises(ValueError, match="is not there any more"):
    _ = one.results


def test_nothing_is_left_of_what_failed(tmp_path, monkeypatch):
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  monkeypatch.setattr("tempfile.tempdir", None)
  x, y = samples()
  with pytest.raises(ValueError, match="batch_size"):
    dmg_jax.fit(x, y, batch_size=0)
  assert not list(tmp_path.iterdir())


def test_data_in_memory_with_a_work_directory(tmp_path, monkeypatch):
  """Test rows are read once; the run is read again without its data."""
  x, y = samples(32)
  split = ["train", "train", "train", "test"] * 8
  frame = pandas.DataFrame(
    {**x, "sensor": list(x["sensor"]), "label": y, "split": split}
  )
  work = tmp_path / "run"
  keys = {"recipe": "joint", "epochs": 1, "config": SMALL, "workdir": work}
  run = dmg_jax.fit(frame, **keys)
  results = run.results
  assert (work / "data").is_dir() and "test" in results
  assert run.config.eval.test is True
  again = dmg_jax.fit(frame, **keys)  # Finished: only opened.
  assert again.results == results
  moved = work.rename(tmp_path / "moved")
  loaded = dmg_jax.load(moved)
  assert loaded.evaluate("test") == results["test"]
  with pytest.raises(ValueError, match="another config"):
    dmg_jax.fit(frame, **{**keys, "workdir": moved, "epochs": 2})


def test_interrupted_runs_go_on(tmp_path, monkeypatch):
  x, y = samples()
  keys = {"recipe": "joint", "epochs": 3, "config": {**FIELDS}}
  straight = dmg_jax.fit(x, y, workdir=tmp_path / "straight", **keys)
  epoch = Console.epoch

  def interrupt(self, number, values):
    epoch(self, number, values)
    signal.raise_signal(signal.SIGINT)

  # A shell's background jobs ignore the signal, and so would these tests.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    with monkeypatch.context() as patch:
      patch.setattr(Console, "epoch", interrupt)
      with pytest.raises(KeyboardInterrupt):
        dmg_jax.fit(x, y, workdir=tmp_path / "stopped", **keys)
  finally:
    signal.signal(signal.SIGINT, before)
  stopped = dmg_jax.load(tmp_path / "stopped")
  with pytest.raises(ValueError, match="not finished"):
    _ = stopped.results
  assert len(stopped.history)
  assert_same(
    straight.folder,
    dmg_jax.fit(x, y, workdir=tmp_path / "stopped", **keys).folder,
  )


def test_other_threads_train_too(tmp_path):
  """Where signals cannot be caught."""
  from concurrent.futures import ThreadPoolExecutor

  x, y = samples()
  with ThreadPoolExecutor(1) as pool:
    run = pool.submit(
      dmg_jax.fit, x, y, recipe="joint", epochs=1, config=SMALL
    ).result()
  assert run.results["epochs"] == 1


WRONG = [
  ({"recipe": "bl"}, "unknown recipe 'bl'; did you mean 'lb'"),
  ({"epoch": 2}, "unknown key of recipe 'lb' 'epoch'; did you mean 'epochs'"),
  ({"epochs": "x"}, "epochs must be of type int, got 'x'"),
  ({"epochs": 0}, r"train\.epochs must lie in \[1, "),
  ({"temperature": -1.0}, "temperature"),
  ({"fusion": "conct"}, "'conct'; did you mean 'concat'"),
  ({"encoders": {"array": "small.MLPP"}}, "'small.MLPP'; did you mean"),
  ({"config": {"train.epoch": 1}}, "unknown field config.train.epoch"),
  ({"config": {"train.epochs": "x"}}, "epochs must be of type int"),
  ({"config": {"method.name": "lb"}}, "method.name has options of its own"),
]


@pytest.mark.parametrize("keys,said", WRONG)
def test_wrong_words_are_those_of_the_command(keys, said, tmp_path):
  x, y = samples()
  for data, labels in ((x, y), (tmp_path / "absent.csv", None)):
    with pytest.raises(dmg_jax.UserError, match=said):
      dmg_jax.fit(data, labels, **keys)


def test_wrong_data(tmp_path):
  x, y = samples()
  bad = [*y[:-1], float("nan")]
  short = {**x, "sensor": x["sensor"][1:]}
  odd = {**x, "sensor": [*x["sensor"][1:], np.zeros(2)]}
  tables = str(ROOT / "configs" / "tables.py")
  for data, labels, keys, said in (
    (x, bad, {}, "row 24, column 'label': the cell is empty"),
    (short, y, {}, "as many rows: 'sensor' has 23"),
    (odd, y, {}, r"has shape \(2,\)"),
    (x, y[:-1], {}, "'label' has 23"),
    (x, ["up"] * 24, {}, "there must be two classes"),
    (tmp_path / "no.csv", None, {}, "no manifest"),
    (tmp_path / "no.csv", y, {}, "for data in memory"),
    ("configs/openmojj.py", None, {}, "no config file 'configs/openmojj.py'"),
    ("configs/openmoji.py:lb", None, {}, r"recipe=\.\.\."),
    (tables, None, {"recipe": "table1", "dataset": "openmoji"}, "many runs"),
  ):
    with pytest.raises(dmg_jax.UserError, match=said):
      dmg_jax.fit(data, labels, **keys)


def test_verbose(capfd):
  x, y = samples()
  keys = {"recipe": "joint", "epochs": 1, "config": SMALL}
  dmg_jax.fit(x, y, **keys)
  assert capfd.readouterr().out == ""
  dmg_jax.fit(x, y, verbose=True, **keys)
  assert "epoch 1/1" in capfd.readouterr().out


def test_importing_is_light():
  code = (
    "import sys, dmg_jax; dir(dmg_jax); "
    "assert not {'jax', 'numpy', 'sklearn'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
  with pytest.raises(AttributeError, match="fitt"):
    _ = dmg_jax.fitt
  assert os.path.isfile(dmg_jax.__file__)
