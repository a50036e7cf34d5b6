"""Config of a grid, rows × seeds on one data set, for tables and figures.

The config of a grid is that of its data set, except that ``table`` (facts about
the grid) and ``rows`` (recipe, fusion and method of each row) take the place of
a single recipe. ``dmg_jax.tables`` turns it into runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from dmg_jax.config import compose, files, search
from dmg_jax.config.rows.tables import ALIASES, REFERENCE, ROWS, RowSpec
from dmg_jax.errors import InputError, unknown

# Data sets whose second score is mAP; all others have macro-F1 (paper).
_RANKED = ("crema_d", "kinetics_sounds")
# Fields that differ from row to row; all others are common to the grid.
_OF_ROW = ("recipe", "variant", "fusion", "method")
_NO_CHANGE = {"dataset", "seed", "seeds"}
_OPTIONAL = ("quick", "encoders")

Make = Callable[[str], compose.Config]


def parse(
  arg: str | None, kind: str, own: Mapping[str, Collection[str]]
) -> tuple[str, dict[str, str]]:
  """Turns ``"table1,dataset=sarcasm"`` into name and keys.

  Args:
    arg: the string after the colon.
    kind: ``table`` or ``figure``.
    own: {name: keys that only this table or figure has} of every name.

  Returns:
    The name and {key: value}, e.g. ``("table1", {"dataset": "sarcasm"})``.

  Raises:
    ValueError: the name is missing or unknown, or a key is unknown; the message
      lists the choices.
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
  """Removes the data set from the keys of a table or figure and returns it.

  Args:
    name: name of the table or figure.
    given: its keys; ``dataset`` is removed.
    folder: folder of the config files of data sets.

  Raises:
    ValueError: the data set is missing or unknown; the message lists the
      choices.
  """
  if "dataset" not in given:
    raise InputError(
      f"no data set given: write {name},dataset=..., with one of "
      + ", ".join(files.datasets(folder))
    )
  return known_dataset(given.pop("dataset"), folder)


def known_dataset(name: str, folder: Path) -> str:
  """``name`` if it has a config file in ``folder``, else a ``ValueError``."""
  known = files.datasets(folder)
  if name not in known:
    raise unknown("data set", name, known)
  return name


def count(key: str, text: str) -> int:
  """The value of a key as a positive integer, else a ``ValueError``."""
  if not text.isdigit() or int(text) < 1:
    raise InputError(f"{key} must be a positive whole number, got {text!r}")
  return int(text)


def maker(dataset: str, given: Mapping[str, str], folder: Path) -> Make:
  """The function ``recipe -> config`` of a data set with the given keys."""
  keys = "".join(f",{k}={v}" for k, v in given.items())
  module = files.load(folder / f"{dataset}.py")
  return lambda recipe: module.get_config(recipe + keys)


def common_config(make: Make, dataset: str) -> compose.Config:
  """The config that all rows share, still with the reference recipe in it.

  Raises:
    ValueError: the data set has no such key, or the value is invalid.
  """
  try:
    return make(REFERENCE)
  except ValueError as error:
    said = f"key of recipe {REFERENCE!r}", f"key of data set {dataset!r}"
    raise InputError(str(error).replace(*said)) from error


def find_rows(
  names: Iterable[str], dataset: str, modalities: tuple[str, ...]
) -> dict[str, RowSpec]:
  """{name: row}; ``unimodal`` becomes one row per modality.

  Raises:
    ValueError: a row is unknown; the message lists the choices.
  """
  free = dataset == "manifest"  # Only the manifest itself names the modalities.
  alone = {
    f"unimodal_{m}": RowSpec(
      f"{m.capitalize()} alone", f"unimodal,modality={m}"
    )
    for m in (() if free else modalities)
  }
  found: dict[str, RowSpec] = {}
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
  """The field ``table`` of a grid's config, without its rows and trials.

  Args:
    name, title: name and title of the table or figure.
    dataset: name of the data set's config.
    given: the keys; those that change the runs are recorded.
    scores: ``both``, ``accuracy`` or ``second``, see ``rows.tables.TableSpec``.
    reference: the row that the others are compared with.
    notes: notes for the reader.
    encoders: the value of the key ``encoders`` that is the table's own setting.
  """
  second = "map" if dataset in _RANKED else "macro_f1"
  kinds = {"both": ("accuracy", second), "second": (second,)}
  asked = [x for x in _changed(given) if x != f"encoders={encoders}"]
  own = [*notes]
  if asked:
    own.append(f"Run with {', '.join(asked)}, unlike the data set's config.")
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
  rows: Mapping[str, RowSpec],
  make: Make,
  given: Mapping[str, str],
  trials: int = 1,
  space: search.Space | None = None,
) -> compose.Config:
  """The config of a grid, assembled from its common config and its rows.

  Args:
    arg: the string after the colon.
    config: result of ``common_config``; it is modified.
    facts: result of ``facts``.
    rows: {name: row}.
    make: result of ``maker``.
    given: the keys that ``make`` was made with.
    trials: number of trials per row.
    space: the search space, for more than one trial.
  """
  with config.unlocked():
    for field in _OF_ROW:
      del config[field]
    config.variant = arg or ""
    # The order of the rows is kept apart, as a ConfigDict sorts its keys.
    config.table = {**facts, "trials": trials, "rows": tuple(rows)}
    changed = facts["changed"]
    config.rows = {k: _row(k, r, make, changed) for k, r in rows.items()}
    for name in rows if space else ():
      config.rows[name]["trials"] = _trials(space, rows[name], given, trials)
    config.update(shard=0, shards=1)
  return config


def _row(name: str, row: RowSpec, make: Make, changed: str) -> dict[str, Any]:
  """The fields of one row: label, recipe, fusion, method, keys of its own."""
  config = make(row.recipe)
  own = {field: config[field] for field in _OF_ROW}
  own["variant"] = ",".join(filter(None, (row.recipe, changed)))
  changes: dict[str, dict[str, Any]] = {}
  for key in compose.parse(row.recipe)[1]:
    if key in compose.SHORT and key not in config.method:
      section, _, field = compose.SHORT[key].partition(".")
      changes.setdefault(section, {})[field] = config[section][field]
  place = {"group": row.group, "base": row.base or name}
  return {"label": row.label, **place, **own, "changes": changes, "trials": {}}


def _trials(space, row: RowSpec, given: Mapping[str, str], count: int) -> dict:
  """{trial: its settings} of a row, without trial 0, which is the defaults."""
  recipe, pairs = compose.parse(row.recipe)
  fixed = {*pairs, *given}
  return {
    f"trial_{i}": search.trial(space, recipe, i, fixed) for i in range(1, count)
  }
