"""A finished run, read back from its work directory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipelines import manifest
from data_pipelines.core import storage
from dmg_jax.config.defaults import DEFAULTS
from dmg_jax.errors import DataError, InputError, one_line
from dmg_jax.evaluation.metrics import Evaluation, evaluate, make_eval_step
from dmg_jax.training import checkpoint, experiment, run_folder
from dmg_jax.training.checkpoint import Checkpoints
from dmg_jax.types import TrainState

_AGAIN = 3  # attempts at a checkpoint while another process trains
_ABOVE = 5  # folders above a run that are looked into for its data


def runs(workdir: Path) -> list[Path]:
  """The folders of the single runs below a work directory.

  Raises:
    ValueError: there is none.
  """
  if not (workdir / run_folder.FILE).exists():
    raise InputError(
      f"{workdir} holds no run: train first, or name one with --workdir"
    )
  return sorted(workdir.glob("seed_*")) or [workdir]


def changes(config: Any) -> dict[str, Any]:
  """The fields of a config that apply to reading a run, for ``restore``."""
  return {"eval": config.eval.to_dict(), "data": {"dir": config.data.dir}}


def restore(
  folder: Path,
  changes: Mapping[str, Any],
  encoders: Mapping[str, Any] | None = None,
) -> tuple[experiment.Setup, TrainState]:
  """The run in ``folder`` as it was configured, at its checkpoint.

  Encoders have the options they had then; pretrained weights are not read
  again.

  Args:
    folder: of a single run.
    changes: {field of the config: other value}, nested.
    encoders: {modality: Flax module}, those of the user's own that the run was
      trained with, see ``own.wrap``.

  Raises:
    ValueError: no checkpoint, or one that does not fit; other data.
    core.DataError: the data are not there or damaged.
  """
  setup = configured(folder, changes, encoders)
  return setup, chosen(folder, setup)


def chosen(folder: Path, setup: experiment.Setup) -> TrainState:
  """The state that a run ends with: the best on val, or the last.

  Args:
    folder: of a single run.
    setup: of that run, or of another seed of the same config.

  Raises:
    ValueError: no checkpoint, or one that does not fit.
    DamagedError: its files are not as they were written.
  """
  for _ in range(_AGAIN):
    before = checkpoint.saved(folder)
    try:
      return _chosen(folder, setup)
    except Exception:
      # A process that trains may have removed it meanwhile.
      if before <= checkpoint.saved(folder):
        raise
  return _chosen(folder, setup)


def _chosen(folder: Path, setup: experiment.Setup) -> TrainState:
  score = setup.config.train.select_by
  checkpoints = Checkpoints(folder, score=score, readonly=True)
  try:
    select = setup.config.train.select
    step = checkpoints.best() if select == "best" else checkpoints.last()
    if step is None:
      raise InputError(f"{folder} has no checkpoint yet: train first")
    return checkpoints.restore(step, setup.fresh())
  finally:
    checkpoints.close()


def at_epochs(
  folder: Path, setup: experiment.Setup, epochs: Iterable[int]
) -> Iterator[TrainState]:
  """The states of a run after these epochs, one after another.

  Args:
    folder: of a single run.
    setup: of that run, ``configured``.
    epochs: from 1 on. Apart from the last and the best, a run keeps those in
      ``train.keep``.

  Raises:
    ValueError: the checkpoint of an epoch is not there.
  """
  size = setup.batch_size
  per_epoch = setup.loader("train", size).steps_per_epoch
  # Checkpoints hold the metric of their own score alone.
  score = setup.config.train.select_by
  checkpoints = Checkpoints(folder, score=score, readonly=True)
  try:
    there, like = checkpoints.steps(), setup.fresh()
    for epoch in epochs:
      if epoch * per_epoch not in there:
        known = [s // per_epoch for s in there if s % per_epoch == 0]
        raise InputError(
          f"{folder} has no checkpoint of epoch {epoch} (there are those of "
          f"{', '.join(map(str, known)) or 'none'}): choose other epochs, or "
          "delete the folder and train again with train.keep"
        )
      yield checkpoints.restore(epoch * per_epoch, like)
  finally:
    checkpoints.close()


def configured(
  folder: Path,
  changes: Mapping[str, Any],
  encoders: Mapping[str, Any] | None = None,
) -> experiment.Setup:
  """The run in ``folder`` as it was configured; arguments as ``restore``.

  Raises:
    ValueError: a config that cannot work, or other data.
    core.DataError: the data are not there or damaged.
  """
  found = stored(folder)
  own: experiment.Config = ConfigDict(found["config"])
  own.update(changes)
  # Fields that are newer than the run.
  top = {k: v for k, v in DEFAULTS.items() if k not in own}
  own.update(top)
  for part in ("train", "data"):
    new = {k: v for k, v in DEFAULTS[part].items() if k not in own[part]}
    own[part].update(new)
  own.track = ""  # Reading a run is not tracked.
  for m, options in found.get("encoders", {}).items():
    own.encoders[m] = {**options, "pretrained": ""}
  found_data = find_data(own, folder)
  try:
    setup = experiment.assemble(own, encoders=encoders)
  except DataError as error:
    if found_data or not own.data.get("manifest"):
      raise
    raise _missing(own, folder, error) from error
  run_folder.check_data(setup.dataset.fingerprint, folder)
  return setup


def find_data(config: Any, folder: Path) -> bool:
  """Enters into a config where the run's data are, if they are anywhere.

  They are those with the run's fingerprint: in ``data.dir``; where they were
  when the run was made; or beside the run, if the whole was moved. A manifest
  that is gone, or one of its files, is not needed then.

  Args:
    config: of the run; ``data.dir`` and more of ``data`` are changed.
    folder: of the run.

  Returns:
    Whether they were found.
  """
  fingerprint = run_folder.fingerprint(folder)
  if not fingerprint:
    return False
  for place in _places(config, folder):
    found = storage.find(place, fingerprint)
    if found is None:
      continue
    config.data.dir = place
    if config.data.name == "manifest" and config.data.manifest:
      options = config.data.to_dict()
      key = manifest.key_of(place, found)
      if key and not manifest.is_there(place, options):
        config.data.update(manifest="", prepared=key)
    return True
  return False


def _missing(config: Any, folder: Path, error: DataError) -> DataError:
  """The error for a run without prepared data that cannot be made again."""
  places = ", ".join(dict.fromkeys(_places(config, folder)))
  return DataError(
    f"the prepared data of the run in {folder} are not there (looked for in "
    f"{places}), and cannot be made again from {config.data.manifest}: "
    f"{one_line(error)[:300]}. Name the folder of the prepared data with "
    "--config.data.dir (data_dir=... in Python), or put the manifest and its "
    "files back"
  )


def _places(config: Any, folder: Path) -> Iterator[str]:
  """Folders that may hold prepared data."""
  yield config.data.dir
  known = run_folder.data_place(folder)
  if known:
    yield known
  given = Path(run_folder.configured_dir(folder) or config.data.dir)
  if not given.is_absolute():
    for above in list(folder.resolve().parents)[:_ABOVE]:
      yield str(above / given)


def stored(folder: Path) -> dict[str, Any]:
  """Contents of the run's ``config.json``."""
  return json.loads((folder / run_folder.FILE).read_text(encoding="utf-8"))


def inference(
  folder: Path,
  changes: Mapping[str, Any],
  encoders: Mapping[str, Any] | None = None,
) -> tuple[experiment.Setup, Evaluation]:
  """Restores the run in ``folder`` and evaluates ``eval.split``."""
  setup, state = restore(folder, changes, encoders)
  eval_step = make_eval_step(setup.problem, setup.method)
  split = setup.config.eval.split
  return setup, evaluate(eval_step, state, setup.batches(split))
