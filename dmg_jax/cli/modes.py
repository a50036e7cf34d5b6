"""The modes of ``launch.py --mode``; each returns an exit code.

Tables and figures have the modes train, report and prepare; tables also have
readouts.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from data_pipelines.core import catalog
from data_pipelines.core.progress import quietly
from dmg_jax import processes, report
from dmg_jax.api import fitting
from dmg_jax.api.run import Run
from dmg_jax.errors import InputError
from dmg_jax.tracking.logging import Console, write_json
from dmg_jax.training import restore, run_folder, validation
from dmg_jax.training.experiment import Config


def run(
  mode: str, config: Config, workdir: str | Path | None, quiet: bool = False
) -> int:
  """Runs a mode; ``workdir`` defaults to ``runs/<data>-<variant>``.

  The data of a manifest are named by its folder and file, ``digits-pairs``.
  Calls from Python do the same as the command line.
  """
  quiet = quiet or not processes.first()  # One speaks for all.
  console = Console(quiet=quiet)
  if "figure" in config:
    with quietly(quiet):
      return _figure(mode, config, workdir, console)
  if "table" in config:
    with quietly(quiet):
      return _table(mode, config, workdir, console)
  folder = Path(
    workdir or f"runs/{run_folder.data_name(config)}-{config.variant}"
  )
  does = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "readouts": _readouts,
    "prepare": _prepare,
    "report": _report,
    "export": _export,
  }
  with quietly(quiet):
    return does[mode](config, folder, console)


_PROGRAMS = {
  "launch.py": "python launch.py",
  "__main__.py": "python -m dmg_jax",
  "dmg-jax": "dmg-jax",
}


def _command() -> str | None:
  """The command line; ``None`` if called from Python or a notebook."""
  program = _PROGRAMS.get(Path(sys.argv[0]).name)
  return program and f"{program} {shlex.join(sys.argv[1:])}".strip()


def _table(mode: str, config: Config, workdir, console: Console) -> int:
  """Runs a mode of a table."""
  from dmg_jax.tables import cells, grid  # Late, as they load SciPy.
  from dmg_jax.tables import readout_rows as of_rows

  table = config.table
  tuned = f"trials={table.trials}" if table.trials > 1 else ""
  names = (table.name, run_folder.data_name(config), table.changed, tuned)
  folder = _folder(workdir, *names)
  if mode == "train":
    return grid.run(config, folder, console, _command())
  cells.check(config)
  if mode == "readouts":
    of_rows.read(config, folder, restore.changes(config), console)
  if mode in ("report", "readouts"):
    processes.by_first(lambda: grid.write(config, folder))
    console.note(f"table: {folder / 'table.md'}, {folder / 'table.html'}")
    return 0
  one = cells.run_config(config, cells.finals(config, folder)[0])
  if mode == "prepare":
    return _prepare(one, folder, console)
  raise InputError(
    f"--mode={mode} works on one run, not on a table: give a row's config "
    f"and --workdir={folder}/ROW/seed_{config.seed}"
  )


def _figure(mode: str, config: Config, workdir, console: Console) -> int:
  """Runs a mode of a figure.

  Figure 3 may have several data sets, so its folder is not named after one.
  """
  from dmg_jax import figures  # Late: it loads Matplotlib.
  from dmg_jax.tables import cells

  name, table = config.figure.name, config.get("table", {})
  shown = "" if name == "figure3" else run_folder.data_name(config)
  folder = _folder(workdir, name, shown, table.get("changed", ""))
  if mode == "train":
    return figures.run(config, folder, console, _command())
  figures.check(config, folder)
  if mode == "report":
    figures.draw(config, folder, console)
    return 0
  if mode == "prepare":
    for grid in figures.grids(config, folder):
      cell = cells.finals(grid.config, grid.folder)[0]
      _prepare(cells.run_config(grid.config, cell), folder, console)
    return 0
  raise InputError(
    f"--mode={mode} works on one run, not on a figure: give a row's config "
    f"and --workdir={folder}/.../seed_{config.seed}"
  )


def _folder(workdir: str | Path | None, *names: str) -> Path:
  """``workdir``, or by default a folder of runs/ named by ``names``."""
  return Path(workdir or f"runs/{'-'.join(filter(None, names))}")


def _train(config, workdir, console) -> int:
  fitting.train(config, workdir, console, _command())
  return 0


def _prepare(config, workdir, console) -> int:
  del workdir
  validation.check(config)
  options = config.data.to_dict()
  name, folder = options.pop("name"), options.pop("dir")
  console.note(catalog.prepare(name, folder, options).summary())
  return 0


def _runs(config, workdir: Path, **changes) -> list[Run]:
  """The finished runs of all seeds, opened with the fields of the config."""
  return Run(workdir, {**restore.changes(config), **changes}, quiet=False).runs


def _report(config, workdir, console) -> int:
  del config
  console.note(f"report: {report.write_report(workdir)}")
  return 0


def _evaluate(config, workdir, console) -> int:
  """Writes metrics of the selected checkpoint on ``eval.split`` as JSON."""
  if config.eval.manifest:
    raise InputError(
      "eval.manifest works with --mode=predict only; for metrics, add labelled "
      "samples to a split of the data and name it with --config.eval.split"
    )
  from dmg_jax.report.tables.contributions import KEY, sentence

  split = config.eval.split
  for run in _runs(config, workdir):
    found = run.evaluate(split)
    path = run.folder / f"evaluation_{split}.json"
    shares = run.contributions(split)
    if processes.first():
      write_json(path, {"split": split, **found, KEY: shares})
    console.evaluation(split, found)
    if len(shares["shapley"]) > 1:
      console.note(sentence(shares))
    console.note(f"written: {path}")
  return 0


def _predict(config, workdir, console) -> int:
  """Writes probabilities for a manifest or for ``eval.split`` as a table."""
  from dmg_jax.serving import prediction_table

  manifest, split = config.eval.manifest, config.eval.split
  changes = {"loader": {"resident": "off"}} if manifest else {}
  runs = _runs(config, workdir, **changes)
  outputs = [_output(config, run.folder, len(runs) > 1) for run in runs]
  for path in outputs:
    prediction_table.check(path)
  for run, path in zip(runs, outputs, strict=True):
    made = run.predict(manifest) if manifest else run.predict(split=split)
    made.write(path)
    for note in made.notes:
      console.note(f"note: {note}")
    console.note(f"written: {path}")
  return 0


def _output(config, folder: Path, several: bool) -> Path:
  """Path of a run's table; with several runs, the name includes the seed."""
  if config.eval.output:
    path = Path(config.eval.output).expanduser()
    return path.with_stem(f"{path.stem}_{folder.name}") if several else path
  if config.eval.manifest:
    return folder / f"predictions_of_{Path(config.eval.manifest).stem}.csv"
  return folder / f"predictions_{config.eval.split}.csv"


def _readouts(config, workdir, console) -> int:
  """Computes unimodal read-outs and linear probes; updates the report."""
  from dmg_jax.report.tables import readouts as shown

  runs = _runs(config, workdir)
  found = [run.readouts() for run in runs]
  console.note(shown.table(found))
  for line in shown.remarks(found):
    console.note(line)
  for run in runs:
    console.note(f"written: {run.folder / shown.FILE}")
  return _report(config, workdir, console) if processes.first() else 0


def _export(config, workdir, console) -> int:
  """Exports the encoders of the selected checkpoint and the whole program."""
  for run in _runs(config, workdir):
    for line in run.export():
      console.note(line)
  return 0
