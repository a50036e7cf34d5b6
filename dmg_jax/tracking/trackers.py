"""Weights & Biases and MLflow in addition to TensorBoard: ``config.track``.

A tracker receives the numbers of ``metrics.jsonl`` under TensorBoard's tags,
the config, and the final results. The id of its run is kept in
``tracking.json``, so a resumed run continues the same tracker run. If a tracker
raises an error, or does not answer for two minutes, one warning is printed and
training continues without it.

The trackers' own environment variables decide where the numbers go
(``WANDB_MODE``, ``WANDB_PROJECT``, ``WANDB_ENTITY``, ``MLFLOW_TRACKING_URI``,
``MLFLOW_EXPERIMENT_NAME``, ...); the project or experiment is ``dmg_jax`` if
they name none. Steps that are repeated after a crash are sent again, with the
same numbers: W&B ignores them, MLflow keeps both.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import queue
import secrets
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from data_pipelines.disk.faults import replace
from dmg_jax.errors import MissingPackageError

FILE = "tracking.json"  # {tracker: the id, project or URI of its run}
PROJECT = "dmg_jax"
# {name of the tracker and of its package: how to install it}
TRACKERS = {"mlflow": "pip install mlflow", "wandb": "pip install wandb"}
# Seconds that training waits for a tracker, before it goes on without.
PATIENCE = 120.0
_AT_ONCE = 100  # MLflow's limit of parameters per request
_LONGEST = 500  # and of characters per value.

Stored = dict[str, str]


class Tracker(Protocol):
  """The interface of an experiment tracker."""

  def log(self, values: Mapping[str, float], step: int) -> None:
    """Records the numbers of one step, {tag such as ``train/loss``: value}."""
    ...

  def results(self, values: Mapping[str, float]) -> None:
    """Records the final numbers."""
    ...

  def close(self, finished: bool) -> None:
    """Ends the session; an unfinished run may be resumed later."""
    ...


def require(name: str) -> None:
  """Raises ``ModuleNotFoundError`` if the tracker's package is missing."""
  if name and name not in sys.modules and not importlib.util.find_spec(name):
    raise MissingPackageError(
      f"track={name!r} needs the package {name}: {TRACKERS[name]}, or leave "
      "track empty. TensorBoard files are always written"
    )


class Wandb:
  """A run of Weights & Biases."""

  def __init__(self, workdir: Path, config: Mapping[str, Any], stored: Stored):
    wandb = importlib.import_module("wandb")
    stored.setdefault("id", secrets.token_hex(8))
    stored.setdefault("project", os.environ.get("WANDB_PROJECT") or PROJECT)
    self._run = wandb.init(
      project=stored["project"],
      id=stored["id"],
      name=_title(workdir),
      resume="allow",
      config=dict(config),
      allow_val_change=True,
      dir=str(workdir),
      mode=os.environ.get("WANDB_MODE") or None,
    )

  def log(self, values: Mapping[str, float], step: int) -> None:
    """See ``Tracker``."""
    self._run.log(dict(values), step=step)

  def results(self, values: Mapping[str, float]) -> None:
    """See ``Tracker``."""
    self._run.summary.update(dict(values))

  def close(self, finished: bool) -> None:
    """See ``Tracker``."""
    self._run.finish(exit_code=0 if finished else 1)


class Mlflow:
  """A run of MLflow, which allows one active run per process."""

  def __init__(self, workdir: Path, config: Mapping[str, Any], stored: Stored):
    self._mlflow = mlflow = importlib.import_module("mlflow")
    uri = os.environ.get("MLFLOW_TRACKING_URI") or stored.get("uri")
    if uri:
      mlflow.set_tracking_uri(uri)
    if "id" in stored:
      mlflow.start_run(run_id=stored["id"])
      return
    named = ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID")
    if not any(map(os.environ.get, named)):
      mlflow.set_experiment(PROJECT)
    run = mlflow.start_run(run_name=_title(workdir))
    stored.update(id=run.info.run_id, uri=mlflow.get_tracking_uri())
    words = [(k, str(v)[:_LONGEST]) for k, v in _flat(config, ".")]
    for first in range(0, len(words), _AT_ONCE):
      mlflow.log_params(dict(words[first : first + _AT_ONCE]))

  def log(self, values: Mapping[str, float], step: int) -> None:
    """See ``Tracker``."""
    self._mlflow.log_metrics(dict(values), step=step)

  def results(self, values: Mapping[str, float]) -> None:
    """See ``Tracker``."""
    self._mlflow.log_metrics(dict(values))

  def close(self, finished: bool) -> None:
    """See ``Tracker``."""
    self._mlflow.end_run(status="FINISHED" if finished else "KILLED")


