"""Files that survive a kill, and what is written to a terminal."""

import io
import json
import signal
import struct
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from dmg_jax.tracking.logging import (
  Console,
  MetricsFile,
  mean_std,
  read_metrics,
  write_json,
)


def line(step, **values):
  """A train line."""
  return {"step": step, "epoch": 1, "split": "train", **values}


def fill(folder, steps):
  """Lines 1 to ``steps``."""
  file = MetricsFile(folder)
  for step in range(1, steps + 1):
    file.write(line(step, loss=1 / step))
  return file


def events(folder):
  """All TensorBoard events of a folder, by file and in order."""
  found = []
  for path in sorted(
    folder.glob("events.*"), key=lambda p: p.stat().st_mtime_ns
  ):
    data, at = path.read_bytes(), 0
    while at < len(data):
      (size,) = struct.unpack("<Q", data[at : at + 8])
      found.append(Event.FromString(data[at + 12 : at + 12 + size]))
      at += size + 16
  return found


def test_floats_round_trip(tmp_path):
  values = {
    "third": 1 / 3,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
    "single": np.float32(0.1),
    "array": jnp.float32(0.1),
    "count": np.int64(3),
  }
  file = MetricsFile(tmp_path)
  file.write(line(1, **values))
  (got,) = file.lines()
  file.close()
  for name, value in values.items():
    assert got[name] == value and type(got[name]) in (int, float)


def test_special_floats_are_valid_json(tmp_path):
  values = {"a": float("nan"), "b": float("inf"), "c": -np.inf}
  file = MetricsFile(tmp_path)
  file.write(line(1, **values, note="x"))
  file.close()
  raw = (tmp_path / "metrics.jsonl").read_text()
  stored = json.loads(raw, parse_constant=pytest.fail)
  assert [stored[k] for k in "abc"] == ["NaN", "Infinity", "-Infinity"]
  (got,) = read_metrics(tmp_path / "metrics.jsonl")
  np.testing.assert_array_equal([got[k] for k in "abc"], list(values.values()))
  assert got["note"] == "x"


def test_truncate_after(tmp_path):
  fill(tmp_path, 5).close()
  before = (tmp_path / "metrics.jsonl").read_text().splitlines()
  file = MetricsFile(tmp_path)
  file.truncate_after(3)
  file.write(line(4, loss=9.0))
  file.close()
  after = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert after[:3] == before[:3]
  assert [x["step"] for x in file.lines()] == [1, 2, 3, 4]
  assert [p.name for p in tmp_path.glob("*.part")] == []


@pytest.mark.parametrize("torn", ['{"step": 6, "lo', "{", '{"step": 6}', "\0"])
def test_torn_last_line(tmp_path, torn):
  fill(tmp_path, 5).close()
  path = tmp_path / "metrics.jsonl"
  with path.open("a") as file:
    file.write(torn)
  file = MetricsFile(tmp_path)
  file.truncate_after(5)
  file.write(line(6, loss=0.5))
  file.close()
  assert [x["step"] for x in read_metrics(path)] == [1, 2, 3, 4, 5, 6]
  assert path.read_bytes().endswith(b"}\n")


def test_reader_ignores_a_torn_line_but_no_other(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 1}\n\n{"step": 2}\n{"st')
  assert [x["step"] for x in read_metrics(path)] == [1, 2]
  path.write_text('{"step": 1}\n{"st\n{"step": 2}\n')
  with pytest.raises(ValueError, match="line 2"):
    read_metrics(path)


def test_killed_process_loses_no_line(tmp_path):
  code = (
    "from dmg_jax.tracking.logging import MetricsFile; import time, sys\n"
    f"file = MetricsFile({str(tmp_path)!r})\n"
    "for step in range(3):\n"
    "  file.write({'step': step, 'epoch': 1, 'split': 'train', 'loss': 1.})\n"
    "print('ready', flush=True); time.sleep(60)\n"
  )
  process = subprocess.Popen(
    [sys.executable, "-c", code], stdout=subprocess.PIPE
  )
  assert process.stdout is not None
  process.stdout.readline()
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  assert len(read_metrics(tmp_path / "metrics.jsonl")) == 3


def test_events(tmp_path):
  file = MetricsFile(tmp_path)
  file.write(line(1, loss=0.5, note="x"))
  file.write({"step": 1, "epoch": 1, "split": "val", "fused/accuracy": 0.25})
  file.close()
  values = [
    (v.tag, e.step, v.simple_value)
    for e in events(tmp_path)
    for v in e.summary.value
  ]
  assert values == [("train/loss", 1, 0.5), ("val/fused/accuracy", 1, 0.25)]


def test_resumed_events_take_back_what_was_later(tmp_path):
  fill(tmp_path, 5).close()
  file = MetricsFile(tmp_path)
  file.truncate_after(3)
  file.write(line(4, loss=9.0))
  file.close()
  assert len(list(tmp_path.glob("events.*"))) == 2
  # What TensorBoard does: a START drops all from its step on.
  kept = {}
  for event in events(tmp_path):
    if event.session_log.status == 1:
      kept = {s: v for s, v in kept.items() if s < event.step}
    for value in event.summary.value:
      assert event.step not in kept
      kept[event.step] = value.simple_value
  assert list(kept) == [1, 2, 3, 4] and kept[4] == 9.0


def test_write_json(tmp_path):
  path = tmp_path / "a.json"
  write_json(path, {"old": 1})
  value = {
    "a": np.float32(0.5),
    "b": jnp.arange(3),
    "c": (1, None, True),
    2: float("nan"),
    "d": np.float64("inf"),
  }
  write_json(path, value)
  assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
    "a": 0.5,
    "b": [0, 1, 2],
    "c": [1, None, True],
    "2": "NaN",
    "d": "Infinity",
  }
  with pytest.raises(TypeError, match="no JSON form for set"):
    write_json(path, {"a": {1}})
  assert "Infinity" in path.read_text()
  assert list(tmp_path.iterdir()) == [path]


