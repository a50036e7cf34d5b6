"""A trained run as an object, and ``load``, which opens it again."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_collections import ConfigDict

from data_pipelines.core import passing
from data_pipelines.manifest.unlabelled import Unlabelled
from dmg_jax.api import inputs
from dmg_jax.api.opened import Opened
from dmg_jax.errors import InputError, MissingFileError, MissingPackageError
from dmg_jax.serving import export, predictor, program
from dmg_jax.serving.predictor import Prediction, Predictor
from dmg_jax.tracking.logging import METRICS, read_metrics
from dmg_jax.training import restore

if TYPE_CHECKING:
  import pandas

# Beside a run that was trained on data in memory: its prepared data.
DATA = "data"


class Run:
  """A trained run: its numbers, its model and its files.

  ``dmg_jax.fit`` returns it, ``dmg_jax.load`` opens it again. Data and weights
  are read when they are needed. A run of several seeds has one ``Run`` for each
  in ``runs``; its own ``results``, ``history``, ``alpha`` and ``report`` are of
  all seeds, and what takes a single model (``evaluate``, ``predict``,
  ``readouts``, ``export``) asks you to choose one.

  Example:

    >>> import dmg_jax, numpy as np
    >>> x = np.random.default_rng(0).normal(size=(24, 3))
    >>> y = np.where(x[:, 0] > 0, "up", "down")
    >>> run = dmg_jax.fit({"sensor": x}, y, recipe="joint", epochs=1)
    >>> run.classes, run.modalities
    (('down', 'up'), {'sensor': 'array'})
    >>> run.predict({"sensor": x[:2]}).probabilities["fused"].shape
    (2, 2)
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    changes: Mapping[str, Any] | None = None,
    owner: Any = None,
    quiet: bool = True,
    encoders: Mapping[str, Any] | None = None,
  ):
    """Opens the folder; users call ``dmg_jax.load``.

    Args:
      folder: a work directory.
      changes: {field of the config: other value}, nested, for reading the run.
      owner: keeps the folder as long as it lives.
      quiet: nothing is printed while data are prepared again.
      encoders: {modality: Flax module}, those of your own that the run was
        trained with.

    Raises:
      ValueError: the folder holds no run.
    """
    self._folder, self._owner = Path(folder).expanduser(), owner
    folders = sorted(restore.runs(self._folder), key=_seed)
    found = _with_data(self._folder, changes or {})
    first = Opened(folders[0], found, quiet, encoders=encoders)
    rest = [Opened(f, found, quiet, first) for f in folders[1:]]
    self._opened = [first, *rest]

  def __repr__(self) -> str:
    config = self._opened[0].stored["config"]
    seeds = f", {len(self._opened)} seeds" * (len(self._opened) > 1)
    return f"<Run of {config['recipe']!r} in {self._folder}{seeds}>"

  def __enter__(self) -> Run:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def close(self) -> None:
    """Deletes the files of a run without ``workdir``; others stay."""
    if self._owner is not None:
      self._owner.close()

  @property
  def folder(self) -> Path:
    """The work directory."""
    return self._folder

  @property
  def config(self) -> Any:
    """The config that the run was made with, a locked ``ConfigDict``."""
    stored = json.loads((self._folder / "config.json").read_text("utf-8"))
    return ConfigDict(stored["config"]).lock()

  @property
  def results(self) -> dict[str, Any]:
    """Contents of ``results.json``: metrics on val and test, α, timing.

    Of several seeds: ``runs``, and their ``mean`` and ``std``.

    Raises:
      ValueError: the run is not finished.
    """
    path = self._folder / "results.json"
    if not self._folder.exists():
      raise InputError(
        f"{self._folder} is not there any more: a run without workdir is "
        "deleted with its object, or by close; give fit a workdir"
      )
    if not path.exists():
      raise InputError(
        f"{self._folder} is not finished: call fit with the same arguments and "
        "workdir, or the same command, and it goes on"
      )
    return json.loads(path.read_text(encoding="utf-8"))

  @property
  def history(self) -> pandas.DataFrame:
    """A row for each line of ``metrics.jsonl``: step, epoch, split, values.

    Of several seeds: all of them, with a column ``seed``.

    Raises:
      ModuleNotFoundError: pandas is not installed.
    """
    try:
      import pandas
    except ModuleNotFoundError as error:
      raise MissingPackageError(
        f"the history is a DataFrame and needs pandas ({error}): pip install "
        "-e '.[pandas]'"
      ) from error
    several, lines = len(self._opened) > 1, []
    for one in self._opened:
      own = {"seed": one.stored["config"]["seed"]} if several else {}
      path = one.folder / METRICS
      if not path.exists():
        raise MissingFileError(f"{path} is not there: train the run first")
      lines += [{**own, **line} for line in read_metrics(path)]
    return pandas.DataFrame(lines)

  @property
  def alpha(self) -> np.ndarray:
    """α after each epoch, [epochs]; [seeds epochs] of several seeds.

    Empty for a method without α.
    """
    results = self.results
    if "runs" in results:
      return np.asarray([one["alpha"] for one in results["runs"]], float)
    return np.asarray(results["alpha"], float)

  @property
  def runs(self) -> list[Run]:
    """A run for each seed; itself alone if there is one."""
    if len(self._opened) == 1:
      return [self]
    return [self._single(one) for one in self._opened]

  @property
  def classes(self) -> tuple[str, ...]:
    """Names of the classes, in order of the probabilities."""
    return self._opened[0].setup.dataset.spec.classes

  @property
  def modalities(self) -> dict[str, str]:
    """{modality: its kind}, of the model."""
    spec = self._opened[0].setup.dataset.spec
    return {m: s.kind for m, s in spec.modalities.items()}

  @property
  def predictor(self) -> Predictor:
    """Preprocessing and model alone, as an export has them."""
    return self._only("predictor").predictor

  @property
  def preprocessors(self) -> dict[str, Any]:
    """{modality: its preprocessing}, a function of a file, text or array."""
    return self.predictor.preprocessors

  def evaluate(self, split: str = "val") -> dict[str, Any]:
    """Metrics of a split: {"fused" or modality: scores, "gap": ...}.

    They are those of the checkpoint that the run ended with, in the form of
    ``results["val"]``.

    Args:
      split: ``train``, ``outer``, ``val`` or ``test``.

    Raises:
      ValueError: the data have no such split; or there is no checkpoint.
    """
    found = self._only("evaluate").evaluation(split)
    return dict(found.metrics)

  def contributions(self, split: str = "test") -> dict[str, Any]:
    """What each modality contributes to the fused prediction.

    Shapley values of the accuracy, what is lost without a modality, the
    accuracy with it alone, and the share of samples that only it gets right;
    see ``dmg_jax.evaluation.contributions``. For val and test they are those
    of ``results["contributions"]``.

    Args:
      split: ``train``, ``outer``, ``val`` or ``test``.

    Raises:
      ValueError: the data have no such split; or there is no checkpoint.
    """
    return self._only("contributions").contributions(split)

  def predict(self, new: Any = None, *, split: str = "") -> Prediction:
    """Probabilities of new samples, preprocessed as those of training.

    Args:
      new: path of a manifest; a DataFrame; or {modality or "name:kind": a
        list, one entry per sample}: texts, paths of files, arrays, pictures.
        Columns ``id`` and ``label`` are passed on, ``split`` is not read. An
        empty entry, or a column that is not there, says that the sample lacks
        the modality, if the run was trained on such samples.
      split: a split of the run's own data instead.

    Raises:
      ValueError: a modality is missing or unknown, or the lists differ in
        length.
      core.DataError: entries that cannot be used, all of them.
    """
    one = self._only("predict")
    if (new is None) != bool(split):
      raise InputError("predict takes new samples, or split=..., one of them")
    if split:
      return _of_split(one, split)
    if isinstance(new, str | os.PathLike):
      given = Unlabelled(new, one.predictor.preprocessors)
      found = one.predictor.run(given.batches(one.predictor.batch_size))
      return dataclasses.replace(
        found, ids=given.ids, targets=given.labels, notes=given.notes
      )
    columns = inputs.new_samples(new, self.modalities)
    ids, targets = columns.pop("id", None), columns.pop("label", None)
    found = one.predictor.predict(columns)
    named, notes = None, []
    if ids is not None:
      named, notes = passing.names([passing.text(i) for i in ids])
    return dataclasses.replace(
      found,
      ids=named,
      targets=None if targets is None else [passing.text(t) for t in targets],
      notes=tuple(notes),
    )

  def readouts(self) -> dict[str, Any]:
    """What each modality says by itself, by every read-out and a linear probe.

    Returns:
      The contents of ``readouts.json``, which is written, too; see
      ``dmg_jax.evaluation.readouts``.

    Raises:
      ValueError: the run is not finished, or ended on val.
    """
    return self._only("readouts").readouts()

  def report(self) -> Path:
    """Draws the run's page and pictures; returns the path of ``report.html``.

    Raises:
      ValueError: a file of the run is damaged.
    """
    from dmg_jax import report  # Late: it loads Matplotlib.

    return report.write_report(self._folder)

  def export(self, folder: str | os.PathLike[str] | None = None) -> list[str]:
    """Writes encoders as safetensors and the model as one program.

    ``dmg_jax.load(folder)`` reads the program back and needs no data.

    Args:
      folder: where to; default ``export`` in the run's folder.

    Returns:
      What was written and what was not, a sentence each.

    Raises:
      ValueError: other files than those of an export would be replaced.
    """
    one = self._only("export")
    to = one.folder / "export" if folder is None else Path(folder).expanduser()
    export.check(to, one.setup)
    said = export.encoders(to, one.setup, one.state)
    return said + export.predictor(to, one.setup, one.state)

  def _only(self, what: str) -> Opened:
    """The single run.

    Raises:
      ValueError: there are several.
    """
    if len(self._opened) > 1:
      raise InputError(
        f"{self._folder} holds {len(self._opened)} runs: load one of them, as "
        f"{self._opened[0].folder}, or call run.runs[0].{what}"
      )
    return self._opened[0]

  def _single(self, one: Opened) -> Run:
    run = object.__new__(Run)
    run._folder, run._owner, run._opened = one.folder, self._owner, [one]
    return run


