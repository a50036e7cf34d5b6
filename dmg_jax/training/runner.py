"""A run from a config to ``results.json`` in a work directory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from data_pipelines import core
from data_pipelines.core import catalog
from data_pipelines.disk import locks
from dmg_jax import processes
from dmg_jax.errors import DivergedError
from dmg_jax.evaluation import artefacts
from dmg_jax.evaluation.metrics import Evaluation
from dmg_jax.model import registry
from dmg_jax.report.tables import contributions as contribution_table
from dmg_jax.tracking.logging import Console, write_json
from dmg_jax.training import (
  checkpoint,
  experiment,
  restore,
  run_folder,
  seeds,
  validation,
)
from dmg_jax.training.describe import describe
from dmg_jax.training.experiment import Config
from dmg_jax.training.inputs import features
from dmg_jax.training.loop import Stop, Trainer
from dmg_jax.training.seeds import Job
from dmg_jax.types import TrainState


def run(
  config: Config,
  workdir: str | Path,
  console: Console | None = None,
  command: str | None = None,
  page: bool = True,
  encoders: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
  """Trains every seed of ``config`` and writes the report.

  A run that was interrupted resumes where it stopped; a finished one is only
  shown again.

  Args:
    config: as ``configs/*.py`` make it.
    workdir: folder of the run, created when all checks have passed.
    console: shows the progress; standard output by default.
    command: the command line, for the report.
    page: draw the report at the end.
    encoders: {modality: Flax module of the user's own}, see ``own.wrap``.

  Returns:
    The contents of ``results.json``, or ``None`` if a signal stopped the run.

  Raises:
    ValueError: a config that cannot work, or a work directory that holds a
      run of another config or on other data.
    DivergedError: training became NaN or infinite.
  """
  workdir, console = Path(workdir), console or Console()
  config, modules = experiment.with_modules(config, encoders)
  validation.check(config)
  results = finished(config, workdir)
  if results is not None:
    processes.decided(lambda: _check_prepared(config, workdir, console))
    console.note(f"finished before: {workdir / 'results.json'}")
  elif config.seeds == 1:
    job = Job(config, workdir)
    found = run_jobs([job], workdir, console, command, encoders=modules)
    results = _single((found or [None])[0])
  else:
    results = _run_seeds(config, workdir, console, command, modules)
  if results is not None:
    console.results(results)
    if page and config.report == "on" and processes.first():
      from dmg_jax import report  # Late: it loads Matplotlib.

      console.note(f"report: {report.write_report(workdir)}")
  processes.agree(None)  # What the first one writes is there for all.
  return results


def finished(config: Config, workdir: str | Path) -> dict[str, Any] | None:
  """The results of this config in ``workdir``, ``None`` if there are none.

  A run that was not tested (``eval.test`` was false) and now should be is not
  finished.

  Raises:
    ValueError: a work directory that holds a run of another config.
  """
  return processes.decided(lambda: _stored(config, Path(workdir)))


def _stored(config: Config, workdir: Path) -> dict[str, Any] | None:
  """As ``finished``, in this process."""
  run_folder.check_config(config, workdir)
  done = workdir / "results.json"
  if not done.exists():
    return None
  results = json.loads(done.read_text(encoding="utf-8"))
  tested = all("test" in one for one in results.get("runs", [results]))
  return results if tested or not config.eval.test else None


def _run_seeds(config, workdir, console, command, encoders):
  """One run per seed, in ``seed_<i>`` folders; then mean and std."""
  jobs = []
  for seed in range(config.seed, config.seed + config.seeds):
    one = ConfigDict(config.to_dict())
    one.update(seed=seed, seeds=1)
    jobs.append(Job(one, workdir / f"seed_{seed}"))
  above = (config, workdir, command)
  outcomes = run_jobs(jobs, workdir, console, above=above, encoders=encoders)
  if outcomes is None:
    return None
  runs = [_single(found) for found in outcomes]
  last = "test" if config.eval.test else "val"
  scores = [r[last] for r in runs]
  results = {
    "recipe": config.recipe,
    "dataset": runs[0]["dataset"],
    "runs": runs,
    "mean": _over_runs(np.mean, scores),
    "std": _over_runs(lambda x: np.std(x, ddof=1), scores),
  }
  if processes.first():
    write_json(workdir / "results.json", results, "--workdir")
  return results


def _single(outcome):
  """The results; that the run diverged is raised."""
  if isinstance(outcome, DivergedError):
    raise outcome
  return outcome


def _over_runs(statistic, values: list[Any]) -> Any:
  """The statistic of each number in dictionaries of the same shape."""
  if isinstance(values[0], dict):
    return {
      key: _over_runs(statistic, [v[key] for v in values])
      for key in values[0]
      if all(key in v for v in values)  # A run of an older version has fewer.
    }
  # JSON has no NaN: it was written as a word.
  return float(statistic(np.asarray([float(v) for v in values])))


def run_jobs(
  jobs: Sequence[Job],
  root: Path,
  console: Console,
  command: str | None = None,
  above: tuple[Config, Path, str | None] | None = None,
  done: Callable[[Path, Any], None] = lambda folder, outcome: None,
  dataset: core.Dataset | None = None,
  encoders: Mapping[str, Any] | None = None,
) -> list[dict[str, Any] | DivergedError] | None:
  """Runs that differ in their seeds, one after another or at once.

  Args:
    jobs: the runs; finished ones are not done again.
    root: work directory of all of them, where ``seeds.json`` is.
    console: shows the progress.
    command: the command line of each.
    above: config, folder and command line of what the runs are part of.
    done: called with folder and outcome of each run as it ends.
    dataset, encoders: as for ``experiment.assemble``.

  Returns:
    Results or the error of each run, ``None`` if a signal stopped them.

  Raises:
    ValueError: as ``run``.
    BusyError: another process trains in one of the folders.
    DamagedError: all checkpoints of a run are damaged.
    WriteError: a folder cannot be written to.
  """
  with locks.Locks() as held:
    owned = [j.folder for j in jobs] + [root] * (above is not None)
    processes.by_first(lambda: run_folder.lock(held, owned))
    outcomes: dict[Path, Any] = {j.folder: finished(*j) for j in jobs}
    rest = [j for j in jobs if outcomes[j.folder] is None]
    for folder, found in outcomes.items():
      if found is not None:
        done(folder, found)
    if not rest:
      return [outcomes[j.folder] for j in jobs]
    setup = experiment.assemble(rest[0].config, dataset, encoders)
    for folder in [root] * (above is not None) + [j.folder for j in rest]:
      run_folder.check_data(setup.dataset.fingerprint, folder)
    choice = seeds.choose(setup, len(rest), root)
    cache = features.Cache(setup, console.note)
    made = _Made(
      setup, choice, len(rest), root, console, command, above, cache, held
    )
    return _run_rest(made, jobs, rest, outcomes, done)


def _run_rest(made: _Made, jobs, rest, outcomes, done) -> list[Any] | None:
  """Runs what is left, group by group; as ``run_jobs``."""
  processes.by_first(lambda: [_mend(job, made) for job in rest])
  while rest:
    some, step = seeds.group(rest if made.choice.vmap else rest[:1])
    try:
      found: list[Any] | None = _run_group(made, some, step)
    except DivergedError as error:
      some = [j for j in some if j.folder == error.workdir]
      found = [error]
    if found is None:
      return None
    for job, outcome in zip(some, found, strict=True):
      outcomes[job.folder] = outcome
      done(job.folder, outcome)
    rest = [j for j in rest if j not in some]
  return [outcomes[j.folder] for j in jobs]


def _mend(job: Job, made: _Made) -> None:
  """Sets damaged checkpoints of a run aside."""
  train = job.config.train
  per_epoch = made.setup.loader("train", made.setup.batch_size).steps_per_epoch
  checkpoint.mend(
    job.folder,
    train.select_by if train.select == "best" else None,
    [epoch * per_epoch for epoch in train.keep],
    made.console.note,
  )


class _Made(NamedTuple):
  """What runs that differ in their seeds share."""

  setup: experiment.Setup
  choice: seeds.Choice
  count: int
  root: Path
  console: Console
  command: str | None
  above: tuple[Config, Path, str | None] | None
  cache: features.Cache
  held: locks.Locks


def _run_group(made: _Made, jobs: Sequence[Job], step: int) -> list[Any] | None:
  """Trains, then tests once; ``None`` if a signal came first."""
  begin, count, console = time.monotonic(), len(jobs), made.console
  setups = [made.setup.with_seed(j.config.seed, count) for j in jobs]
  setups = made.cache.of(setups, jobs[0].folder, step)
  programs = made.choice.programs.get(count)
  if programs is not None and programs.problem is not setups[0].problem:
    programs = None
  trainer = Trainer(setups, console, programs)
  made.choice.programs[count] = trainer.programs
  files = [(job.config, job.folder, made.command) for job in jobs]
  files = files if made.above is None else [made.above, *files]
  processes.by_first(lambda: _begin(made, files))
  where = jobs[0].folder if count == 1 else jobs[0].folder.parent
  console.announce(describe(setups, where, trainer.epochs, made.choice))
  state = trainer.open([j.folder for j in jobs], step)
  with _closing(trainer):
    if step:
      console.note(f"resumed at step {step} of {trainer.total}")
    with Stop() as stop, console.progress(trainer.total, step):
      state = trainer.run(state, stop)
    if trainer.step < trainer.total:
      console.note(f"stopped by a signal, saved at step {trainer.step}")
      return None
    if made.setup.config.train.select == "best":
      state = trainer.best(state)
    found, shares = _evaluations(trainer, state)
    results = processes.decided(lambda: _results(trainer, state, found, shares))
    trainer.finish()
  timing = {**trainer.timing, "total_seconds": time.monotonic() - begin}
  if count > 1:
    timing["seeds_at_once"] = count
  for job, result in zip(jobs, results, strict=True):
    result["timing"] = timing
    if processes.first():
      write_json(job.folder / "results.json", result, "--workdir")
  return results


def _begin(made: _Made, files: Sequence[tuple[Config, Path, Any]]) -> None:
  """Makes and locks the folders of runs and writes their first files."""
  run_folder.make(made.held, [folder for _, folder, _ in files])
  for file in files:
    run_folder.write_config(*file, setup=made.setup)
  seeds.remember(made.choice, made.count, made.root)


@contextmanager
def _closing(trainer: Trainer) -> Iterator[None]:
  """Closes the files of runs at their end.

  Not after an error that is of this process alone: checkpoints are closed by
  all processes together, and the others are somewhere else.
  """
  try:
    yield
  except BaseException as error:
    if not processes.several() or isinstance(error, DivergedError):
      trainer.close()
    raise
  trainer.close()


def _evaluations(
  trainer: Trainer, state: TrainState
) -> tuple[dict[str, list[Evaluation]], dict[str, list[dict[str, Any]]]]:
  """Evaluates once on val and test; with ``eval.test=False`` on val alone.

  Returns:
    Evaluations, and contributions of the modalities, of each split and run.
  """
  tested = trainer.setup.config.eval.test
  splits = ("val", "test") if tested else ("val",)
  both = {s: trainer.evaluate_with_shares(state, s) for s in splits}
  found = {s: evaluations for s, (evaluations, _) in both.items()}
  return found, {s: shares for s, (_, shares) in both.items()}


def _results(
  trainer: Trainer, state: TrainState, found, shares
) -> list[dict[str, Any]]:
  """What ``results.json`` of each run says."""
  results = []
  for i, (replica, own) in enumerate(trainer.own(state)):
    scores = {split: of_runs[i] for split, of_runs in found.items()}
    own_shares = {split: of_runs[i] for split, of_runs in shares.items()}
    results.append(_result(trainer, replica, own, scores, own_shares))
  return results


def _result(trainer, replica, state, scores, shares) -> dict[str, Any]:
  """Of one run."""
  config, dataset = replica.setup.config, replica.setup.dataset
  train = config.train
  if "test" in scores:
    artefacts.save_test(replica.workdir, scores["test"], dataset)
  history = {
    line["epoch"]: line["alpha"]
    for line in replica.log.lines()
    if line["split"] == "train" and "alpha" in line
  }
  results = {
    "recipe": config.recipe,
    "dataset": dataset.spec.name,
    "seed": config.seed,
    "epochs": trainer.epochs,
    "alpha": [history[e] for e in sorted(history)],
    "selected_step": int(state.step),
    "selected_by": train.select_by if train.select == "best" else "last",
    "readout": registry.readout(config.fusion.name),
    **{split: e.metrics for split, e in scores.items()},
    contribution_table.KEY: shares,
  }
  learned = _learned(replica.log.lines())
  if learned:
    results["learned"] = learned
  replica.tracking.results(results)
  return results


def _learned(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
  """{name: value of each epoch} of what ``auto`` learns, else nothing."""
  found: dict[str, dict[int, float]] = {}
  for line in lines:
    for key, value in line.items():
      if line["split"] == "train" and key.startswith("learned_"):
        own = found.setdefault(key.removeprefix("learned_"), {})
        own[line["epoch"]] = value
  return {k: [v[e] for e in sorted(v)] for k, v in sorted(found.items())}


def _check_prepared(config, workdir: Path, console: Console) -> None:
  """Checks that a finished run's data are unchanged, if they are available."""
  if not run_folder.fingerprint(workdir):
    return
  found: Config = ConfigDict(config.to_dict())
  name = config.data.get("manifest")
  if restore.find_data(found, workdir) and name and not found.data.manifest:
    console.note(
      f"the run's data cannot be compared: {name} or one of its files is not "
      "there; the prepared data are"
    )
    return
  options = config.data.to_dict()
  try:
    made = catalog.prepare(options.pop("name"), options.pop("dir"), options)
    now = core.PreparedSummary.read(made.folder).fingerprint
  except (core.DataError, ValueError, OSError, ModuleNotFoundError) as error:
    console.note(f"the run's data cannot be compared: {error}")
  else:
    run_folder.check_data(now, workdir)
