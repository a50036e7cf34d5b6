"""Trackers, by modules in their place that take what the real ones take."""

import json
import os
import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from dmg_jax.tracking import trackers
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.tracking.trackers import Tracking
from dmg_jax.training import runner, validation
from dmg_jax.training.replica import Replica


class FakeRun:
  """``wandb.sdk.wandb_run.Run``, as far as it is used."""

  def __init__(self, calls, id):
    self.calls, self.id = calls, id
    self.summary = SimpleNamespace(
      update=lambda d: calls.append(("summary", d))
    )

  def log(self, data, step=None, commit=None):
    self.calls.append(("log", step, data))

  def finish(self, exit_code=None, quiet=None):
    self.calls.append(("finish", exit_code))


def fake_wandb(calls):
  module = ModuleType("wandb")

  def init(
    entity=None, project=None, dir=None, id=None, name=None, config=None,
    allow_val_change=None, mode=None, resume=None,
  ):  # fmt: skip
    assert isinstance(config, dict) and resume == "allow"
    assert mode in (None, "online", "offline", "disabled", "shared")
    assert not set(id) & set("/\\#?%:") and os.path.isdir(dir)
    calls.append(("init", project, id, mode, config))
    return FakeRun(calls, id)

  module.init = init
  return module


def fake_mlflow(calls):
  """With the fluent interface's one active run."""
  module = ModuleType("mlflow")
  module.active, module.uri = None, "file:///default"

  def start_run(
    run_id=None, experiment_id=None, run_name=None, nested=False, tags=None
  ):
    assert module.active is None
    module.active = run_id or "made"
    calls.append(("start", run_id, module.uri))
    return SimpleNamespace(info=SimpleNamespace(run_id=module.active))

  def log_params(params, synchronous=None, run_id=None):
    assert module.active and len(params) <= 100
    assert all(isinstance(v, str) for v in params.values())
    calls.append(("params", params))

  def log_metrics(metrics, step=None, synchronous=None, run_id=None):
    assert module.active
    calls.append(("metrics", step, metrics))

  def end_run(status="FINISHED"):
    module.active = None
    calls.append(("end", status))

  def set_tracking_uri(uri):
    module.uri = uri

  def set_experiment(experiment_name=None, experiment_id=None):
    calls.append(("experiment", experiment_name))

  module.get_tracking_uri = lambda: module.uri
  for function in (
    start_run, log_params, log_metrics, end_run, set_tracking_uri,
    set_experiment,
  ):  # fmt: skip
    setattr(module, function.__name__, function)
  return module


@pytest.fixture
def calls(monkeypatch):
  """What both were told; no settings of this machine."""
  found = []
  for name in list(os.environ):
    if name.startswith(("WANDB_", "MLFLOW_")):
      monkeypatch.delenv(name)
  monkeypatch.setitem(sys.modules, "wandb", fake_wandb(found))
  monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(found))
  return found


CONFIG = {"seed": 3, "train": {"epochs": 2}, "long": "x" * 9000} | {
  f"field{i}": i for i in range(150)
}
RESULTS = {"recipe": "h", "seed": 3, "test": {"fused": {"accuracy": 0.5}}}


def tell(name, folder, results=RESULTS):
  """A run's life; the warnings."""
  said = []
  told = Tracking(name, folder, CONFIG, said.append)
  told.log({"train/loss": 1.5}, 10)
  if results:
    told.results(results)
  told.close()
  return said


def test_wandb(calls, tmp_path, monkeypatch):
  assert tell("wandb", tmp_path, None) == []
  monkeypatch.setenv("WANDB_MODE", "offline")
  monkeypatch.setenv("WANDB_PROJECT", "other")  # Too late for this run.
  assert tell("wandb", tmp_path) == []
  (_, _, id, *_), *_ = calls
  assert calls == [
    ("init", "dmg_jax", id, None, CONFIG),
    ("log", 10, {"train/loss": 1.5}),
    ("finish", 1),
    ("init", "dmg_jax", id, "offline", CONFIG),
    ("log", 10, {"train/loss": 1.5}),
    ("summary", {"results/seed": 3, "results/test/fused/accuracy": 0.5}),
    ("finish", 0),
  ]
  assert json.loads((tmp_path / trackers.FILE).read_text()) == {
    "wandb": {"id": id, "project": "dmg_jax"}
  }
  (tmp_path / "other").mkdir()
  tell("wandb", tmp_path / "other")
  assert calls[-4][1] == "other" and calls[-4][2] != id
  assert trackers._title(tmp_path / "lb" / "seed_3") == "lb/seed_3"
  assert trackers._title(tmp_path / "lb") == "lb"


