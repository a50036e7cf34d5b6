"""Processes that meet in one folder: nothing is doubled or lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import launch
from data_pipelines.core import storage
from data_pipelines.disk import locks
from data_pipelines.errors import BusyError
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import runner
from dmg_jax.training.loop import Trainer

ROOT = Path(launch.__file__).parent
QUIET = Console(quiet=True)
HOLD = (
  "import sys, time, pathlib\n"
  "from data_pipelines.disk import locks\n"
  "held = locks.Locks(); held.take(pathlib.Path(sys.argv[1]))\n"
  "print('held', flush=True); time.sleep(60)\n"
)


@pytest.fixture
def holder(tmp_path):
  """A process that works in ``work``."""
  (tmp_path / "work").mkdir()
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, str(tmp_path / "work")],
    stdout=subprocess.PIPE,
    text=True,
    cwd=ROOT,
  )
  assert process.stdout is not None and process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.wait()
  process.stdout.close()


def test_the_other_process_is_named(holder, tmp_path):
  with locks.Locks() as held, pytest.raises(BusyError) as caught:
    held.take(tmp_path / "work")
  text = str(caught.value)
  assert str(holder.pid) in text and str(tmp_path / "work") in text
  assert "--workdir" in text


def test_a_dead_process_holds_nothing(holder, tmp_path):
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  assert (tmp_path / "work" / locks.FILE).exists()
  with locks.Locks() as held:
    assert held.take(tmp_path / "work")
    assert not held.take(tmp_path / "work")  # Again is no harm.
    with locks.Locks() as other, pytest.raises(BusyError, match="this process"):
      other.take(tmp_path / "work")
  assert not (tmp_path / "work" / locks.FILE).exists()
  with locks.Locks() as held:
    assert held.take(tmp_path / "work")


def test_no_locks_no_protection(tmp_path, monkeypatch):
  monkeypatch.setattr(locks, "fcntl", None)
  with locks.Locks() as held:
    assert held.take(tmp_path)


def test_the_same_command_twice(holder, command, words, tmp_path, quick):
  """The second ends with a line and has touched nothing."""
  del quick
  work = tmp_path / "work"
  code, _, err = command(*words("joint", work), "--quiet")
  assert code == 1 and err.startswith("error: ") and err.count("\n") == 1
  assert f"{work} is in use by process {holder.pid}" in err
  assert [p.name for p in work.iterdir()] == [locks.FILE]


def test_a_table_does_not_note_it_as_a_failure(tmp_path, monkeypatch, quick):
  del quick
  from configs import tables
  from dmg_jax.tables import grid

  def busy(*args, **kwargs):
    raise BusyError("in use")

  config = tables.get_config("table1,dataset=openmoji,seeds=1,rows=joint")
  config.data.dir = str(tmp_path / "data")
  monkeypatch.setattr(runner, "run_jobs", busy)
  monkeypatch.setattr(grid, "_data", lambda *args: None)
  monkeypatch.setattr(grid.catalog, "hide", lambda *args: None)
  with pytest.raises(BusyError):
    grid.run(config, tmp_path / "table", QUIET)
  assert not list((tmp_path / "table").rglob("*.json"))


def test_one_that_was_faster(tiny, tmp_path, monkeypatch, quick):
  """Another process begins the run between our checks and our first file."""
  del quick
  original = Trainer.__init__

  def slow(self, *args, **kwargs):
    original(self, *args, **kwargs)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "config.json").write_text("{}")

  monkeypatch.setattr(Trainer, "__init__", slow)
  with pytest.raises(BusyError, match="begun the run"):
    runner.run(tiny("joint"), tmp_path / "work", QUIET)
  assert (tmp_path / "work" / "config.json").read_text() == "{}"


def test_readers_beside_a_run(straight, command, words, tmp_path):
  """They need no lock."""
  work = straight("joint")
  with locks.Locks() as held:
    held.take(work)
    for mode in ("evaluate", "report"):
      code, _, err = command(*words("joint", work), f"--mode={mode}", "--quiet")
      assert (code, err) == (0, "")


def test_data_are_made_once(tmp_path, capsys):
  """Others wait, with a line, and read what the first has made."""
  folder, made = tmp_path / "set" / "1.0.0", []
  begun, end = threading.Event(), threading.Event()

  class Summary:
    """In place of ``PreparedSummary``."""

  def make():
    made.append(1)
    begun.set()
    end.wait(20)
    return Summary()

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(storage, "problem_of", lambda f: None if made else "empty")
    patch.setattr(storage.PreparedSummary, "read", lambda f: made)
    once: Any = storage.once
    first = threading.Thread(target=once, args=(folder, make))
    first.start()
    assert begun.wait(20)
    found = []
    second = threading.Thread(target=lambda: found.append(once(folder, make)))
    second.start()
    time.sleep(3 * locks._EVERY)
    assert not found
    end.set()
    first.join(20)
    second.join(20)
  assert made == [1] and found == [made]
  assert capsys.readouterr().err.count("another process is preparing") == 1


@pytest.fixture
def process(words, tmp_path):
  """Starts ``launch.py``; ends what is left."""
  started = []

  def start(recipe, work, **fields):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    begun = subprocess.Popen(
      [sys.executable, "launch.py", *words(recipe, work, **fields)],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    started.append(begun)
    return begun

  yield start
  for begun in started:
    if begun.poll() is None:
      begun.kill()
      begun.communicate()


@pytest.mark.slow
def test_two_processes_at_once(process, tmp_path):
  """In one folder one ends; in two folders, preparing the same, both do."""
  fields = {"data.dir": tmp_path / "data", "train.epochs": 60}
  one, two = (process("h", tmp_path / "work", **fields) for _ in range(2))
  other = process("h", tmp_path / "other", **fields)
  ends = [p.communicate(timeout=300) for p in (one, two, other)]
  codes = [one.returncode, two.returncode]
  assert other.returncode == 0, ends[2]
  assert sorted(codes) == [0, 1], ends
  error = ends[codes.index(1)][1].splitlines()[-1]
  assert error.startswith("error: ") and str(tmp_path / "work") in error
  lines = read_metrics(tmp_path / "work" / "metrics.jsonl")
  places = [(x["step"], x["split"]) for x in lines]
  assert len(places) == len(set(places))
  for name in ("work", "other"):
    assert not (tmp_path / name / locks.FILE).exists()
  texts = [
    (tmp_path / n / "metrics.jsonl").read_text() for n in ("work", "other")
  ]
  assert texts[0] == texts[1]
  waited = [e for _, e in ends if "another process is preparing" in e]
  assert len(waited) == 2
