"""Several seeds in one vmapped step: each is the run of its seed alone."""

import json
import shutil
import signal

import numpy as np
import pytest

from dmg_jax.errors import DivergedError
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import checkpoint, experiment, runner, seeds
from dmg_jax.training.checkpoint import Checkpoints
from dmg_jax.training.loop import Trainer

QUIET = Console(quiet=True)
ON = "seeds=2,vmap_seeds=on"
LB = "lb,inner_iters=7,iterations=1"
# float32, 30 steps: rounding grows along the way.
RTOL, ATOL = 2e-3, 2e-4


def lines(work, seed):
  return read_metrics(work / f"seed_{seed}" / "metrics.jsonl")


def results(work):
  return json.loads((work / "results.json").read_text())


def assert_alike(work, other, seed):
  """Losses and alpha of a replica are those of the run at ``other``."""
  there = read_metrics(other / "metrics.jsonl")
  assert len(lines(work, seed)) == len(there)
  for a, b in zip(lines(work, seed), there, strict=True):
    assert list(a) == list(b)
    for name in a.keys() & {"step", "epoch", "loss", "alpha", "fused/loss"}:
      np.testing.assert_allclose(a[name], b[name], RTOL, ATOL, err_msg=name)


def test_replica_is_the_run_alone(straight):
  work = straight(f"{LB},{ON}")
  assert_alike(work, straight(LB), 0)
  assert [r["seed"] for r in results(work)["runs"]] == [0, 1]
  for run in results(work)["runs"]:
    assert run["timing"]["seeds_at_once"] == 2 and len(run["alpha"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
  "recipe", [
    "bss", "lb_forward,inner_iters=7",
    "umt,teacher_epochs=1,schedule=plateau",
    "joint,sampler=balanced,class_weights=balanced",
  ],
)  # fmt: skip
def test_each_replica_is_the_run_alone(straight, tiny, tmp_path, recipe):
  work = straight(f"{recipe},{ON}")
  for seed in (0, 1):
    alone = tmp_path / str(seed)
    runner.run(tiny(f"{recipe},seed={seed}"), alone, QUIET)
    assert_alike(work, alone, seed)
    own, there = results(work)["runs"][seed], results(alone)
    assert own["epochs"] == there["epochs"] and own["seed"] == seed
    np.testing.assert_allclose(own["alpha"], there["alpha"], RTOL, ATOL)


def test_each_has_its_own_shuffle_and_best(straight):
  work = straight(f"{LB},{ON}")
  losses = [[x["loss"] for x in lines(work, s) if "loss" in x] for s in (0, 1)]
  assert not set(losses[0]) & set(losses[1])
  for seed, run in enumerate(results(work)["runs"]):
    folder = work / f"seed_{seed}"
    val = [x for x in lines(work, seed) if x["split"] == "val"]
    best = max((x["fused/accuracy"], x["step"]) for x in val)
    assert run["selected_step"] == best[1]
    assert run["val"]["fused"]["accuracy"] == best[0]
    assert best[1] in checkpoint.saved(folder)


def _stop_at(monkeypatch, at):
  original = Trainer._save_here

  def save_here(self, step, stop):
    if step == at:
      signal.raise_signal(signal.SIGTERM)
    return original(self, step, stop)

  monkeypatch.setattr(Trainer, "_save_here", save_here)
  return lambda: monkeypatch.setattr(Trainer, "_save_here", original)


def _assert_same(work, other):
  for seed in (0, 1):
    name = f"seed_{seed}/metrics.jsonl"
    assert (work / name).read_bytes() == (other / name).read_bytes()
  one, two = results(work), results(other)
  for a, b in zip(one["runs"], two["runs"], strict=True):
    assert a | {"timing": 0} == b | {"timing": 0}


def test_stopped_and_started_again(straight, tiny, tmp_path, monkeypatch):
  recipe, work = f"{LB},{ON}", tmp_path / "work"
  undo = _stop_at(monkeypatch, 20)
  assert runner.run(tiny(recipe), work, QUIET) is None
  undo()
  assert {max(checkpoint.saved(work / f"seed_{s}")) for s in (0, 1)} == {20}
  # As if killed when the first had saved and the second had not.
  shutil.rmtree(work / "seed_1" / "checkpoints" / "20")
  runner.run(tiny(recipe), work, QUIET)
  _assert_same(work, straight(recipe))


def test_a_seed_that_has_not_begun_has_no_folder(
  quick, tiny, tmp_path, monkeypatch
):
  """Else it would be taken for a run that can be read."""
  del quick
  _stop_at(monkeypatch, 3)
  config = tiny("joint,seeds=2,vmap_seeds=off")
  assert runner.run(config, tmp_path / "w", QUIET) is None
  assert (tmp_path / "w" / "config.json").exists()
  assert [p.name for p in (tmp_path / "w").glob("seed_*")] == ["seed_0"]


def test_one_diverges_and_the_others_end(quick, tiny, tmp_path, monkeypatch):
  del quick
  from dmg_jax.training.replica import Replica

  original = Replica.check_finite

  def check(self, step, values):
    bad = self.setup.config.seed == 1 and step == 20
    original(self, step, {"cls": float("nan")} if bad else values)

  monkeypatch.setattr(Replica, "check_finite", check)
  with pytest.raises(DivergedError, match="seed 1: cls is nan at step 20"):
    runner.run(tiny("joint,seeds=2,vmap_seeds=on"), tmp_path / "w", QUIET)
  ended = [(tmp_path / "w" / f"seed_{s}" / "results.json") for s in range(2)]
  assert [p.exists() for p in ended] == [True, False]


def test_auto_goes_by_no_clock(quick, tiny, tmp_path, monkeypatch):
  """The same choice every time, however busy the machine is."""
  del quick
  setup = experiment.assemble(tiny("joint,seeds=2,vmap_seeds=auto"))
  monkeypatch.delattr("time.perf_counter")
  monkeypatch.delattr("time.monotonic")
  choice = seeds.choose(setup, 2, tmp_path)
  assert not choice.vmap and choice.why["reason"] == "convolutions"
  seeds.remember(choice, 2, tmp_path)
  assert seeds.choose(setup, 3, tmp_path).why == choice.why
  assert "one after another: convolutions" in seeds.describe(choice, 2)
  assert seeds.choose(setup, 1, tmp_path) == seeds.Choice(False)


def test_small_products_are_at_once(quick, tiny, monkeypatch):
  del quick
  recipe = "joint,encoder.image=small.MLP,seeds=2,vmap_seeds=auto"
  setup = experiment.assemble(tiny(recipe))
  choice = seeds.decide(setup, 2)
  assert choice.vmap and choice.why["reason"] == "matrix products"
  assert 0 < choice.why["bytes"] < choice.why["memory"]
  assert 0 < choice.why["flops"] < seeds.SMALL
  assert seeds._bytes(setup, 4) > choice.why["bytes"]
  with monkeypatch.context() as patch:
    patch.setattr(seeds, "SMALL", choice.why["flops"] - 1)
    assert "operations" in seeds.decide(setup, 2).why["reason"]
  enough = choice.why["bytes"] / seeds.ROOM
  monkeypatch.setattr(seeds, "_memory", lambda _: enough - 1)
  found = seeds.decide(setup, 2)
  assert not found.vmap and "memory" in found.why["reason"]
  monkeypatch.setattr(seeds, "_memory", lambda _: enough + 1)
  assert seeds.decide(setup, 2).vmap


def test_loops_over_time_on_a_cpu(quick, tiny):
  del quick
  recipe = "joint,encoder.image=small.MLP,encoder.text=small.GRU,seeds=2"
  choice = seeds.decide(experiment.assemble(tiny(recipe)), 2)
  assert not choice.vmap and choice.why["reason"] == "loops on a CPU"


def test_choices_of_older_runs_are_read(quick, tiny, tmp_path):
  """They hold the timings that ``auto`` went by."""
  del quick
  setup = experiment.assemble(tiny("joint,seeds=2,vmap_seeds=auto"))
  old = {"vmap": True, "seeds": 2, "step_seconds_at_once": 0.1,
         "step_seconds_one_after_another": 0.2, "device": "cpu"}  # fmt: skip
  (tmp_path / seeds.FILE).write_text(json.dumps(old))
  choice = seeds.choose(setup, 2, tmp_path)
  assert choice.vmap and seeds.describe(choice, 2) == "2 seeds at once"


def test_a_folder_goes_on_as_it_began(quick, tiny, tmp_path):
  del quick
  setups = {
    how: experiment.assemble(tiny(f"joint,seeds=2,vmap_seeds={how}"))
    for how in ("on", "off")
  }
  for began, other in (("on", "off"), ("off", "on")):
    folder = tmp_path / began
    seeds.remember(seeds.choose(setups[began], 2, folder), 2, folder)
    again = seeds.choose(setups[other], 2, folder)
    assert again.vmap is (began == "on")
    how = "at once" if began == "on" else "one after another"
    assert seeds.describe(again, 2) == f"2 seeds {how}"


def test_who_can_go_on_together(tmp_path):
  jobs = [seeds.Job(None, tmp_path / str(i)) for i in range(3)]

  def save(job, *steps):
    for step in steps:
      (job.folder / "checkpoints" / str(step)).mkdir(parents=True)

  assert seeds.group(jobs) == (jobs, 0)
  save(jobs[0], 15)  # It saved first, then all were killed.
  assert seeds.group(jobs) == (jobs, 0)
  save(jobs[0], 30)
  save(jobs[1], 15, 30)
  save(jobs[2], 15)
  assert seeds.group(jobs) == (jobs, 15)
  shutil.rmtree(jobs[0].folder / "checkpoints" / "15")
  assert seeds.group(jobs) == (jobs[1:], 15)


def test_a_step_before_the_last_can_be_saved(quick, tiny, tmp_path):
  del quick
  state = experiment.assemble(tiny("joint")).fresh()
  checkpoints = Checkpoints(tmp_path, latest=2)
  for step in (10, 20, 17):
    checkpoints.save(state.replace(step=np.int32(step)), None)
  checkpoints.close()
  assert checkpoint.saved(tmp_path) == {17, 20}