def load(
  folder: str | os.PathLike[str],
  data_dir: str | os.PathLike[str] | None = None,
  batch_size: int | None = None,
  encoders: Mapping[str, Any] | None = None,
) -> Run | Predictor:
  """Opens a trained run, or what ``export`` wrote.

  A run needs its prepared data, an export nothing besides itself.

  Args:
    folder: a work directory; or a folder that ``Run.export`` wrote.
    data_dir: folder of prepared data, if it has moved.
    batch_size: samples that go through the model at once, at most; default the
      run's own.
    encoders: {modality: Flax module}, those of your own that the run was
      trained with; what needs the model asks for them. An export has them.

  Returns:
    The run; of an export its ``Predictor``, which only predicts.

  Raises:
    ValueError: the folder holds neither.

  Example:

    >>> import dmg_jax, numpy as np, tempfile
    >>> x = np.random.default_rng(0).normal(size=(24, 3))
    >>> y = np.where(x[:, 0] > 0, "up", "down")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   run = dmg_jax.fit(
    ...     {"x": x}, y, recipe="joint", epochs=1, workdir=f"{folder}/run"
    ...   )
    ...   again = dmg_jax.load(f"{folder}/run")
    ...   again.results == run.results
    True
  """
  path = Path(folder).expanduser()
  if (path / program.FACTS).exists():
    return predictor.load(path, batch_size)
  changes: dict[str, Any] = {"loader": {"resident": "off"}}
  if batch_size is not None:
    changes["eval"] = {"batch_size": batch_size}
  if data_dir is not None:
    changes["data"] = {"dir": os.fspath(data_dir)}
  return Run(path, changes, encoders=encoders)


def _with_data(folder: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
  """``changes``; with the data that lie in the folder, wherever it is now."""
  data = changes.get("data", {})
  stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
  if stored["config"]["data"].get("prepared") and (folder / DATA).is_dir():
    data = {"dir": str(folder / DATA), **data}
  return {**changes, "data": data} if data else dict(changes)


def _of_split(one: Opened, split: str) -> Prediction:
  """Probabilities of a split of the run's own data, with ids and labels."""
  found, dataset = one.evaluation(split), one.setup.dataset
  source, classes = dataset.sources[split], dataset.spec.classes
  specs = dataset.spec.modalities
  known = [m for m in specs if m in found.present]
  lacking = tuple(
    tuple(m for m in known if not found.present[m][row])
    for row in range(len(found.index))
  )
  return Prediction(
    classes,
    dict(found.probabilities),
    ids=[source[int(i)]["id"] for i in found.index],
    targets=[classes[int(i)] for i in found.labels],
    missing=lacking if any(s.optional for s in specs.values()) else None,
  )


def _seed(folder: Path) -> int:
  """The number in the name of a seed's folder, 0 for a run by itself."""
  found = re.search(r"seed_(\d+)$", folder.name)
  return int(found[1]) if found else 0
