"""One line for the user's errors, another for memory, a traceback for bugs."""

import errno
import json

import jax
import pytest

from dmg_jax import errors
from dmg_jax.cli import failure, modes
from dmg_jax.errors import DataError, DivergedError, InputError, ListedDataError

MEMORY = "RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nBuffer 1: …"
OF_THE_USER = [
  InputError("seeds must lie in [1, 3],\n got 0"),
  DataError("a.csv is damaged"),
  DivergedError("loss is nan at step 3"),
  OSError(errno.ENOSPC, "No space left on device", "runs/x/metrics.jsonl"),
  PermissionError(errno.EACCES, "Permission denied", "runs"),
  # As libraries that write checkpoints say it.
  ValueError("UNAVAILABLE: Error writing \"runs/x\" [OS error 28: ENOSPC No "
             "space left on device]"),
]  # fmt: skip
BUGS = [
  ValueError("an axis is wrong"),
  TypeError("dot_general requires contracting dimensions to have equal shape"),
  RuntimeError("never"),
  KeyError("x"),
]


@pytest.mark.parametrize("error", OF_THE_USER, ids=repr)
def test_one_line(error):
  text = failure.text(error)
  assert text.startswith("error: ") and text.count("\n") == 1
  assert "bug" not in text and "Traceback" not in text
  assert " ".join(str(error).split()) in text


def test_a_line_for_each_problem_with_data():
  text = failure.text(ListedDataError("row 1: bad\nrow 2: bad"))
  assert text.count("\n") == 2 and "bug" not in text


@pytest.mark.parametrize(
  "error", [jax.errors.JaxRuntimeError(MEMORY), MemoryError()], ids=type
)
def test_memory(error):
  text = failure.text(error)
  assert text.startswith("error: out of memory: lower batch_size")
  for field in ("accumulate", "remat", "precision", "sharding", "resident"):
    assert field in text
  assert text.count("\n") == 1 and "image_size" in text and "bug" not in text


# As XLA writes them for a GPU, its allocator, a CPU and a TPU; NumPy.
ASKED = {
  "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 "
  "bytes.": 32,
  "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 32.00GiB.": 32,
  "RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes.": 16,
  "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in "
  "memory space hbm. Used 20.5G of 15.5G hbm. Exceeded hbm capacity by 5.0G.":
  20.5,
  "Unable to allocate 8.00 GiB for an array with shape (1,)": 8,
}  # fmt: skip


@pytest.mark.parametrize(("message", "gib"), ASKED.items())
def test_bytes_asked_for(message, gib):
  error = jax.errors.JaxRuntimeError(message)
  asked, there = errors.memory_asked(error)
  assert asked == gib * 2**30
  assert there == (15.5 * 2**30 if "hbm" in message else None)


def test_memory_says_by_how_much(tiny):
  config = tiny("lb", {"train.batch_size": 64})
  error = jax.errors.JaxRuntimeError(next(iter(ASKED)))
  text = errors.memory_advice(error, config, free=9 * 2**30)
  assert "32 GiB asked for, 9 GiB free" in text
  assert "batch_size from 64 to 16" in text and "accumulate=4" in text
  config = tiny("lb", {"train.accumulate": 4, "precision": "bf16"})
  text = errors.memory_advice(error, config, free=17 * 2**30)
  assert "accumulate=8" in text and "precision" not in text


def test_memory_of_what_the_device_says(monkeypatch):
  stats = {"bytes_limit": 40 * 2**30, "bytes_in_use": 8 * 2**30}
  device = type("Device", (), {"memory_stats": lambda self: stats})
  monkeypatch.setattr(jax, "local_devices", lambda: [device()])
  assert errors.memory_free() == 32 * 2**30


@pytest.mark.parametrize("error", BUGS, ids=repr)
def test_bugs(error):
  try:
    raise error
  except Exception as caught:
    text = failure.text(caught)
  assert text.startswith("Traceback") and "test_failure.py" in text
  assert "This is a bug in dmg_jax" in text and "config.json" in text


@pytest.mark.parametrize(
  "error, said",
  [
    (jax.errors.JaxRuntimeError(MEMORY), "out of memory: lower batch_size"),
    (TypeError("an axis is wrong"), "This is a bug in dmg_jax"),
    (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
  ],
)
def test_command(command, words, tmp_path, monkeypatch, error, said):
  def fails(*args):
    raise error

  monkeypatch.setattr(modes, "run", fails)
  code, _, err = command(*words("joint", tmp_path / "w"))
  assert code == 1 and said in err


def test_a_folder_that_cannot_be_made(command, words, tmp_path):
  (tmp_path / "file").write_text("")
  work = tmp_path / "file" / "run"
  code, _, err = command(*words("joint", work), "--quiet")
  assert code == 1 and err.startswith("error: ") and err.count("\n") == 1
  assert "file" in err


@pytest.mark.parametrize(
  "encoder, options, words_",
  [
    ("i3d.I3D", {"dtype": "x"}, ("dtype", "'x'", "bfloat16")),
    ("resnet.ResNet", {"blocks": (1.5,)}, ("blocks", "whole numbers", "1.5")),
    ("bert.Bert", {"hidden": -1}, ("hidden", "at least 1", "-1")),
    ("bert.Bert", {"types": -1}, ("types", "at least 1", "-1")),
  ],
)
def test_options_of_encoders_are_checked(tiny, encoder, options, words_):
  from dmg_jax.config import compose
  from dmg_jax.training import validation

  config = tiny("joint")
  with config.unlocked():
    config.encoders.image = compose.encoder(encoder, **options)
  with pytest.raises(InputError) as caught:
    validation.check(config)
  assert all(word in str(caught.value) for word in words_)


@pytest.mark.parametrize(
  "error, reason, bug",
  [
    (jax.errors.JaxRuntimeError(MEMORY), "out of memory: lower", False),
    (TypeError("an axis is wrong"), "TypeError: an axis is wrong", True),
    (InputError("a value"), "a value", False),
  ],
)
def test_cells_of_a_table(tmp_path, monkeypatch, error, reason, bug):
  """As the command: a failed cell is noted with a line; of a bug with more."""
  from dmg_jax.tables import grid
  from dmg_jax.tables.cells import TableRun

  said = []
  console = type("Console", (), {"note": lambda self, text: said.append(text)})
  cell = TableRun("joint", 0, tmp_path / "joint" / "seed_0")
  try:
    raise error
  except Exception as caught:
    grid._note_failure(cell, "error", caught, console())
  stored = json.loads(cell.failure.read_text())
  assert stored["status"] == "error" and stored["reason"].startswith(reason)
  assert ("traceback" in stored) == bug
  assert any("this is a bug" in text for text in said) == bug
