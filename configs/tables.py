"""Tables: rows (recipes) × seeds on one data set, one command.

python launch.py --config=configs/tables.py:table1,dataset=openmoji,seeds=3

The word after the colon is a table: table1 to table5 and tableA1 to tableA3 of
the paper, or ``methods``, all recipes. Keys after it:

- ``dataset``: a file of this folder; ``dataset=manifest`` with
  ``--config.data.manifest=pairs.csv`` for your own data.
- ``rows=joint+h+lb``: these rows in this order; any recipe can be named.
- ``seeds``, ``seed``: seeds of every row, and the first of them.
- ``trials=N``: N trials a recipe on val before its seeds (configs/search.py).
- ``epochs``, ``batch_size``, ``quick`` and so on: the data set's own keys.

Fields of the data set's config can be set as for a single run and reach every
row, ``--config.train.select=last``; those of one row, too,
``--config.rows.lb.method.rate=0.05``.

Every cell is a run in ``<workdir>/<row>/seed_<i>``: the same command goes on
with what is missing, and more seeds or rows are added to what is there. Share a
table between processes, each with a device of its own, by giving each its
share of the cells; with trials, of the rows:

  for k in 0 1 2 3; do
    CUDA_VISIBLE_DEVICES=$k python launch.py --config=configs/tables.py:... \
      --config.shard=$k --config.shards=4 &
  done; wait

or as a SLURM array, ``--config.shard=$SLURM_ARRAY_TASK_ID``, or by submitit:

  import submitit
  words = ["python", "launch.py", "--config=configs/tables.py:..."]
  executor = submitit.AutoExecutor(folder="slurm")
  executor.update_parameters(timeout_min=1440, gpus_per_node=1)
  with executor.batch():
    jobs = [
      executor.submit(submitit.helpers.CommandFunction(
        [*words, f"--config.shard={k}", "--config.shards=8"]))
      for k in range(8)
    ]

Whoever finishes a cell writes the table anew with all that is there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from configs import common, search
from configs._table_rows import (
  ALIASES,
  REFERENCE,
  ROW_NOTES,
  ROWS,
  TABLES,
  Row,
  Table,
)
from dmg_jax import build

# Data sets that are scored by mAP; others by macro-F1, as in the paper.
_RANKED = ("crema_d", "kinetics_sounds")
# Fields that a row has of its own; all others are common to the table.
_OF_ROW = ("recipe", "variant", "fusion", "method")
_NO_CHANGE = {"dataset", "seed", "seeds", "rows", "trials"}
_OPTIONAL = ("quick", "encoders")

Make = Callable[[str], common.Config]


def get_config(arg: str | None = None) -> common.Config:
  """The config of ``<table>,dataset=<name>[,key=value...]``.

  Raises:
    ValueError: an unknown table, data set, row or key, with the choices.
  """
  name, given = _parse(arg)
  table, dataset = TABLES[name], given.pop("dataset")
  picked, trials = given.pop("rows", ""), _count(given.pop("trials", "1"))
  other = _encoders(table, dataset, given)
  keys = "".join(f",{k}={v}" for k, v in given.items())
  module = importlib.import_module(f"configs.{dataset}")

  def make(recipe: str) -> common.Config:
    return module.get_config(recipe + keys)

  try:
    config = make(REFERENCE)
  except ValueError as error:
    said = f"key of recipe {REFERENCE!r}", f"key of data set {dataset!r}"
    raise ValueError(str(error).replace(*said)) from error
  rows = _rows(table, picked, dataset, tuple(config.encoders))
  notes = [*_notes(table, rows), *other]
  with config.unlocked():
    for field in _OF_ROW:
      del config[field]
    config.variant = arg or ""
    facts = _facts(name, table, dataset, given, notes)
    # A ConfigDict sorts its keys.
    config.table = {**facts, "trials": trials, "rows": tuple(rows)}
    config.rows = {
      k: _row(r, make, given, trials, facts["changed"]) for k, r in rows.items()
    }
    config.update(shard=0, shards=1)
  return config


def _parse(arg: str | None) -> tuple[str, dict[str, str]]:
  name, *pairs = (arg or "").split(",")
  if not name:
    raise ValueError(
      "no table given: write configs/tables.py:<table>,dataset=<data set>, "
      f"with one of {', '.join(TABLES)}"
    )
  if name not in TABLES:
    raise build.unknown("table", name, TABLES)
  given = common.keys(pairs, "the table")
  known = _datasets()
  if "dataset" not in given:
    raise ValueError(
      f"no data set given: write {name},dataset=..., with one of "
      + ", ".join(known)
    )
  if given["dataset"] not in known:
    raise build.unknown("data set", given["dataset"], known)
  valid = [*sorted(_NO_CHANGE), *_OPTIONAL, *common.SHORT]
  valid.remove("fusion")
  for key in given:
    if key not in valid:
      raise build.unknown(f"key of table {name!r}", key, set(valid))
  return name, given


def _datasets() -> list[str]:
  """Files of this folder with a config of one data set."""
  files = sorted(Path(__file__).parent.glob("*.py"))
  return [
    p.stem
    for p in files
    if p.stem[0] != "_"
    and p.stem != "tables"
    and "\ndef get_config" in p.read_text("utf-8")
  ]


def _count(text: str) -> int:
  if not text.isdigit() or int(text) < 1:
    raise ValueError(f"trials must be a whole number from 1, got {text!r}")
  return int(text)


def _encoders(table: Table, dataset: str, given: dict[str, str]) -> list[str]:
  """Asks for the table's encoders where the data set has them, or says so."""
  quick = given.get("quick", "").lower() == "true"
  if not table.encoders or "encoders" in given:
    return []
  if dataset in ("sarcasm", "twitter2015") and not quick:
    given["encoders"] = table.encoders
    return []
  return [
    f"The encoders are those of configs/{dataset}.py"
    f"{' with quick=true' if quick else ''}, not CLIP's: the rows are those of "
    "the paper's table, the setting is not."
  ]


