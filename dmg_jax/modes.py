"""What ``launch.py --mode`` can do; each mode returns an exit code.

A table has three of them: train, report, and prepare.
"""

from __future__ import annotations

import csv
import json
import shlex
import sys
from pathlib import Path

from ml_collections import ConfigDict

from data_pipelines import catalog
from data_pipelines.report import quietly
from dmg_jax import assemble, build, checks, classifier, report, same, train
from dmg_jax.assemble import Config
from dmg_jax.checkpoint import Checkpoints
from dmg_jax.encoders import pretrained
from dmg_jax.encoders.pretrained import Pretrained
from dmg_jax.evaluate import Evaluation, evaluate, make_eval_step
from dmg_jax.logging import Console, write_json
from dmg_jax.tables import cells, grid, summary


def run(
  mode: str, config: Config, workdir: str | None, quiet: bool = False
) -> int:
  """Dispatches a mode; ``workdir`` defaults to ``runs/<data>-<variant>``.

  A manifest's data are named by its folder and itself, ``digits-pairs``.
  """
  console = Console(quiet=quiet)
  if "table" in config:
    with quietly(quiet):
      return _table(mode, config, workdir, console)
  folder = Path(workdir or f"runs/{summary.shown(config)}-{config.variant}")
  does = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "prepare": _prepare,
    "report": _report,
    "export": _export,
  }
  with quietly(quiet):
    return does[mode](config, folder, console)


def _table(mode: str, config: Config, workdir, console: Console) -> int:
  """A table's cells, its files alone, or its data."""
  table = config.table
  tuned = f"trials={table.trials}" if table.trials > 1 else ""
  names = (table.name, summary.shown(config), table.changed, tuned)
  folder = Path(workdir or f"runs/{'-'.join(filter(None, names))}")
  if mode == "train":
    command = shlex.join(["python", *sys.argv])
    return grid.run(config, folder, console, command)
  cells.check(config)
  if mode == "report":
    grid.write(config, folder)
    console.note(f"table: {folder / 'table.md'}")
    return 0
  one = cells.run_config(config, cells.finals(config, folder)[0])
  if mode == "prepare":
    return _prepare(one, folder, console)
  raise ValueError(
    f"--mode={mode} is for one run, not for a table: give the config of a row "
    f"and --workdir={folder}/ROW/seed_{config.seed}"
  )


def _train(config, workdir, console) -> int:
  command = shlex.join(["python", *sys.argv])
  train.run(config, workdir, console, command)
  return 0


def _prepare(config, workdir, console) -> int:
  del workdir
  checks.check(config)
  options = config.data.to_dict()
  name, folder = options.pop("name"), options.pop("dir")
  console.note(catalog.prepare(name, folder, options).summary())
  return 0


def _report(config, workdir, console) -> int:
  del config
  console.note(f"report: {report.write_report(workdir)}")
  return 0


def _evaluate(config, workdir, console) -> int:
  """Metrics of ``eval.split`` by the selected checkpoint, to JSON."""
  split = config.eval.split
  for folder in _runs(config, workdir):
    _, result = _inference(config, folder)
    path = folder / f"evaluation_{split}.json"
    write_json(path, {"split": split, **result.metrics})
    console.evaluation(split, result.metrics)
    console.note(f"written: {path}")
  return 0


def _predict(config, workdir, console) -> int:
  """Probabilities of each sample of ``eval.split``, to CSV."""
  split = config.eval.split
  for folder in _runs(config, workdir):
    setup, result = _inference(config, folder)
    path = folder / f"predictions_{split}.csv"
    _write_predictions(path, setup, split, result)
    console.note(f"written: {path}")
  return 0


def _export(config, workdir, console) -> int:
  """Encoders of the selected checkpoint, to safetensors."""
  for folder in _runs(config, workdir):
    setup, state = _restore(config, folder)
    for m, options in setup.encoders.items():
      encoder = build.make_encoder(**options)
      if not isinstance(encoder, Pretrained):
        console.note(f"not written: {m} ({options['name']} has no export)")
        continue
      own = classifier.encoder_variables(state.params, state.stats, m)
      path = folder / "export" / m
      pretrained.write(path, encoder, own)
      console.note(f"written: {path}")
  return 0


def _runs(config, workdir: Path) -> list[Path]:
  """The folders of the single runs below a work directory."""
  if not (workdir / "config.json").exists():
    raise ValueError(
      f"{workdir} holds no run: train first, or name one with --workdir"
    )
  return sorted(workdir.glob("seed_*")) or [workdir]


def _inference(config: Config, folder: Path):
  """Restores the run in ``folder`` and evaluates."""
  setup, state = _restore(config, folder)
  eval_step = make_eval_step(setup.problem, setup.method)
  split = setup.config.eval.split
  return setup, evaluate(eval_step, state, setup.batches(split))


def _restore(config: Config, folder: Path):
  """The run in ``folder`` as it was configured, at its checkpoint.

  Encoders are as they were then, so that pretrained weights are not read again.
  """
  stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
  own: Config = ConfigDict(stored["config"])
  own.update(eval=config.eval, data={"dir": config.data.dir})
  for m, options in stored.get("encoders", {}).items():
    own.encoders[m] = {**options, "pretrained": ""}
  setup = assemble.assemble(own)
  same.check_data(setup.dataset.fingerprint, folder)
  checkpoints = Checkpoints(folder)
  select = own.train.select
  step = checkpoints.best() if select == "best" else checkpoints.last()
  if step is None:
    checkpoints.close()
    raise ValueError(f"{folder} has no checkpoint yet: train first")
  state = checkpoints.restore(step, setup.fresh())
  checkpoints.close()
  return setup, state


def _write_predictions(
  path: Path, setup: assemble.Setup, split: str, result: Evaluation
) -> None:
  source, classes = setup.dataset.sources[split], setup.dataset.spec.classes
  heads = list(result.probabilities)
  part = path.with_suffix(".part")
  with part.open("w", encoding="utf-8", newline="") as file:
    rows = csv.writer(file)
    named = [f"{head}:{c}" for head in heads for c in classes]
    rows.writerow(["id", "label", *(f"{h}_prediction" for h in heads), *named])
    for row, i in enumerate(result.index):
      p = [result.probabilities[h][row] for h in heads]
      best = [classes[int(x.argmax())] for x in p]
      flat = [f"{v:.6f}" for x in p for v in x]
      label = classes[int(result.labels[row])]
      rows.writerow([source[int(i)]["id"], label, *best, *flat])
  part.replace(path)
