"""Folders that cannot be written to: one line; the command goes on later."""

import builtins
import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

import launch
from data_pipelines.core import summary
from data_pipelines.disk import faults
from dmg_jax.errors import InputError, WriteError
from dmg_jax.tracking.logging import MetricsFile, write_json

ROOT = Path(launch.__file__).parent
WORDS = {
  errno.ENOSPC: "no space is left on the device",
  errno.EROFS: "it is read-only",
  errno.EACCES: "not permitted",
  errno.ENOENT: "it was removed or moved",
  errno.EDQUOT: "the disk quota is used up",
}


@pytest.fixture
def broken(monkeypatch):
  """``broken(part, number)``: files whose path has it cannot be written."""

  def begin(part, number):
    opened, made = io.open, os.mkdir

    def refuse(path):
      raise OSError(number, os.strerror(number), str(path))

    def open_(file, mode="r", *args, **kwargs):
      if not isinstance(file, int) and part in str(file) and mode[0] in "wax":
        refuse(file)
      return opened(file, mode, *args, **kwargs)

    def mkdir(path, *args, **kwargs):
      if part in str(path):
        refuse(path)
      return made(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", open_)
    monkeypatch.setattr(io, "open", open_)
    monkeypatch.setattr(os, "mkdir", mkdir)

  return begin


def is_the_line(err, folder, number):
  """Whether the command said what is missing, where, and no more."""
  assert err.startswith("error: cannot write "), err
  assert err.count("\n") == 1 and WORDS[number] in err
  assert str(folder) in err and "run the same command again" in err
  return True


@pytest.mark.parametrize("number", WORDS)
def test_the_line(tmp_path, number):
  with (
    pytest.raises(WriteError) as caught,
    faults.writing(tmp_path, "x.json", "--workdir"),
  ):
    raise OSError(number, os.strerror(number))
  text = str(caught.value)
  assert WORDS[number] in text and str(tmp_path) in text and "x.json" in text
  assert caught.value.errno == number
  lacks_room = number in (errno.ENOSPC, errno.EDQUOT)
  assert ("--workdir" in text) != lacks_room


@pytest.mark.parametrize(
  "error",
  [
    ValueError("UNAVAILABLE: x [OS error 28: ENOSPC No space left on device]"),
    RuntimeError("I/O error: (os error 28)"),
    RuntimeError("a library: No space left on device"),
  ],
)
def test_errors_of_libraries(tmp_path, error):
  with (
    pytest.raises(WriteError, match="no space"),
    faults.writing(tmp_path, ""),
  ):
    raise error


def test_causes_are_read(tmp_path):
  with (
    pytest.raises(WriteError, match="read-only"),
    faults.writing(tmp_path, "x"),
  ):
    raise RuntimeError("x") from OSError(errno.EROFS, "")


@pytest.mark.parametrize(
  "error",
  [
    KeyError("x"),
    OSError("handle is closed"),
    InputError("x"),
    # A file that the block reads.
    FileNotFoundError(errno.ENOENT, "", "elsewhere/picture.png"),
  ],
)
def test_other_errors_pass(tmp_path, error):
  with pytest.raises(type(error)) as caught, faults.writing(tmp_path, "x"):
    raise error
  assert caught.value is error


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
  write_json(tmp_path / "a.json", {"x": 1})

  def full(number):
    raise OSError(errno.ENOSPC, "")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(WriteError, match=r"a\.json"):
    write_json(tmp_path / "a.json", {"x": 2})
  assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
  assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1}


@pytest.mark.parametrize("gone", ["removed", "moved", "replaced"])
def test_metrics_that_nobody_would_see(tmp_path, gone):
  work = tmp_path / "work"
  file = MetricsFile(work)
  line = {"step": 1, "epoch": 1, "split": "train", "loss": 1.0}
  file.write(line)
  if gone == "moved":
    work.rename(tmp_path / "other")
  else:
    shutil.rmtree(work)
  if gone == "replaced":
    MetricsFile(work).close()
  with pytest.raises(WriteError, match="removed or moved"):
    file.write(line)
  file.close()