def _rows(
  table: Table, picked: str, dataset: str, modalities: tuple[str, ...]
) -> dict[str, Row]:
  """The rows, each modality's own in place of ``unimodal``."""
  free = dataset == "manifest"  # Its modalities are known to the file alone.
  alone = {
    f"unimodal_{m}": Row(f"{m.capitalize()} alone", f"unimodal,modality={m}")
    for m in (() if free else modalities)
  }
  names = picked.split("+") if picked else table.rows
  found: dict[str, Row] = {}
  for name in (ALIASES.get(n, n) for n in names):
    if name == "unimodal" and alone:
      found |= alone
    elif name in ROWS:
      found[name] = ROWS[name]
    elif name in alone:
      found[name] = alone[name]
    else:
      raise build.unknown("row", name, [*ROWS, *ALIASES, *alone])
  return found


def _notes(table: Table, rows: dict[str, Row]) -> list[str]:
  """What is known of the table and of those of its rows that are picked."""
  own = [note for name, note in ROW_NOTES.items() if name in rows]
  added = [rows[name].label for name in table.added if name in rows]
  verb = "is" if len(added) == 1 else "are"
  said = f"{' and '.join(added)} {verb} not in the paper's table."
  return [*table.notes, *own, *([said] if added else [])]


def _row(
  row: Row, make: Make, given: dict[str, str], trials: int, changed: str
) -> dict:
  """What a row has of its own: recipe, fusion, method, and its trials."""
  config = make(row.recipe)
  recipe, pairs = common.parse(row.recipe)
  own = {field: config[field] for field in _OF_ROW}
  own["variant"] = ",".join(filter(None, (row.recipe, changed)))
  fixed = {*pairs, *given}
  drawn = {
    f"trial_{i}": search.trial(recipe, i, fixed) for i in range(1, trials)
  }
  return {"label": row.label, **own, "trials": drawn}


def _facts(name, table, dataset, given, notes) -> dict:
  second = "map" if dataset in _RANKED else "macro_f1"
  scores = {"both": ("accuracy", second), "second": (second,)}
  changed = [f"{k}={v}" for k, v in given.items() if k not in _NO_CHANGE]
  asked = [x for x in changed if x != f"encoders={table.encoders}"]
  if asked:
    notes.append(
      f"Run with {', '.join(asked)}: not the setting of the data set's config."
    )
  return {
    "name": name,
    "title": table.title,
    "dataset": dataset,
    "scores": scores.get(table.scores, ("accuracy",)),
    "reference": "constant_0" if "constant_0" in table.rows else REFERENCE,
    "changed": ",".join(asked),
    "tuning_seed": 1000,
    "notes": tuple(notes),
  }
