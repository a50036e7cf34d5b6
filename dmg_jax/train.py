"""A run from a config to ``results.json`` in a work directory."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from data_pipelines import catalog, core
from dmg_jax import assemble, build, checks, examples, report, same
from dmg_jax.assemble import Config
from dmg_jax.logging import Console, write_json
from dmg_jax.loop import Stop, Trainer
from dmg_jax.types import TrainState

_VERSIONS = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "numpy",
  "grain",
  "dmg_jax",
)


def run(
  config: Config,
  workdir: str | Path,
  console: Console | None = None,
  command: str | None = None,
) -> dict[str, Any] | None:
  """Trains every seed of ``config`` and reports.

  A run that was interrupted goes on where it stopped; one that is finished is
  only shown again.

  Args:
    config: as ``configs/*.py`` make it.
    workdir: folder of the run; made once everything else is in order.
    console: where to say what happens; standard output by default.
    command: the command line, to be shown in the report.

  Returns:
    The contents of ``results.json``, or ``None`` if a signal stopped the run.

  Raises:
    ValueError: a config that cannot work, or a work directory that holds a
      run of another config or on other data.
    loop.DivergedError: training became NaN or infinite.
  """
  workdir, console = Path(workdir), console or Console()
  checks.check(config)
  results = finished(config, workdir)
  if results is not None:
    _check_prepared(config, workdir, console)
    console.note(f"finished before: {workdir / 'results.json'}")
  elif config.seeds == 1:
    files = [(config, workdir, command)]
    results = _run_seed(config, workdir, console, files)
  else:
    results = _run_seeds(config, workdir, console, command)
  if results is not None:
    console.results(results)
    page = report.write_report(workdir)
    console.note(f"report: {page}")
  return results


def finished(config: Config, workdir: str | Path) -> dict[str, Any] | None:
  """The results of this very config in ``workdir``, ``None`` if there are none.

  A run that ended on val (``eval.test`` was false) and is now to be tested is
  not finished.

  Raises:
    ValueError: a work directory that holds a run of another config.
  """
  same.check_config(config, Path(workdir))
  done = Path(workdir) / "results.json"
  if not done.exists():
    return None
  results = json.loads(done.read_text(encoding="utf-8"))
  tested = all("test" in one for one in results.get("runs", [results]))
  return results if tested or not config.eval.test else None


def _run_seeds(config, workdir, console, command):
  """One run a seed, in ``seed_<i>`` folders; then their mean and std."""
  runs = []
  for offset in range(config.seeds):
    one = ConfigDict(config.to_dict())
    one.update(seed=config.seed + offset, seeds=1)
    folder = workdir / f"seed_{one.seed}"
    result = finished(one, folder)
    if result is None:
      files = [(config, workdir, command), (one, folder, None)]
      result = _run_seed(one, folder, console, files)
    if result is None:
      return None
    runs.append(result)
  last = "test" if config.eval.test else "val"
  scores = [r[last] for r in runs]
  results = {
    "recipe": config.recipe,
    "dataset": runs[0]["dataset"],
    "runs": runs,
    "mean": _over_runs(np.mean, scores),
    "std": _over_runs(lambda x: np.std(x, ddof=1), scores),
  }
  write_json(workdir / "results.json", results)
  return results


def _over_runs(statistic, values: list[Any]) -> Any:
  """The statistic of each number in dictionaries of the same shape."""
  if isinstance(values[0], dict):
    return {
      key: _over_runs(statistic, [v[key] for v in values]) for key in values[0]
    }
  # JSON has no NaN: it was written as a word.
  return float(statistic(np.asarray([float(v) for v in values])))


def _run_seed(config, workdir, console, files):
  """Trains, then tests once; ``None`` if a signal came first.

  ``files`` are the arguments of ``_write_config``, called once all is in order.
  """
  begin = time.monotonic()
  setup = assemble.assemble(config)
  for _, folder, _ in files:
    same.check_data(setup.dataset.fingerprint, folder)
  trainer = Trainer(setup, console)
  for file in files:
    _write_config(*file, setup=setup)
  console.announce(describe(setup, workdir, trainer.epochs))
  state = trainer.open(workdir)
  try:
    first = int(state.step)
    if first:
      console.note(f"resumed at step {first} of {trainer.total}")
    with Stop() as stop, console.progress(trainer.total, first):
      state = trainer.run(state, stop)
    if int(state.step) < trainer.total:
      console.note(f"stopped by a signal, saved at step {int(state.step)}")
      return None
    if config.train.select == "best":
      state = trainer.best(state)
    results = _results(trainer, state, workdir)
    trainer.tracking.results(results)
  finally:
    trainer.close()
  results["timing"] = {
    **trainer.timing,
    "total_seconds": time.monotonic() - begin,
  }
  write_json(workdir / "results.json", results)
  return results


def _results(trainer: Trainer, state: TrainState, workdir: Path):
  """The one reading of the test split, and what is known of training.

  Nothing of test is read where ``eval.test`` is false: a trial ends on val.
  """
  config = trainer.setup.config
  scores = {"val": trainer.evaluate(state, "val").metrics}
  if config.eval.test:
    test = trainer.evaluate(state, "test")
    scores["test"] = test.metrics
    examples.save_test(workdir, test, trainer.setup.dataset)
  history = {
    line["epoch"]: line["alpha"]
    for line in trainer.log.lines()
    if line["split"] == "train" and "alpha" in line
  }
  return {
    "recipe": config.recipe,
    "dataset": trainer.setup.dataset.spec.name,
    "seed": config.seed,
    "epochs": trainer.epochs,
    "alpha": [history[e] for e in sorted(history)],
    "selected_step": int(state.step),
    "readout": build.readout(config.fusion.name),
    **scores,
  }


def describe(
  setup: assemble.Setup, workdir: Path, epochs: int
) -> dict[str, Any]:
  """What a run will do: data, splits, parameters, recipe, device."""
  config, spec = setup.config, setup.dataset.spec
  device = jax.devices()[0]
  options = {k: v for k, v in config.method.to_dict().items() if k != "name"}
  return {
    "recipe": config.recipe,
    "method": config.method.name,
    "options": options,
    "fusion": f"{config.fusion.name} ({build.readout(config.fusion.name)})",
    "dataset": spec.name,
    "classes": len(spec.classes),
    "splits": dict(spec.sizes),
    "loading": _loading(setup),
    "encoders": {m: o["name"] for m, o in setup.encoders.items()},
    "pretrained": setup.pretrained,
    "parameters": setup.parameters,
    "epochs": epochs,
    "batch_size": _batch_size(setup),
    "seed": config.seed,
    "device": f"{jax.device_count()} x {device.device_kind}",
    "workdir": str(workdir),
  }


def _batch_size(setup: assemble.Setup) -> str:
  train, method = setup.config.train, setup.method
  text = _at_most(setup.batch_size, train.batch_size, "train")
  if method.outer_step is None:
    return text
  outer = setup.outer_batch_size
  outer = _at_most(outer, train.outer_batch_size, method.outer_split)
  return f"{text}, outer {outer}"


def _at_most(actual: int, wanted: int, split: str) -> str:
  why = f" (not {wanted}: all that {split} has)" if actual < wanted else ""
  return f"{actual}{why}"


def _loading(setup: assemble.Setup) -> str:
  if setup.home is not None:
    return "from the device's memory"
  if setup.workers:
    return f"decoded by {setup.workers} processes"
  cached = setup.dataset.cached("train")
  return "from memory" if cached else "decoded by threads"


def _check_prepared(config, workdir: Path, console: Console) -> None:
  """Whether the data of a finished run, if they are to be had, are the same."""
  if not same.fingerprint(workdir):
    return
  options = config.data.to_dict()
  try:
    made = catalog.prepare(options.pop("name"), options.pop("dir"), options)
    now = core.Report.read(made.folder).fingerprint
  except (core.DataError, ValueError, OSError, ModuleNotFoundError) as error:
    console.note(f"the run's data cannot be compared: {error}")
  else:
    same.check_data(now, workdir)


def _write_config(config, workdir: Path, command, setup) -> None:
  """``config.json``: with it, the run can be made and read again.

  ``config`` is as given; of encoders that started from pretrained weights,
  ``encoders`` are the options as the weights completed them.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / same.FILE
  if not path.exists():
    versions = {p: importlib.metadata.version(p) for p in _VERSIONS}
    content = {
      "config": config.to_dict(),
      "versions": versions,
      "git": _revision(),
      "command": command,
    }
    if setup.dataset.fingerprint:
      content["data"] = {"fingerprint": setup.dataset.fingerprint}
    loaded = {m: o for m, o in setup.encoders.items() if o.get("pretrained")}
    if loaded:
      content["encoders"] = loaded
    write_json(path, content)


def _revision() -> str | None:
  """The git revision of the source, ``None`` outside a checkout."""
  command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
  folder = Path(__file__).parent
  try:
    done = subprocess.run(
      command, cwd=folder, capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()
