"""Damaged checkpoints are found, told and not trained on."""

import json
import shutil

import pytest

from data_pipelines.disk import checksums
from dmg_jax.errors import DamagedError
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import checkpoint, experiment, restore, runner
from dmg_jax.training.checkpoint import Checkpoints
from dmg_jax.training.loop import Trainer

QUIET = Console(quiet=True)
FIELDS = {"train.epochs": 4, "train.checkpoint_steps": 7}


class Said(Console):
  """Keeps what is said."""

  def __init__(self):
    super().__init__(quiet=True)
    self.lines = []

  def note(self, what):
    self.lines.append(str(what))


def cut(path):
  """As after a power cut: the largest file is half as long."""
  largest = max(
    (p for p in path.rglob("*") if p.is_file() and p.name != checksums.FILE),
    key=lambda p: p.stat().st_size,
  )
  halve(largest)


def halve(path):
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def flip(path):
  """One bit of the weights."""
  files = [p for p in (path / "default").rglob("d/*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(bytes(data))


def lose(path):
  """A file is missing."""
  (path / "default" / "manifest.ocdbt").unlink()


def scribble(path):
  """Metrics that are unreadable."""
  (path / "metrics" / "metrics").write_bytes(b"\0" * 20)


def empty(path):
  """All files are empty."""
  for file in path.rglob("*"):
    if file.is_file():
      file.write_bytes(b"")


DAMAGE = [
  flip,
  *(
    pytest.param(f, marks=pytest.mark.slow)
    for f in (cut, lose, scribble, empty)
  ),
]


@pytest.fixture
def begun(quick, tiny, tmp_path, monkeypatch):
  """A run of four epochs that was killed in the fourth; config and folder."""
  del quick
  config, work = tiny("joint", FIELDS), tmp_path / "work"
  original = Trainer._save

  def save(self, state):
    if self.step == 49:
      raise KeyboardInterrupt
    original(self, state)

  with monkeypatch.context() as patch:
    patch.setattr(Trainer, "_save", save)
    patch.setattr(Trainer, "_due", lambda self: True)
    with pytest.raises(KeyboardInterrupt):
      runner.run(config, work, QUIET)
  return config, work


@pytest.fixture(scope="module")
def alone(quick, tiny, tmp_path_factory):
  """The folder of the same run, never stopped."""
  del quick
  work = tmp_path_factory.mktemp("alone") / "work"
  runner.run(tiny("joint", FIELDS), work, QUIET)
  return work


def assert_ends_as(work, other):
  """Logged lines, results, and the checkpoints that stay."""
  lines = (other / "metrics.jsonl").read_bytes()
  assert (work / "metrics.jsonl").read_bytes() == lines
  a, b = (json.loads((w / "results.json").read_text()) for w in (work, other))
  assert {**a, "timing": 0} == {**b, "timing": 0}
  assert not list((work / "checkpoints").glob("aside*"))
  assert max(checkpoint.saved(work)) == max(checkpoint.saved(other))


def best_of(work):
  lines = read_metrics(work / "metrics.jsonl")
  scores = [
    (x["fused/accuracy"], x["step"]) for x in lines if x["split"] == "val"
  ]
  return max(s for s in scores if s[1] in checkpoint.saved(work))[1]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_the_last_is_damaged(begun, alone, damage):
  config, work = begun
  steps = sorted(checkpoint.saved(work))
  assert len(steps) > 1
  damage(work / "checkpoints" / str(steps[-1]))
  if (
    damage is scribble
    and not (work / "checkpoints" / str(steps[-1]) / "metrics").exists()
  ):
    pytest.skip("the last has no metrics")
  said = Said()
  assert runner.run(config, work, said) is not None
  (line,) = [x for x in said.lines if "is damaged (" in x]
  assert line.startswith(f"warning: checkpoint {steps[-1]} of {work}")
  assert f"resumed at step {steps[-2]} of 60" in said.lines
  assert_ends_as(work, alone)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip, scribble], ids=lambda f: f.__name__)
def test_the_best_is_damaged_and_made_again(begun, alone, damage):
  """The run goes back to before it and ends with the same best."""
  config, work = begun
  steps, best = sorted(checkpoint.saved(work)), best_of(begun[1])
  before = max((s for s in steps if s < best), default=0)
  damage(work / "checkpoints" / str(best))
  said = Said()
  runner.run(config, work, said)
  assert [x for x in said.lines if f"checkpoint {best} of" in x]
  assert not before or f"resumed at step {before} of 60" in said.lines
  assert_ends_as(work, alone)