def test_mlflow(calls, tmp_path, monkeypatch):
  assert tell("mlflow", tmp_path, None) == []
  sys.modules["mlflow"].uri = "elsewhere"  # As in another process.
  assert tell("mlflow", tmp_path) == []
  given = {
    k: v for call in calls if call[0] == "params" for k, v in call[1].items()
  }
  assert given["train.epochs"] == "2" and len(given["long"]) <= 500
  assert len(given) == 153
  told = [call for call in calls if call[0] != "params"]
  assert told == [
    ("experiment", "dmg_jax"),
    ("start", None, "file:///default"),
    ("metrics", 10, {"train/loss": 1.5}),
    ("end", "KILLED"),
    ("start", "made", "file:///default"),
    ("metrics", 10, {"train/loss": 1.5}),
    ("metrics", None, {
      "results/seed": 3.0, "results/test/fused/accuracy": 0.5
    }),
    ("end", "FINISHED"),
  ]  # fmt: skip
  monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server")
  monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
  (tmp_path / "other").mkdir()
  del calls[:]
  tell("mlflow", tmp_path / "other")
  assert calls[0] == ("start", None, "http://server")


@pytest.mark.parametrize("where", ["init", "log", "finish"])
def test_errors_end_in_one_warning(calls, tmp_path, monkeypatch, where):
  def fail(*args, **kwargs):
    raise ConnectionError("no\nnetwork")

  owner = sys.modules["wandb"] if where == "init" else FakeRun
  monkeypatch.setattr(owner, where, fail)
  (said,) = tell("wandb", tmp_path)
  assert "wandb" in said and "no network" in said and "\n" not in said


def test_no_tracker(calls, tmp_path):
  assert tell("", tmp_path) == [] and calls == []
  assert list(tmp_path.iterdir()) == []


def test_choices_and_packages(tiny, monkeypatch):
  with pytest.raises(ValueError, match=r"'wandbb'.*'wandb'.*mlflow"):
    validation.check(tiny("joint", {"track": "wandbb"}))
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  for name in trackers.TRACKERS:
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {name}"):
      validation.check(tiny("joint", {"track": name}))


def test_what_a_run_writes_is_told(calls, tiny, tmp_path):
  config = tiny("joint", {"track": "mlflow"})
  replica = object.__new__(Replica)
  replica.setup, replica.per_epoch = SimpleNamespace(config=config), 15
  replica.open(tmp_path, Console(quiet=True))
  replica.write(16, "val", {"fused/loss": 0.5, "fused/map": float("nan")})
  replica.tracking.results(RESULTS)
  replica.close()
  *_, told, results, end = calls
  assert told[:2] == ("metrics", 16) and set(told[2]) == {
    "epoch", "val/fused/loss", "val/fused/map"
  }  # fmt: skip
  assert told[2]["epoch"] == 2 and results[1] is None
  assert end == ("end", "FINISHED")


@pytest.mark.slow
def test_a_run_tells_all_its_metrics(quick, calls, tiny, tmp_path):
  fields = {"train.epochs": 1, "track": "wandb"}
  config = tiny("joint", fields)
  results = runner.run(config, tmp_path / "run", Console(quiet=True))
  first, *told, summary, last = calls
  assert first[4]["train"]["epochs"] == 1 and last == ("finish", 0)
  accuracy = results["test"]["fused"]["accuracy"]
  assert summary[1]["results/test/fused/accuracy"] == accuracy
  lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
  assert lines
  for (_, step, data), line in zip(told, lines, strict=True):
    values = {
      f"{line['split']}/{k}": v
      for k, v in line.items()
      if k not in ("step", "epoch", "split")
    }
    assert step == line["step"]
    assert data == {"epoch": line["epoch"], **values}


def test_a_tracker_that_never_answers(tmp_path, monkeypatch):
  """Training waits for a while, once, and says so."""
  hang, said = threading.Event(), []

  class Silent:
    """As one without a network."""

    def __init__(self, *args):
      hang.wait(60)

    def log(self, values, step):
      raise AssertionError

  monkeypatch.setitem(trackers._MAKERS, "wandb", Silent)
  monkeypatch.setattr(trackers, "PATIENCE", 0.2)
  tracking = Tracking("wandb", tmp_path, {}, said.append)
  hang.set()  # It answers after all: too late.
  tracking.log({"train/loss": 1.0}, 1)
  tracking.results({})
  tracking.close()
  (line,) = said
  assert "has not answered for 0.2 s" in line and "training continues" in line
