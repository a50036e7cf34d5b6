"""Tables: one command runs rows (recipes) × seeds on one data set.

python launch.py --config=configs/tables.py:table1,dataset=openmoji,seeds=3

The word after the colon is a table: table1 to table5 or tableA1 to tableA3 of
the paper, ``methods``, which has all recipes, ``cost``, which says how much
there is to win for a cure of imbalance, or ``missing``, which runs its rows at
several rates of missing modalities. Keys that may follow:

- ``dataset``: a file of this folder; ``dataset=manifest`` with
  ``--config.data.manifest=pairs.csv`` for your own data.
- ``rows=joint+h+lb``: only these rows, in this order; any recipe is allowed.
- ``seeds``, ``seed``: the number of seeds of every row, and the first seed.
- ``trials=N``: tunes each recipe on val with N trials first
  (configs/search.py).
- ``rates=0+0.3+0.7``, ``hidden=text``: of the table ``missing``, the shares of
  samples that lack a modality, and the modalities that are hidden (all).
- ``epochs``, ``batch_size``, ``quick`` and so on: the keys of the data set.

Fields of the data set's config are set as for a single run and apply to every
row, ``--config.train.select=last``; those of a single row can be set, too,
``--config.rows.lb.method.rate=0.05``.

Every cell is a run in ``<workdir>/<row>/seed_<i>``. Running the same command
again completes what is missing; more seeds or rows are added to existing
results. To split a table between processes with a device each, give each
process its share of the cells (with trials: of the rows):

  for k in 0 1 2 3; do
    CUDA_VISIBLE_DEVICES=$k python launch.py --config=configs/tables.py:... \
      --config.shard=$k --config.shards=4 &
  done; wait

or use a SLURM array, ``--config.shard=$SLURM_ARRAY_TASK_ID``, or submitit:

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

Each process writes the table with all available results after every trial or
row, and about every half minute during long rows. After the runs, the same
command with ``--mode=readouts`` adds all unimodal read-outs and linear probes.
"""

from __future__ import annotations

from pathlib import Path

from dmg_jax.config import compose, files, grid
from dmg_jax.config.rows import missing
from dmg_jax.config.rows.tables import (
  REFERENCE,
  ROW_NOTES,
  TABLES,
  RowSpec,
  TableSpec,
)

_FOLDER = Path(__file__).parent  # Holds the config files of the data sets.
_KEYS = ("rows", "trials")


def get_config(arg: str | None = None) -> compose.Config:
  """The config of ``<table>,dataset=<name>[,key=value...]``.

  Raises:
    ValueError: a table, data set, row or key is unknown; the message lists the
      choices.
  """
  keys = {
    k: (*_KEYS, *(missing.KEYS if t.missing else ())) for k, t in TABLES.items()
  }
  name, given = grid.parse(arg, "table", keys)
  table, dataset = TABLES[name], grid.dataset(name, given, _FOLDER)
  picked = given.pop("rows", "")
  trials = grid.count("trials", given.pop("trials", "1"))
  other = _encoders(table, dataset, given)
  own = missing.take(given) if table.missing else {}
  make = grid.maker(dataset, given, _FOLDER)
  config = grid.common_config(make, dataset)
  encoders = tuple(config.encoders)
  names = picked.split("+") if picked else table.rows
  rows = grid.find_rows(names, dataset, encoders)
  if table.missing:
    modalities = () if dataset == "manifest" else encoders
    rows = missing.at_rates(rows, own, modalities)
  facts = grid.facts(
    name,
    table.title,
    dataset,
    given,
    table.scores,
    _reference(table),
    [*_notes(table, rows), *other],
    table.encoders,
  )
  space = files.load(_FOLDER / "search.py").SPACE
  return grid.assemble(arg, config, facts, rows, make, given, trials, space)


def _reference(table: TableSpec) -> str:
  """The row that the others are compared with."""
  known = ("constant_0", "zero_feature")
  return next((r for r in known if r in table.rows), REFERENCE)


def _encoders(
  table: TableSpec, dataset: str, given: dict[str, str]
) -> list[str]:
  """Sets the table's encoders if the data set has them, else returns a note."""
  quick = given.get("quick", "").lower() == "true"
  if not table.encoders or "encoders" in given:
    return []
  if dataset in ("sarcasm", "twitter2015") and not quick:
    given["encoders"] = table.encoders
    return []
  return [
    f"The encoders are those of configs/{dataset}.py"
    f"{' with quick=true' if quick else ''}, not CLIP: the rows are those of "
    "the paper's table, but the setting differs."
  ]


def _notes(table: TableSpec, rows: dict[str, RowSpec]) -> list[str]:
  """Notes on the table and on the rows that were chosen."""
  there = {row.base or name for name, row in rows.items()}
  own = [note for name, note in ROW_NOTES.items() if name in there]
  added = [rows[name].label for name in table.added if name in rows]
  verb = "is" if len(added) == 1 else "are"
  said = f"{' and '.join(added)} {verb} not in the paper's table."
  return [*table.notes, *own, *([said] if added else [])]
