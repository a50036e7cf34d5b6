"""Tables from the command line, and runs that end on val."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fake_runs
import launch
from data_pipelines.core import Dataset
from dmg_jax import report
from dmg_jax.config import compose
from dmg_jax.config.rows.tables import TABLES
from dmg_jax.report import html, reading
from dmg_jax.report.examples import load_examples
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, runner
from helpers import toy_dataset

ROOT = Path(launch.__file__).parent
TABLE = "--config=configs/tables.py:"
SMALL = "table1,dataset=openmoji,rows=joint+lb"

# Table, flag, exit code, and what the line must say.
WRONG = [
  ("", "", 2, "no table", "tableA3"),
  ("table9,dataset=openmoji", "", 2, "'table9'", "'table5'"),
  ("table1", "", 2, "no data set", "dataset=...", "openmoji"),
  ("table1,dataset=openmojii", "", 2, "'openmojii'", "'openmoji'"),
  ("table1,openmoji", "", 2, "key=value", "'openmoji'"),
  ("table1,dataset=openmoji,rows=joint+bl", "", 2, "'bl'", "'lb'"),
  ("table1,dataset=openmoji,sedes=3", "", 2, "'sedes'", "'seeds'"),
  ("table1,dataset=openmoji,fusion=sum", "", 2, "'fusion'"),
  ("table1,dataset=openmoji,trials=0", "", 2, "trials", "'0'"),
  ("table1,dataset=openmoji,epochs=x", "", 2, "epochs", "int", "'x'"),
  ("table1,dataset=openmoji,quick=true", "", 2, "'quick'", "'openmoji'"),
  (SMALL, "--config.trian.epochs=3", 2, "'train.epochs'"),
  (SMALL, "--config.rows.lb.method.rte=3", 2, "'rows.lb.method.rate'"),
  (SMALL, "--config.rows.lb.method.rate=x", 2, "rows.lb.method.rate", "x"),
  (SMALL, "--config.rows.lb.method.name=h", 2, "rows.lb.method.name", "colon"),
  (SMALL, "--config.table.trials=3", 2, "table.trials", "colon"),
  (SMALL, "--config.rows.lb.method.rate=-1", 1, "row 'lb'", "positive"),
  (SMALL, "--config.shard=4", 1, "shard=4", "shards=1"),
  (SMALL, "--config.train.epochs=0", 1, "train.epochs", "[1, "),
  (SMALL, "--config.data.image_size=1", 1, "image_size", "8 to 72"),
  (SMALL, "--mode=evaluate", 1, "evaluate", "one run", "seed_0"),
]


@pytest.mark.parametrize(
  "table,word,code,parts", [(*w[:3], w[3:]) for w in WRONG]
)
def test_what_is_wrong_is_one_line(
  command, data_dir, tmp_path, table, word, code, parts
):
  work = tmp_path / "work"
  given = [TABLE + table, f"--workdir={work}", *([word] if word else [])]
  given += [f"--config.data.dir={data_dir}"] if table == SMALL else []
  found, out, err = command(*given)
  assert (found, out) == (code, "") and err.count("\n") == 1, err
  assert err.startswith("error: ")
  for part in parts:
    assert part in err, err
  assert not work.exists()


def test_help_lists_tables(command):
  code, out, _ = command("--help")
  assert code == 0
  for name in TABLES:
    assert f"  {name} " in out


class Counted:
  """A split that counts how often it is read."""

  def __init__(self, source):
    self._source, self.reads = source, 0

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    self.reads += 1
    return self._source[index]


@pytest.fixture
def toy(quick, monkeypatch):
  """``toy(test)`` is a config; ``toy.test`` its split test."""
  del quick
  data = toy_dataset(("array", "text"))
  test = Counted(data.sources["test"])
  counted = Dataset(data.spec, {**data.sources, "test": test}, data.augment)
  monkeypatch.setattr(experiment, "load", lambda config, method: counted)
  original, made = experiment.assemble, []

  def once(config, *_):
    """Compiled once: whether test is read changes no step."""
    made.extend([] if made else [original(config)])
    return dataclasses.replace(made[0], config=config)

  monkeypatch.setattr(experiment, "assemble", once)

  def make(tested):
    config = compose.base()
    config.data.name = "toy-counted"
    config.encoders = {
      "array": compose.encoder("small.MLP", features=8, widths=(8,)),
      "text": compose.encoder("small.WordBag", features=8, width=8),
    }
    config.train.update(batch_size=16, outer_batch_size=8, epochs=2)
    config.eval.update(batch_size=16, test=tested)
    config.loader.workers = 0
    return compose.with_recipe(config, "joint")

  make.test = test
  return make


def test_a_run_that_ends_on_val_does_not_read_test(toy, tmp_path, monkeypatch):
  monkeypatch.setattr(report, "write_report", lambda workdir: workdir)
  config, work = toy(False), tmp_path / "run"
  results = runner.run(config, work, Console(quiet=True))
  assert toy.test.reads == 0
  assert results is not None and "test" not in results
  assert 0 < results["val"]["fused"]["accuracy"] <= 1
  assert not (work / "test_features.npz").exists()
  assert runner.finished(config, work) == results
  # Asked for test, it is read from the same state; nothing is trained again.
  assert runner.finished(toy(True), work) is None
  tested = runner.run(toy(True), work, Console(quiet=True))
  assert tested is not None
  # Once, and the few that are shown a second time.
  shown = load_examples(work)
  assert shown is not None and 0 < len(shown["index"]) <= 16
  assert toy.test.reads == len(toy.test) + len(shown["index"])
  assert tested["val"] == results["val"] and "fused" in tested["test"]
  assert tested["timing"]["train_steps"] == 0
  assert runner.finished(toy(True), work) == tested


def test_report_of_a_run_that_ended_on_val(tmp_path):
  fake_runs.run(tmp_path / "run", epochs=3)
  path = tmp_path / "run" / "results.json"
  results = json.loads(path.read_text())
  del results["test"]
  path.write_text(json.dumps(results))
  said = html.headline(reading.read(tmp_path / "run"))
  assert said.startswith(
    "This run was not evaluated on test (eval.test=false). Validation "
    "accuracy: fused "
  )


def words(workdir, data_dir, *more):
  """A table of four short runs and two rows' trials."""
  return [
    f"{TABLE}table4,dataset=openmoji,seeds=2,trials=2,epochs=1,"
    "rows=constant_0+h",
    f"--workdir={workdir}",
    f"--config.data.dir={data_dir}",
    "--config.data.image_size=8",
    "--config.encoders.image.widths=(8,)",
    "--config.encoders.text.width=8",
    "--config.train.checkpoint_steps=3",
    *more,
  ]


