"""Decoding in parallel, work files that are used again, lists of problems."""

import csv
import functools
import io
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import helpers
import launch
from data_pipelines import core
from data_pipelines.core import raw


@pytest.fixture
def files(tmp_path):
  for name, text in {"a": "12", "b": "x", "c": "skip", "d": "345"}.items():
    (tmp_path / name).write_text(text)
  return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_decodes_what_can_be_and_lists_the_rest(files, workers):
  work = functools.partial(helpers.decode_number, folder=str(files))
  media = raw.Decoding(work, files / "work", "v1", workers)
  samples = {f"id {n}": n for n in "aebcd"}
  ids, problems = media.decode(samples, "decoding")
  assert ids == ["id a", "id d"]
  assert [media.read(i)["code"].tolist() for i in ids] == [[12], [345]]
  assert {(p.sample, p.kind) for p in problems} == {
    ("id e", raw.MISSING), ("id b", raw.UNDECODABLE), ("id c", raw.SKIPPED)
  }  # fmt: skip
  assert str(files / "e") in problems[0].reason
  assert sorted((files / "calls").read_text()) == list("abcd")
  # Again: only what has no work file, and the same answer.
  (files / "b").write_text("7")
  ids, problems = media.decode(samples, "decoding")
  assert ids == ["id a", "id b", "id d"] and len(problems) == 2
  assert sorted((files / "calls").read_text()) == list("aabbccd"[1:])


def test_other_settings_are_decoded_anew(files):
  work = functools.partial(helpers.decode_number, folder=str(files))
  for settings in ("size 1", "size 2", "size 1"):
    raw.Decoding(work, files / "work", settings).decode({"a": "a"}, "decoding")
  assert (files / "calls").read_text() == "aa"


def test_problems_as_sentences_and_as_a_file():
  problems = [
    raw.Defect("a", raw.MISSING, "there is no file a,1.jpg"),
    raw.Defect("b", raw.UNDECODABLE, 'b.wav: "short"'),
    raw.Defect("c", raw.MISSING, "there is no file c.jpg"),
  ]
  first, second = raw.summary(problems)
  assert first.startswith("2 samples missing") and "a,1.jpg" in first
  assert second.startswith("1 samples cannot be decoded")
  rows = list(csv.DictReader(io.StringIO(raw.table(problems))))
  assert [tuple(r.values()) for r in rows] == [
    (p.sample, p.kind, p.reason) for p in problems
  ]


def test_too_little_is_told_with_all_problems_in_a_file(tmp_path):
  media = raw.Decoding(helpers.decode_number, tmp_path / "name" / "work")
  problems = [raw.Defect(c, raw.MISSING, f"no {c}") for c in "ab"]
  with pytest.raises(core.DataError, match=r"no sample of val, test in here"):
    media.require({"train": [1], "val": [], "test": []}, "here", problems)
  file = tmp_path / "name" / raw.FILE
  assert file.read_text() == raw.table(problems)
  media.clear()
  assert not file.exists()


def test_errors_name_the_file_once(tmp_path):
  path = tmp_path / "cut off.jpg"
  with pytest.raises(FileNotFoundError), raw.named(path):
    pass
  path.write_bytes(b"\xff\xd8")
  with pytest.raises(ValueError, match=f"^{path}: ") as told, raw.named(path):
    Image.open(path)
  assert str(told.value).count("cut off.jpg") == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["interrupted", "killed"])
def test_no_process_outlives_its_parent(files, how):
  """And none of them writes to the screen when a person presses Ctrl-C."""
  (files / "a").write_text("1")
  code = (
    "import functools, pathlib, helpers; from data_pipelines.core import raw\n"
    "import signal\n"
    "if __name__ == '__main__':\n"
    # A shell that runs tests in the background lets them ignore SIGINT; so
    # would the workers, which are started from here.
    "  signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "  work = functools.partial("
    f"helpers.wait_for_file, folder={str(files)!r})\n"
    f"  folder = pathlib.Path({str(files / 'work')!r})\n"
    "  media = raw.Decoding(work, folder, '', 2)\n"
    "  media.decode({str(i): str(i) for i in range(8)}, 'decoding')\n"
  )
  script = files / "script.py"
  script.write_text(code)
  root = pathlib.Path(launch.__file__).parent
  run = subprocess.Popen(
    [sys.executable, script], start_new_session=True, text=True,
    stderr=subprocess.PIPE,
    env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests/support'}"},
  )  # fmt: skip
  # Both workers are at work; one that starts would name the signal, too.
  while len(list(files.glob("at-*"))) < 2:
    assert run.poll() is None
    time.sleep(0.05)
  if how == "killed":
    run.kill()
  else:
    os.killpg(run.pid, signal.SIGINT)
    (files / "go").touch()
  told = run.communicate(timeout=60)[1]  # Workers hold the pipe, too.
  assert told.count("Traceback") == (how == "interrupted"), told
