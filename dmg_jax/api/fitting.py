"""``fit``: from data of any form to a trained run, as the command makes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.core.progress import quietly
from data_pipelines.manifest import memory
from dmg_jax import processes
from dmg_jax.api import inputs
from dmg_jax.api.run import DATA, Run
from dmg_jax.api.temporary import Temporary
from dmg_jax.config import compose, fields, files, own_data
from dmg_jax.config.compose import ENCODER, RecipeKeys
from dmg_jax.config.defaults import DEFAULTS
from dmg_jax.errors import InputError
from dmg_jax.model import own
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, runner, validation
from dmg_jax.training.experiment import Config

_DIR = DEFAULTS["data"]["dir"]


def fit(
  data: Any,
  y: Any = None,
  *,
  recipe: str = "lb",
  workdir: str | os.PathLike[str] | None = None,
  encoders: Mapping[str, Any] | None = None,
  config: Mapping[str, Any] | None = None,
  verbose: bool = False,
  **keys: Any,
) -> Run:
  """Trains a recipe and returns the run.

  The same recipe, keys and fields give the same weights and metrics as the
  command ``python launch.py``, to the bit.

  Args:
    data: one of

      - the path of a manifest (``.csv``, ``.tsv``, ``.jsonl``, ``.parquet``);
      - the path of a config file (``configs/openmoji.py``);
      - a pandas DataFrame with the columns of a manifest: ``label``, one
        ``name:kind`` for each modality, and perhaps ``split`` and ``id``;
      - ``{modality or "name:kind": one entry per sample}``: arrays, texts,
        paths of files or PIL pictures. Without a kind it follows from the
        entries: ``uint8`` pictures and frames are image and video, other
        numbers array, strings text unless all of them are files.

      With ``missing="allow"`` an empty cell (``None``, NaN, a blank text) is a
      modality that the sample lacks.
    y: the labels, if the data have none: texts or numbers, [n].
    recipe: its name; ``dmg_jax.recipes()`` lists them.
    workdir: folder of the run. A run that was interrupted goes on there when
      ``fit`` is called again with the same arguments. Without it all files,
      prepared data included, are temporary: they go with the returned object.
      Data in memory are stored in ``<workdir>/data``; those of a path where the
      config says, ``data`` by default.
    encoders: {modality or kind: encoder}: the name of one, as
      ``resnet.ResNet``, or a Flax module of your own.
    config: {field: value} for any field of the config, as
      ``{"optimiser.learning_rate": 3e-4, "encoders.image.width": 16}``.
    verbose: print what the command prints.
    **keys: what may stand behind the recipe on the command line: ``epochs``,
      ``seed``, ``seeds``, ``batch_size``, ``learning_rate``, ``weight_decay``,
      ``schedule``, ``fusion``, and the options of the recipe's method. For
      classes of different sizes: ``class_weights``, ``"balanced"`` or {label:
      weight}; ``sampler="balanced"``; ``select_by="macro_f1"``. For missing
      modalities: ``missing="allow"``; and ``drop``, {modality: share of the
      samples that it is hidden in}, for experiments.

  Returns:
    The finished run. Data in memory without rows of ``split`` test end on val:
    ``results`` has no ``test`` then.

  Raises:
    ValueError: an unknown recipe, key or field; a value of the wrong type or
      out of range; labels that are missing or of the wrong number; a column
      whose kind is not clear; a work directory of another run.
    core.DataError: what is wrong with the data, all of it.
    KeyboardInterrupt: Ctrl-C; with ``workdir`` the state is saved first.

  Example:

    >>> import dmg_jax, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(24, 3))
    >>> y = np.where(x[:, 0] > 0, "up", "down")
    >>> words = ["rising" if label == "up" else "falling" for label in y]
    >>> run = dmg_jax.fit(
    ...   {"sensor": x, "note": words}, y, recipe="h", epochs=2, seed=1
    ... )
    >>> run.modalities
    {'sensor': 'array', 'note': 'text'}
    >>> sorted(run.results["val"])
    ['fused', 'gap', 'note', 'sensor']
    >>> run.predict({"sensor": x[:1], "note": ["rising"]}).labels[0] in y
    True
  """
  names = {k: v for k, v in (encoders or {}).items() if isinstance(v, str)}
  modules = {
    k: own.wrap(k, v) for k, v in (encoders or {}).items() if k not in names
  }
  slots = {ENCODER + m: name for m, name in names.items()}
  chosen = RecipeKeys(recipe, {**_named(keys), **slots})
  if workdir is None and processes.several():
    raise InputError(
      "several processes write to one folder: give fit a workdir that all see"
    )
  owner = Temporary() if workdir is None else None
  folder = Path(owner.path / "run" if owner else workdir or "").expanduser()
  try:
    with quietly(not verbose):
      made = _config(
        data, y, chosen, dict(config or {}), modules, folder, owner
      )
      console = Console(quiet=not verbose)
      done = train(made, folder, console, page=False, encoders=modules)
      if done is None:
        raise KeyboardInterrupt
    return Run(folder, owner=owner, encoders=modules)
  except BaseException:
    if owner is not None:
      owner.close()
    raise


def _named(keys: dict[str, Any]) -> dict[str, Any]:
  """The keys, with weights of classes by the names of their labels."""
  table = keys.get("class_weights")
  if not isinstance(table, Mapping):
    return keys
  names = map(str, inputs.labels(list(table)))
  return {
    **keys,
    "class_weights": dict(zip(names, table.values(), strict=True)),
  }


def train(
  config: Config,
  workdir: Path,
  console: Console,
  command: str | None = None,
  page: bool = True,
  encoders: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
  """Trains what a config names; arguments and result as ``runner.run``."""
  return runner.run(config, workdir, console, command, page, encoders)


def _config(
  data: Any,
  y: Any,
  chosen: RecipeKeys,
  changes: dict[str, Any],
  modules: dict[str, own.Own],
  folder: Path,
  owner: Temporary | None,
) -> Config:
  """The run's config; data in memory are stored on the way."""
  if not isinstance(data, str | os.PathLike):
    config = own_data.get_config(chosen)
    experiment.enter(config, modules)
    fields.set_all(config, changes)
    validation.check(config)
    if config.data.dir == _DIR:
      config.data.dir = str((owner.path if owner else folder) / DATA)
    return _stored(config, inputs.table(data, y), "eval.test" in changes)
  if y is not None:
    raise InputError("labels y are for data in memory: a file has its own")
  path = os.fspath(data)
  if Path(path).suffix == ".py" or ".py:" in path:
    config = _of_file(path, chosen)
  else:
    config = own_data.get_config(chosen)
    config.data.manifest = path
  experiment.enter(config, modules)
  fields.set_all(config, changes)
  if owner is not None and config.data.dir == _DIR:
    config.data.dir = str(owner.path / DATA)
  return config


def _stored(config: Config, table: inputs.Columns, tests: bool) -> Config:
  """The config of a table that is stored now.

  Args:
    config: with ``data.dir``.
    table: as ``inputs.table``.
    tests: the user says whether the run is tested; else rows of test do.
  """
  known = compose.options(memory.prepare)
  options = {k: v for k, v in config.data.to_dict().items() if k in known}
  del options["name"]
  made = processes.in_turn(
    lambda: memory.prepare(table, config.data.dir, **options)
  )
  config.data.prepared = made.versions["key"]
  if not tests:
    config.eval.test = bool(made.counts.get("test"))
  return config


def _of_file(path: str, chosen: RecipeKeys) -> Config:
  file, colon, _ = path.partition(":")
  if colon:
    raise InputError(
      f"{path!r}: give the recipe and its keys as arguments, "
      f"fit({file!r}, recipe=..., epochs=...)"
    )
  config = files.get_config(file, chosen)
  if "table" in config or "figure" in config:
    raise InputError(
      f"{path} is of many runs and fit makes one: use the command, "
      f"python launch.py --config={path}:..."
    )
  return config
