"""Real processes make one run together, as one process would.

They are equal up to rounding: sums over a batch are taken in another order.
``TOLERANCE`` is relative, and absolute for numbers below 1, in every metric of
a few epochs. (Measured: 1e-4 over all recipes.)
"""

import json
import math
import os
import signal

import pytest

import helpers
import process_group
from dmg_jax.tracking.logging import read_metrics
from dmg_jax.training import checkpoint

TOLERANCE = 1e-3
# State, gradients, an order with hooks between epochs.
FOUR = ("lb", "ogm_ge", "bss")
# And heads in turns, rates, teachers, calibration, chances of samples.
EIGHT = (*FOUR, "joint", "mla", "gblend", "g2d", "cpsc")
LB = "--config=configs/manifest.py:lb,batch_size=8"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
  folder = tmp_path_factory.mktemp("together")
  return helpers.write_manifest(
    folder,
    96,
    ("one:array", "two:array"),
    splits=("train", "train", "val", "train", "outer", "test"),
  )


@pytest.fixture(scope="module")
def alone(manifest, tmp_path_factory):
  """``folder(recipes)`` of runs by one process, each made once."""
  folder = tmp_path_factory.mktemp("alone")

  def make(recipes):
    missing = [r for r in recipes if not (folder / r).exists()]
    if missing:
      worked(1, manifest, folder, missing)
    return folder

  return make


