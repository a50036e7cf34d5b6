"""What tables and figures share: a grid of rows × seeds on one data set.

A grid's config is that of its data set, with ``table`` (facts) and ``rows``
(each its recipe, fusion, method) in place of one recipe; ``dmg_jax.tables``
makes runs of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from dmg_jax.config import compose, files, search
from dmg_jax.config.table_rows import ALIASES, REFERENCE, ROWS, Row
from dmg_jax.errors import InputError, unknown

# Data sets that are scored by mAP; others by macro-F1, as in the paper.
_RANKED = ("crema_d", "kinetics_sounds")
# Fields that a row has of its own; all others are common to the grid.
_OF_ROW = ("recipe", "variant", "fusion", "method")
_NO_CHANGE = {"dataset", "seed", "seeds"}
_OPTIONAL = ("quick", "encoders")

Make = Callable[[str], compose.Config]


def parse(
  arg: str | None, kind: str, own: Mapping[str, Collection[str]]
) -> tuple[str, dict[str, str]]:
  """``"table1,dataset=openmoji"`` to ``("table1", {"dataset": "openmoji"})``.

  Args:
    arg: the string after the colon.
    kind: ``table`` or ``figure``.
    own: {name: its keys beside those of every grid}, of all of that kind.

  Raises:
    ValueError: no or an unknown name, or an unknown key, with the choices.
  """
  name, *pairs = (arg or "").split(",")
  if not name:
    raise InputError(
      f"no {kind} given: write configs/{kind}s.py:<{kind}>,dataset=<data set>, "
      f"with one of {', '.join(own)}"
    )
  if name not in own:
    raise unknown(kind, name, own)
  given = compose.keys(pairs, f"the {kind}")
  valid = {*_NO_CHANGE, *own[name], *_OPTIONAL, *compose.SHORT} - {"fusion"}
  for key in given:
    if key not in valid and not key.startswith(compose.ENCODER):
      raise unknown(f"key of {kind} {name!r}", key, valid)
  return name, given


def dataset(name: str, given: dict[str, str], folder: Path) -> str:
  """Takes the data set out of the keys of the table or figure ``name``.

  Args:
    name: of the table or figure.
    given: its keys.
    folder: of the data sets' config files.

  Raises:
    ValueError: none, or an unknown one, with the choices.
  """
  if "dataset" not in given:
    raise InputError(
      f"no data set given: write {name},dataset=..., with one of "
      + ", ".join(files.datasets(folder))
    )
  return known_dataset(given.pop("dataset"), folder)


def known_dataset(name: str, folder: Path) -> str:
  """The name, if there is a config of it; else a ``ValueError``."""
  known = files.datasets(folder)
  if name not in known:
    raise unknown("data set", name, known)
  return name


def count(key: str, text: str) -> int:
  """A key's value as a whole number from 1, else a ``ValueError``."""
  if not text.isdigit() or int(text) < 1:
    raise InputError(f"{key} must be a whole number from 1, got {text!r}")
  return int(text)


def maker(dataset: str, given: Mapping[str, str], folder: Path) -> Make:
  """``recipe -> config`` of the data set with the given keys."""
  keys = "".join(f",{k}={v}" for k, v in given.items())
  module = files.load(folder / f"{dataset}.py")
  return lambda recipe: module.get_config(recipe + keys)


def common_config(make: Make, dataset: str) -> compose.Config:
  """The config that all rows share, still with a recipe in it.

  Raises:
    ValueError: a key that the data set lacks, or its value.
  """
  try:
    return make(REFERENCE)
  except ValueError as error:
    said = f"key of recipe {REFERENCE!r}", f"key of data set {dataset!r}"
    raise InputError(str(error).replace(*said)) from error