def test_none_is_left(begun):
  config, work = begun
  for step in checkpoint.saved(work):
    cut(work / "checkpoints" / str(step))
  there = checkpoint.saved(work)
  with pytest.raises(DamagedError) as caught:
    runner.run(config, work, QUIET)
  text = str(caught.value)
  assert "no whole checkpoint is left" in text and "delete that folder" in text
  assert "\n" not in text and str(work) in text
  assert checkpoint.saved(work) == there  # Nothing was touched.
  shutil.rmtree(work / "checkpoints")
  assert runner.run(config, work, QUIET) is not None


def test_older_checkpoints_have_no_checksums(begun, alone):
  config, work = begun
  for file in work.rglob(checksums.FILE):
    file.unlink()
  steps = sorted(checkpoint.saved(work))
  folders = [work / "checkpoints" / str(s) for s in steps]
  assert [checkpoint.problem(f) for f in folders] == [None] * len(folders)
  # All of them: of a single one it may be that no array is read from it.
  for file in folders[-1].rglob("d/*"):
    halve(file)
  said = Said()
  runner.run(config, work, said)
  assert [x for x in said.lines if f"checkpoint {steps[-1]} of" in x]
  assert_ends_as(work, alone)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_readers_take_no_other(alone, tmp_path, damage, command, words):
  """Of a finished run: one line, whatever reads it."""
  work = tmp_path / "work"
  shutil.copytree(alone, work)
  results = json.loads((work / "results.json").read_text())
  step = results["selected_step"]
  damage(work / "checkpoints" / str(step))
  for mode in ("evaluate", "export"):
    code, _, err = command(
      *words("joint", work, **FIELDS), f"--mode={mode}", "--quiet"
    )
    assert code == 1 and err.count("\n") == 1, err
    assert f"checkpoint {step}" in err and "damaged" in err
    assert str(work) in err
  assert step in checkpoint.saved(work)  # A reader moves nothing.


def test_a_damaged_one_is_not_restored(begun):
  config, work = begun
  step = max(checkpoint.saved(work))
  flip(work / "checkpoints" / str(step))
  like = experiment.assemble(config).fresh()
  checkpoints = Checkpoints(work, readonly=True)
  with pytest.raises(DamagedError, match="has changed"):
    checkpoints.restore(step, like)
  checkpoints.close()


def test_readers_leave_what_is_being_written(begun):
  """A reader beside a process that trains removes no half-written one."""
  _, work = begun
  half = work / "checkpoints" / "58.orbax-checkpoint-tmp"
  half.mkdir()
  Checkpoints(work, readonly=True).close()
  assert half.is_dir()
  Checkpoints(work).close()
  assert not half.exists()


def test_a_reader_tries_again(begun, monkeypatch):
  """What it has chosen may be removed by the process that trains."""
  config, work = begun
  last, setup = max(checkpoint.saved(work)), experiment.assemble(config)
  state, calls = setup.fresh(), []

  def chosen(folder, setup):
    calls.append(folder)
    if len(calls) == 1:
      shutil.rmtree(work / "checkpoints" / str(last))
      raise FileNotFoundError(last)
    return state

  monkeypatch.setattr(restore, "_chosen", chosen)
  assert restore.chosen(work, setup) is state and len(calls) == 2
  calls.clear()

  def fails(folder, setup):
    calls.append(folder)
    raise ValueError("it does not fit")

  monkeypatch.setattr(restore, "_chosen", fails)
  with pytest.raises(ValueError, match="does not fit"):
    restore.chosen(work, setup)
  assert len(calls) == 1


def test_checksums(tmp_path):
  (tmp_path / "a").mkdir()
  (tmp_path / "a" / "x").write_bytes(b"123")
  (tmp_path / "late").write_bytes(b"")
  checksums.write(tmp_path, ["late"])
  (tmp_path / "late").write_bytes(b"more")
  assert checksums.problem(tmp_path) is None
  (tmp_path / "a" / "x").write_bytes(b"124")
  assert checksums.problem(tmp_path) == "a/x has changed"
  assert checksums.problem(tmp_path, "b") is None
  (tmp_path / "a" / "x").write_bytes(b"12")
  assert checksums.problem(tmp_path) == "a/x has 2 bytes instead of 3"
  shutil.rmtree(tmp_path / "a")
  assert checksums.problem(tmp_path) == "a/x is missing"
  (tmp_path / checksums.FILE).write_text("{")
  assert "unreadable" in (checksums.problem(tmp_path) or "")