POINTS = [
  ("config.json", errno.EACCES),
  ("metrics.jsonl", errno.EROFS),
  ("events.out", errno.ENOSPC),
  ("checkpoints", errno.EROFS),
  ("checksums.json", errno.ENOSPC),  # In the thread that writes.
  ("test_predictions.npz", errno.ENOSPC),
  ("results.json", errno.EDQUOT),
  ("classes.pdf", errno.EACCES),
  ("report.html", errno.ENOENT),
]


@pytest.mark.parametrize("part, number", POINTS, ids=[p for p, _ in POINTS])
def test_points_of_a_run(
  straight, command, words, tmp_path, broken, part, number
):
  straight("joint")  # Compiles.
  work = tmp_path / "work"
  broken(part, number)
  code, _, err = command(*words("joint", work), "--quiet")
  assert code == 1 and is_the_line(err, work, number)
  assert not list(work.rglob("*.part"))


@pytest.mark.parametrize("part", ["events.out", "checksums.json"])
def test_goes_on_when_there_is_room(
  straight, command, words, tmp_path, broken, monkeypatch, part
):
  alone, work = straight("joint"), tmp_path / "work"
  with monkeypatch.context() as patch:
    patch.setattr(threading, "excepthook", lambda *args: None)
    broken(part, errno.ENOSPC)
    assert command(*words("joint", work), "--quiet")[0] == 1
  monkeypatch.undo()
  monkeypatch.chdir(ROOT)
  code, _, err = command(*words("joint", work), "--quiet")
  assert (code, err) == (0, "")
  lines = (alone / "metrics.jsonl").read_bytes()
  assert (work / "metrics.jsonl").read_bytes() == lines


def test_what_is_in_the_way_of_seeds(command, words, tmp_path, broken, quick):
  del quick
  broken("seeds.json", errno.ENOSPC)
  code, _, err = command(*words("joint,seeds=2", tmp_path / "w"), "--quiet")
  assert code == 1 and is_the_line(err, tmp_path / "w", errno.ENOSPC)


def test_prepare(command, pairs, tmp_path, broken):
  fields = {**pairs[1], "data.dir": str(tmp_path / "data")}
  given = [f"--config.{k}={v}" for k, v in fields.items() if "data." in k]
  broken(summary.FILE, errno.ENOSPC)
  arguments = ("--config=configs/manifest.py:h", "--mode=prepare", *given)
  code, _, err = command(*arguments)
  assert code == 1 and is_the_line(err, tmp_path / "data", errno.ENOSPC)
  left = [p for p in (tmp_path / "data").rglob("*") if p.is_file()]
  assert not left


OF_A_RUN = [
  ("evaluate", "evaluation_test.json", errno.EACCES),
  ("predict", "predictions_test.csv", errno.ENOSPC),
  ("export", "predictor.json", errno.EDQUOT),
  ("report", "report.html", errno.EACCES),
]


@pytest.mark.parametrize(
  "mode, part, number", OF_A_RUN, ids=[p for _, p, _ in OF_A_RUN]
)
def test_points_of_other_modes(
  straight, command, words, tmp_path, broken, mode, part, number
):
  shutil.copytree(straight("joint"), tmp_path / "work")
  work = tmp_path / "work"
  broken(part, number)
  code, _, err = command(*words("joint", work), f"--mode={mode}", "--quiet")
  assert code == 1 and is_the_line(err, work, number)