def find_rows(
  names: Iterable[str], dataset: str, modalities: tuple[str, ...]
) -> dict[str, Row]:
  """The rows, each modality's own in place of ``unimodal``.

  Raises:
    ValueError: an unknown one, with the choices.
  """
  free = dataset == "manifest"  # Its modalities are known to the file alone.
  alone = {
    f"unimodal_{m}": Row(f"{m.capitalize()} alone", f"unimodal,modality={m}")
    for m in (() if free else modalities)
  }
  found: dict[str, Row] = {}
  for name in (ALIASES.get(n, n) for n in names):
    if name == "unimodal" and alone:
      found |= alone
    elif name in ROWS:
      found[name] = ROWS[name]
    elif name in alone:
      found[name] = alone[name]
    else:
      raise unknown("row", name, [*ROWS, *ALIASES, *alone])
  return found


def facts(
  name: str,
  title: str,
  dataset: str,
  given: Mapping[str, str],
  scores: str = "accuracy",
  reference: str = REFERENCE,
  notes: Iterable[str] = (),
  encoders: str = "",
) -> dict[str, Any]:
  """What is known of a grid: the config's ``table``, but for rows and trials.

  Args:
    name, title: of the table or figure.
    dataset: its config's name.
    given: the keys, as far as they change the runs.
    scores: ``both``, ``accuracy`` or ``second``, see ``_table_rows.Table``.
    reference: row that others are compared with.
    notes: what the reader must know.
    encoders: value of the key ``encoders`` that changes nothing.
  """
  second = "map" if dataset in _RANKED else "macro_f1"
  kinds = {"both": ("accuracy", second), "second": (second,)}
  asked = [x for x in _changed(given) if x != f"encoders={encoders}"]
  own = [*notes]
  if asked:
    own.append(
      f"Run with {', '.join(asked)}: not the setting of the data set's config."
    )
  return {
    "name": name,
    "title": title,
    "dataset": dataset,
    "scores": kinds.get(scores, ("accuracy",)),
    "reference": reference,
    "changed": ",".join(asked),
    "tuning_seed": 1000,
    "notes": tuple(own),
  }


def _changed(given: Mapping[str, str]) -> list[str]:
  return [f"{k}={v}" for k, v in given.items() if k not in _NO_CHANGE]


def assemble(
  arg: str | None,
  config: compose.Config,
  facts: Mapping[str, Any],
  rows: Mapping[str, Row],
  make: Make,
  given: Mapping[str, str],
  trials: int = 1,
  space: search.Space | None = None,
) -> compose.Config:
  """The grid's config from what its rows share and what they are.

  Args:
    arg: the string after the colon.
    config: of ``common_config``; it is changed.
    facts: of ``facts``.
    rows: {name: row}.
    make: of ``maker``.
    given: the keys that ``make`` was given.
    trials: a row.
    space: what is tuned, for more than one trial.
  """
  with config.unlocked():
    for field in _OF_ROW:
      del config[field]
    config.variant = arg or ""
    # A ConfigDict sorts its keys.
    config.table = {**facts, "trials": trials, "rows": tuple(rows)}
    config.rows = {k: _row(r, make, facts["changed"]) for k, r in rows.items()}
    for name in rows if space else ():
      config.rows[name]["trials"] = _trials(space, rows[name], given, trials)
    config.update(shard=0, shards=1)
  return config


def _row(row: Row, make: Make, changed: str) -> dict[str, Any]:
  """What a row has of its own: recipe, fusion, method."""
  config = make(row.recipe)
  own = {field: config[field] for field in _OF_ROW}
  own["variant"] = ",".join(filter(None, (row.recipe, changed)))
  return {"label": row.label, **own, "trials": {}}


def _trials(space, row: Row, given: Mapping[str, str], count: int) -> dict:
  """What the trials of a row set, but for the first, the defaults."""
  recipe, pairs = compose.parse(row.recipe)
  fixed = {*pairs, *given}
  return {
    f"trial_{i}": search.trial(space, recipe, i, fixed) for i in range(1, count)
  }