@pytest.mark.slow
def test_table_is_gone_on_with_after_kills(data_dir, tmp_path):
  """SIGINT, then SIGKILL; in the end as if never stopped."""
  work, other = tmp_path / "work", tmp_path / "other"
  for number, folder in (
    (signal.SIGINT, "constant_0/trial_1"), (signal.SIGKILL, "h/seed_0"),
  ):  # fmt: skip
    process = start(words(work, data_dir), tmp_path / "compiled")
    wait_for(work / folder / "checkpoints" / "3", process)
    process.send_signal(number)
    process.communicate(timeout=300)
  assert not json.loads((work / "table.json").read_text())["complete"]
  for command in (words(work, data_dir), *(
    words(other, data_dir, f"--config.shard={k}", "--config.shards=2")
    for k in (1, 0)
  )):  # fmt: skip
    process = start(command, tmp_path / "compiled")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
  one, two = (json.loads((w / "table.json").read_text()) for w in (work, other))
  assert one == two and one["complete"]
  trial = json.loads((work / "h" / "trial_1" / "results.json").read_text())
  assert "test" not in trial


def start(given, compiled):
  """The command in a process of its own; programs are compiled once."""
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": str(compiled),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  return subprocess.Popen(
    [sys.executable, "launch.py", *given], cwd=ROOT, env=environment,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip


def wait_for(path, process):
  """Until it exists, for as long as the process lives."""
  while not path.exists():
    assert process.poll() is None, process.communicate()[0]
    time.sleep(0.05)