def worked(count, manifest, folder, recipes):
  """Trains recipes by ``count`` processes of ``several_worker.py``."""
  address = f"127.0.0.1:{process_group.free_port()}"
  script = process_group.ROOT / "tests/support/several_worker.py"
  group = process_group.Group(
    [[script, address, count, i, manifest, folder, *recipes]
     for i in range(count)],
    folder / "output",
    # Most of the time is compilation of what runs twelve times.
    variables=[{"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}] * count,
  )  # fmt: skip
  assert group.wait() == [0] * count, group.texts()


def assert_alike(folder, other):
  """Lines of two runs: the same ones once each, equal up to rounding."""
  lines = read_metrics(folder / "metrics.jsonl")
  others = read_metrics(other / "metrics.jsonl")
  assert [(x["step"], x["split"]) for x in lines] == [
    (x["step"], x["split"]) for x in others
  ]
  for line, wanted in zip(lines, others, strict=True):
    assert line.keys() == wanted.keys()
    for name in line.keys() - {"split"}:
      assert math.isclose(
        line[name], wanted[name], rel_tol=TOLERANCE, abs_tol=TOLERANCE
      ), (name, line, wanted)
  assert len(list(folder.glob("events.*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
  ("count", "recipes"),
  [(2, EIGHT), (4, FOUR)],
  ids=["two", "four"],
)
def test_recipes(count, recipes, manifest, alone, tmp_path):
  worked(count, manifest, tmp_path, recipes)
  wanted = alone(recipes)
  for recipe in recipes:
    assert_alike(tmp_path / recipe, wanted / recipe)


@pytest.mark.slow
def test_lb_by_the_command(manifest, alone, tmp_path):
  """The flags, the files of one writer, evaluation by two."""
  words = [LB + ",epochs=2", *process_group.fields(manifest, tmp_path / "run")]
  words += ["--config.eval.batch_size=8", "--config.train.log_steps=1"]
  group = process_group.launched(2, tmp_path / "output", *words)
  assert group.wait() == [0, 0], group.texts()
  first, second = group.texts()
  assert "epoch 2/2" in first and "report:" in first and not second
  assert_alike(tmp_path / "run", alone(["lb"]) / "lb")
  results = json.loads((tmp_path / "run" / "results.json").read_text())
  assert results["epochs"] == 2 and "test" in results


@pytest.mark.slow
def test_weights_divided_over_processes(manifest, alone, tmp_path):
  """With batches in parts; and the run goes on in one process, undivided."""
  words = [LB + ",epochs=2", *process_group.fields(manifest, tmp_path / "run")]
  words += ["--config.eval.batch_size=8", "--config.train.log_steps=1"]
  words += ["--config.train.accumulate=2"]
  divided = [*words, "--config.sharding=fsdp"]
  group = process_group.launched(2, tmp_path / "output", *divided)
  assert group.wait() == [0, 0], group.texts()
  assert_alike(tmp_path / "run", alone(["lb"]) / "lb")
  (tmp_path / "run" / "results.json").unlink()
  group = process_group.launched(1, tmp_path / "again", *words)
  assert group.wait() == [0], group.texts()
  assert (tmp_path / "run" / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_is_killed(victim, manifest, tmp_path):
  """The other ends with one line, and the same commands go on."""
  run = tmp_path / "run"
  words = [LB + ",epochs=6", *process_group.fields(manifest, run)]
  group = process_group.launched(2, tmp_path / "killed", *words)
  process_group.until(lambda: checkpoint.saved(run))
  group.processes[victim].kill()
  codes = group.wait()
  assert codes[victim] == -signal.SIGKILL
  assert codes[1 - victim] == 1
  told = group.texts()[1 - victim].splitlines()
  assert [x for x in told if "error" in x] == [told[-1]]
  assert told[-1].startswith(f"error: process {victim} of 2 ended before")
  group = process_group.launched(2, tmp_path / "again", *words)
  assert group.wait() == [0, 0], group.texts()
  assert "resumed at step" in group.texts()[0]
  whole = tmp_path / "whole"
  straight = [LB + ",epochs=6", *process_group.fields(manifest, whole)]
  assert process_group.launched(1, tmp_path / "out", *straight).wait() == [0]
  assert_lines_once(run, whole)


def assert_lines_once(run, other):
  lines, wanted = (
    [(x["step"], x["split"]) for x in read_metrics(f / "metrics.jsonl")]
    for f in (run, other)
  )
  assert lines == wanted
  assert len(set(lines)) == len(lines)


@pytest.mark.slow
def test_on_another_number_of_processes(manifest, tmp_path):
  """Two, one, two: a signal to any stops all in one step."""
  run, whole = tmp_path / "run", tmp_path / "whole"
  words = [LB + ",epochs=12", "--config.eval.batch_size=8"]
  log = run / "metrics.jsonl"
  for count, epoch in ((2, 2), (1, 5)):
    group = process_group.launched(
      count,
      tmp_path / f"output{epoch}",
      *words,
      *process_group.fields(manifest, run),
    )
    process_group.until(
      lambda e=epoch: log.exists() and f'"epoch": {e}' in log.read_text()
    )
    os.kill(group.processes[-1].pid, signal.SIGTERM)
    assert group.wait() == [0] * count, group.texts()
    assert "stopped by a signal" in group.texts()[0]
    assert not (run / "results.json").exists()
  for count, folder in ((2, run), (1, whole)):
    fields = process_group.fields(manifest, folder)
    group = process_group.launched(
      count, tmp_path / f"output_{count}", *words, *fields
    )
    assert group.wait() == [0] * count, group.texts()
  assert_alike_but_events(run, whole)


def assert_alike_but_events(run, whole):
  for extra in sorted(run.glob("events.*"))[1:]:
    extra.unlink()  # A resumed run has one for each start.
  assert_alike(run, whole)


@pytest.mark.slow
def test_a_table_and_its_readouts(manifest, tmp_path):
  """Cells, seeds, a row that does not suit the data, read-outs; done once."""
  words = [
    "--config=configs/tables.py:table1,dataset=manifest,seeds=2,epochs=2,"
    "batch_size=8,rows=joint+lb",
    *process_group.fields(manifest, tmp_path / "table"),
  ]
  group = process_group.launched(2, tmp_path / "output", *words)
  assert group.wait() == [0, 0], group.texts()
  table = json.loads((tmp_path / "table" / "table.json").read_text())
  group = process_group.launched(
    2, tmp_path / "readouts", *words, "--mode=readouts"
  )
  assert group.wait() == [0, 0], group.texts()
  for row in ("joint", "lb"):
    for seed in (0, 1):
      folder = tmp_path / "table" / row / f"seed_{seed}"
      assert (folder / "results.json").exists()
      assert (folder / "readouts.json").exists()
      assert_lines_once(folder, folder)
  assert table


@pytest.mark.slow
def test_a_wrong_config_is_one_line_of_each(manifest, tmp_path):
  words = [LB + ",epochs=2", *process_group.fields(manifest, tmp_path / "run")]
  group = process_group.launched(
    2, tmp_path / "output", *words, "--config.train.batch_size=7"
  )
  assert group.wait() == [1, 1]
  for index, text in enumerate(group.texts()):
    assert text.count("\n") == 1
    assert text.startswith(f"process {index} of 2: error: a batch of 7 cannot")
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_torchrun_variables(manifest, tmp_path):
  """``--distributed=auto`` under a launcher like torchrun."""
  words = [LB + ",epochs=1", *process_group.fields(manifest, tmp_path / "run")]
  port = process_group.free_port() - 1
  variables = [
    {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    | {"RANK": str(i), "LOCAL_RANK": str(i)}
    for i in range(2)
  ]
  commands = [["launch.py", *words, "--distributed=auto"]] * 2
  group = process_group.Group(
    commands, tmp_path / "output", variables=variables
  )
  assert group.wait() == [0, 0], group.texts()
  assert (tmp_path / "run" / "results.json").exists()