FACTS = {
  "recipe": "lb",
  "options": {},
  "dataset": "[red]emoji[/red]",
  "splits": {"train": 1079, "val": 200},
  "epochs": 2,
  "workdir": "/runs/" + "x" * 90,
}
SCORE = {"accuracy": 0.5, "map": 0.25, "macro_f1": 1.0, "loss": 1.0}
TEST = {"fused": SCORE, "image": SCORE, "gap": {"accuracy": 0.125}}
RESULT = {
  "recipe": "lb",
  "dataset": "emoji",
  "readout": "R1 split head",
  "test": TEST,
}


def session(console):
  """Two epochs of two steps."""
  console.announce(FACTS)
  with console.progress(4, 0):
    for step in range(1, 5):
      console.advance(
        step, {"loss": 0.5, "cls": 0.25, "weight_norm": 7.0, "alpha": 0.125}
      )
      if step % 2 == 0:
        console.epoch(
          step // 2, {"fused/accuracy": 0.5, "gap/accuracy": 0.1, "x/map": 1.0}
        )
  console.note("done [b]")
  console.results(RESULT)
  console.evaluation("val", TEST)


def test_plain_lines(monkeypatch):
  monkeypatch.setenv("FORCE_COLOR", "1")
  file = io.StringIO()
  session(Console(file=file))
  text = file.getvalue()
  assert not [c for c in text if ord(c) < 32 and c != "\n"]
  lines = [x.rstrip() for x in text.splitlines()]
  assert "dataset  [red]emoji[/red]" in lines
  assert "splits   train 1,079, val 200" in lines
  assert f"workdir  {FACTS['workdir']}" in lines
  assert "options" not in text and "done [b]" in lines
  own = [x for x in lines if x.startswith("epoch ")]
  start = "epoch 2/2 | loss 0.500  alpha 0.125  cls 0.250 | val fused 50.0  gap"
  assert len(own) == 2 and own[1].startswith(start)
  assert "weight_norm" not in text
  (row,) = [x for x in lines if "image (R1 split head)" in x]
  assert row.split("│")[2:5] == ["     50.0 ", " 25.0 ", "    100.0 "]


def test_several_runs():
  file = io.StringIO()
  other = {**TEST, "fused": {**SCORE, "accuracy": 0.52, "map": "NaN"}}
  runs = [RESULT, {**RESULT, "test": other}]
  results = {"recipe": "lb", "dataset": "emoji", "runs": runs}
  Console(file=file).results(results)
  text = file.getvalue()
  assert "of 2 seeds" in text and "51.0 ± 1.4" in text and "nan" in text
  assert mean_std([0.1]) == "10.0" and mean_std([0.1, 0.3]) == "20.0 ± 14.1"


def test_terminal():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  file = Terminal()
  session(Console(file=file))
  text = file.getvalue()
  assert "\x1b[" in text and "4/4" in text and "alpha 0.125" in text
  assert "done [b]" in text and "[red]emoji[/red]" in text


def test_bar_is_taken_down_after_an_error():
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  console = Console(file=Terminal())
  with pytest.raises(RuntimeError), console.progress(4):
    raise RuntimeError
  console.note("still works")


def test_quiet():
  file = io.StringIO()
  session(Console(quiet=True, file=file))
  assert file.getvalue() == ""


def test_import_is_light():
  code = (
    "import sys, dmg_jax.tracking.logging; "
    "heavy = {'jax', 'rich', 'tensorboardX', 'numpy'}; "
    "sys.exit(bool(heavy & set(sys.modules)))"
  )
  subprocess.run([sys.executable, "-c", code], check=True)