_MAKERS: dict[str, Callable[..., Tracker]] = {"mlflow": Mlflow, "wandb": Wandb}


class Tracking:
  """A tracker that cannot stop training: after an error it is switched off."""

  def __init__(
    self,
    name: str,
    workdir: Path,
    config: Mapping[str, Any],
    warn: Callable[[str], None],
  ):
    """Starts or resumes the tracker's run that belongs to ``workdir``.

    Args:
      name: one of ``TRACKERS``, or empty for none.
      workdir: folder of the run.
      config: nested config of the run.
      warn: called with the warning if the tracker fails.
    """
    self._name, self._warn = name, warn
    self._tracker: Tracker | None = None
    self._finished = self._off = False
    self._calls: queue.SimpleQueue = queue.SimpleQueue()
    self._ends: queue.SimpleQueue = queue.SimpleQueue()
    if name:
      # One for all calls: MLflow's active run is a thread's own.
      threading.Thread(target=self._serve, daemon=True).start()
      self._guarded(lambda: self._start(workdir, config))

  def _start(self, workdir: Path, config: Mapping[str, Any]) -> None:
    path = workdir / FILE
    known = json.loads(path.read_text()) if path.exists() else {}
    stored = dict(known.get(self._name, {}))
    self._tracker = _MAKERS[self._name](workdir, config, stored)
    if stored != known.get(self._name):
      text = json.dumps({**known, self._name: stored}, indent=2)
      replace(path, text.encode())

  def _serve(self) -> None:
    while (call := self._calls.get()) is not None:
      try:
        call()
      # A tracker may raise anything: no network, no account, a full disk.
      except Exception as error:
        self._ends.put(error)
      else:
        self._ends.put(None)

  def log(self, values: Mapping[str, float], step: int) -> None:
    """Records the numbers of one step, {tag such as ``train/loss``: value}."""
    if (tracker := self._tracker) is not None:
      self._guarded(lambda: tracker.log(values, step))

  def results(self, results: Mapping[str, Any]) -> None:
    """Records all numbers in the contents of ``results.json``."""
    self._finished = True
    numbers = {
      f"results/{k}": float(v)
      for k, v in _flat(results, "/")
      if isinstance(v, int | float) and not isinstance(v, bool)
    }
    if (tracker := self._tracker) is not None:
      self._guarded(lambda: tracker.results(numbers))

  def close(self) -> None:
    """Ends the session; the run counts as finished if it has results."""
    if (tracker := self._tracker) is not None:
      self._guarded(lambda: tracker.close(self._finished))
      self._tracker = None
    self._calls.put(None)

  def _guarded(self, call: Callable[[], None]) -> None:
    """Calls the tracker, in its own thread: it may wait for ever."""
    if self._off:
      return
    try:
      self._calls.put(call)
      try:
        error = self._ends.get(timeout=PATIENCE)
      except queue.Empty:
        raise TimeoutError(f"it has not answered for {PATIENCE:g} s") from None
      if error is not None:
        raise error
    except Exception as error:
      reason = " ".join(str(error).split()) or type(error).__name__
      self._tracker, self._off = None, True
      self._warn(
        f"warning: {self._name} failed ({reason}) and records nothing from "
        "here on; training continues"
      )


def _title(workdir: Path) -> str:
  """``openmoji-lb``, or ``openmoji-lb/seed_3`` for one of several seeds."""
  *_, parent, name = ("", *workdir.absolute().parts)
  return f"{parent}/{name}" if name.startswith("seed_") else name


def _flat(tree: Any, sign: str, path: str = "") -> Iterator[tuple[str, Any]]:
  if isinstance(tree, Mapping):
    for key, value in tree.items():
      yield from _flat(value, sign, f"{path}{sign}{key}" if path else key)
  else:
    yield path, tree
