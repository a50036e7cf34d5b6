"""The accelerator kit: limits, pages, and to its end on a CPU."""

import json
import os
import subprocess
import sys
import time

import pytest

from benchmarks.accelerator import (
  needs,
  page,
  peaks,
  plan,
  resume,
  says,
  stages,
)

SAYS = "from benchmarks.accelerator.says import say; say('one', value=1)"


def stage(name, code, weight=1.0, **options):
  return stages.Stage(name, ("-c", code), weight, **options)


def test_a_stage_that_fails_or_hangs_does_not_end_the_others(tmp_path):
  hangs = f"{SAYS}; import time; time.sleep(600)"
  begin = time.monotonic()
  found = stages.run_all(
    [
      stage("fails", "raise SystemExit('no such card')"),
      stage("hangs", hangs),
      stage("left out", SAYS, reason="no torch"),
      stage("works", SAYS),
    ],
    tmp_path,
    24,
  )
  assert time.monotonic() - begin < 24
  told = {s["stage"]: (s["status"], s["why"]) for s in found}
  assert told["fails"] == (stages.FAILED, "no such card")
  assert told["hangs"][0] == stages.LATE
  assert told["left out"] == (stages.SKIPPED, "no torch")
  assert told["works"][0] == stages.OK
  # What a stage said before its end is kept.
  assert found[1]["entries"] == [{"name": "one", "value": 1}]


@pytest.mark.slow
def test_what_a_stage_started_ends_with_it(tmp_path):
  child = "import time; time.sleep(600)"
  code = (
    "import subprocess, sys, time; from benchmarks.accelerator.says import say;"
    f"p = subprocess.Popen([sys.executable, '-c', {child!r}]);"
    "say('child', id=p.pid); time.sleep(600)"
  )
  found = stages.run(stage("parent", code), tmp_path, 5)
  number = found["entries"][0]["id"]
  deadline = time.monotonic() + 10
  while _alive(number):
    assert time.monotonic() < deadline
    time.sleep(0.1)


def _alive(number):
  try:
    with open(f"/proc/{number}/stat") as file:
      return file.read().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


def test_a_later_result_replaces_and_a_half_one_is_left_out():
  lines = ['#result {"name": "a", "x": 1}\n', "noise\n"]
  lines += ['#result {"name": "a", "x": 2}\n', '#result {"name": "b"']
  assert says.heard(lines) == [{"name": "a", "x": 2}]


@pytest.mark.parametrize(
  "kind, bf16",
  [
    ("NVIDIA H200", 989.4),
    ("NVIDIA H100 80GB HBM3", 989.4),
    ("NVIDIA H100 PCIe", 756.0),
    ("NVIDIA A100-SXM4-80GB", 312.0),
    ("NVIDIA L40S", 362.0),
    ("NVIDIA L400", None),
    ("cpu", None),
  ],
)
def test_peaks_by_the_device_s_name(kind, bf16):
  assert peaks.peak(kind, "bf16", None) == bf16
  assert peaks.peak(kind, "float32", 100.0) == 50.0


def test_what_is_missing_is_one_line(monkeypatch):
  assert needs.line() == ""
  monkeypatch.setattr(needs, "_there", lambda name: name not in ("flax", "jax"))
  line = needs.line()
  assert "flax>=" in line and "--wheels=FOLDER" in line and "\n" not in line


def write(folder, alpha, seconds):
  folder.mkdir()
  lines = [{"step": 10, "loss": 1.0}, {"step": 20, "alpha": alpha}]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (folder / "metrics.jsonl").write_text(text)
  results = {"seed": 0, "timing": {"seconds": seconds}}
  (folder / "results.json").write_text(json.dumps(results))


def test_runs_that_differ_say_where(tmp_path, monkeypatch):
  monkeypatch.setattr(resume, "_arrays_differ", lambda one, other: [])
  for name, alpha in (("a", 0.25), ("b", 0.25), ("c", 0.5)):
    write(tmp_path / name, alpha, seconds=alpha)
  assert resume.differences(tmp_path / "a", tmp_path / "b") == []
  (found,) = resume.differences(tmp_path / "a", tmp_path / "c")
  assert found == "step 20, alpha: 0.25, and 0.5"


def test_a_page_is_made_of_nothing():
  """Of a machine on which even the first stage fails."""
  failed = {"stage": "device", "status": stages.FAILED, "seconds": 0.1}
  failed |= {"limit": 60.0, "why": "No module named 'jax'", "entries": []}
  result = {"quick": False, "seconds": 1.0, "missing": "", "stages": [failed]}
  text = page.page(result)
  assert "No module named 'jax'" in text
  assert "JAX could not tell the device" in text


def test_a_card_gets_all_stages(tmp_path):
  names = {s.name for s in plan.stages("gpu", False, None, tmp_path)}
  for name in plan.NAMES:
    for precision in plan.PRECISIONS:
      for part in ("training", "hypergradient"):
        assert f"{part}, {name}, {precision}" in names
  tests = [s for s in plan.stages("gpu", False, None, tmp_path)
           if s.name.startswith("tests")]  # fmt: skip
  assert all(s.environment["DMG_TEST_DEVICE"] == "gpu" for s in tests)
  assert not any(s.reason for s in tests)


@pytest.mark.slow
def test_quick_runs_to_its_end_on_a_cpu(tmp_path):
  environment = {**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"}
  # What it compiles stays in its own folder.
  environment.pop("JAX_ENABLE_COMPILATION_CACHE", None)
  done = subprocess.run(
    ["bash", "benchmarks/accelerator.sh", "--quick", f"--out={tmp_path}"],
    cwd=stages.ROOT,
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  result = json.loads((tmp_path / "accelerator.json").read_text())
  ended = {s["stage"]: s["status"] for s in result["stages"]}
  assert set(ended.values()) <= {stages.OK, stages.SKIPPED}
  entries = {s["stage"]: s["entries"] for s in result["stages"]}
  (resumed,) = entries["resumed, deterministic flags"]
  assert resumed["stopped"] and resumed["equal"]
  (tests,) = entries["tests, float32 products"]
  assert tests["passed"] and not tests["failed"]
  text = (tmp_path / "accelerator.md").read_text()
  assert "There was no accelerator" in text
  assert "## Hypergradients" in text