def test_an_encoder_whose_folder_is_full(tmp_path, monkeypatch):
  """What an earlier export wrote stays."""
  import safetensors.numpy

  from dmg_jax.model.encoders import pretrained

  tensors, folder = {"w": np.ones(3)}, tmp_path / "image"
  pretrained.write_tensors(folder, tensors, {"name": "x"})

  def full(*args, **kwargs):
    raise safetensors.SafetensorError("No space left on device (os error 28)")

  monkeypatch.setattr(safetensors.numpy, "save_file", full)
  with (
    pytest.raises(WriteError, match="no space"),
    faults.writing(folder, "the encoder of image"),
  ):
    pretrained.write_tensors(folder, tensors, {"name": "y"})
  assert [p.name for p in tmp_path.iterdir()] == ["image"]
  found = json.loads((folder / pretrained.CONFIG).read_text())
  assert found == {"name": "x"}


def test_a_checkpoint_that_orbax_cannot_write(
  straight, command, words, tmp_path, monkeypatch
):
  del straight

  def full(*args, **kwargs):
    raise ValueError("[OS error 28: ENOSPC No space left on device]")

  monkeypatch.setattr(ocp.CheckpointManager, "save", full)
  code, _, err = command(*words("joint", tmp_path / "w"), "--quiet")
  where = tmp_path / "w" / "checkpoints"
  assert code == 1 and is_the_line(err, where, errno.ENOSPC)


def test_a_folder_that_is_removed(
  straight, command, words, tmp_path, monkeypatch
):
  """Nothing is written to another folder of that name."""
  del straight
  from dmg_jax.training.loop import Trainer

  original, work = Trainer._end_epoch, tmp_path / "w"

  def end_epoch(self, state, epoch):
    if epoch == 1:
      self.replicas[0].checkpoints.best()  # Waits for what is being written.
      shutil.rmtree(work)
    return original(self, state, epoch)

  monkeypatch.setattr(Trainer, "_end_epoch", end_epoch)
  code, _, err = command(*words("joint", work), "--quiet")
  assert code == 1 and is_the_line(err, work, errno.ENOENT)
  assert not work.exists()


@pytest.fixture
def small(tmp_path):
  """A file system of its own: ``small(size)``; again for another size."""
  place = tmp_path / "small"
  place.mkdir()

  def sized(size):
    option = "remount,size" if place.is_mount() else "size"
    done = subprocess.run(
      ["mount", "-t", "tmpfs", "-o", f"{option}={size}", "tmpfs", str(place)],
      capture_output=True,
      check=False,
    )
    return place if done.returncode == 0 else None

  yield sized
  if place.is_mount():
    subprocess.run(["umount", "-l", str(place)], check=False)


def _limited(size):
  """Without the right to mount: no file may be larger."""
  import resource
  import signal

  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.slow
@pytest.mark.parametrize("kib", [220, 420])
def test_full_disk(words, tmp_path, small, kib):
  """As a process: it ends, says why, and goes on to the end of another."""
  place = small(f"{kib}k")
  work = (place or tmp_path) / "work"
  fields = {"train.epochs": 100, "train.log_steps": 1}

  def start(work, limit):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return subprocess.run(
      [sys.executable, "launch.py", *words("h", work, **fields), "--quiet"],
      cwd=ROOT,
      env=environment,
      capture_output=True,
      text=True,
      timeout=300,
      check=False,
      preexec_fn=None if place or not limit else lambda: _limited(80 * kib),
    )

  begin = time.monotonic()
  done = start(work, True)
  assert time.monotonic() - begin < 120
  assert done.returncode == 1, done.stderr
  number = errno.ENOSPC if place else errno.EFBIG
  assert done.stderr.startswith("error: cannot write "), done.stderr
  assert done.stderr.count("\n") == 1 and str(work) in done.stderr
  assert faults._FAULTS[number][0] in done.stderr
  small("64m")
  again, alone = start(work, False), start(tmp_path / "alone", False)
  assert (again.returncode, again.stderr) == (0, "")
  assert (alone.returncode, alone.stderr) == (0, "")
  for name in ("metrics.jsonl", "results.json"):
    a, b = ((w / name).read_text() for w in (work, tmp_path / "alone"))
    if name == "results.json":
      a, b = json.loads(a), json.loads(b)
      a["timing"] = b["timing"] = 0
    assert a == b
