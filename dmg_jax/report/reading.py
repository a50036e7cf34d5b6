"""The contents of a work directory, finished or not."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmg_jax.errors import InputError, MissingFileError
from dmg_jax.report.examples import load_examples
from dmg_jax.report.features import load_features
from dmg_jax.report.predictions import load_predictions
from dmg_jax.report.tables import readouts
from dmg_jax.tracking.logging import METRICS, read_metrics

# On a train line beside loss terms and what the method declares.
_NO_TERMS = frozenset({"step", "epoch", "split", "alpha", "weight_norm"})
# Parts of the metrics that are no modality.
_OTHER = ("fused", "gap", "missing")
_SPECIAL = {"NaN", "Infinity", "-Infinity"}

Points = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RunFiles:
  """One seed.

  Attributes:
    name: of its folder.
    lines: of ``metrics.jsonl``.
    results: contents of ``results.json``, ``None`` while unfinished.
    features: contents of ``test_features.npz``, or ``None``.
    predictions: contents of ``test_predictions.npz``, or ``None``.
    examples: contents of ``test_examples.npz``, or ``None``.
    readouts: contents of ``readouts.json``, or ``None``.
    diagnostics: metrics that are no loss terms, as the method declares them.
  """

  name: str
  lines: list[dict[str, Any]]
  results: dict[str, Any] | None
  features: dict[str, np.ndarray] | None
  predictions: dict[str, np.ndarray] | None = None
  examples: dict[str, np.ndarray] | None = None
  readouts: dict[str, Any] | None = None
  diagnostics: tuple[str, ...] = ()

  def series(self, split: str, name: str) -> Points:
    """``(x, y)`` of a value over epochs done, without points not finite.

    Returns:
      Two arrays [n]; n is 0 if nothing was logged.
    """
    per_epoch = self.steps_per_epoch()
    found = [
      (line["step"] / per_epoch, line[name])
      for line in self.lines
      if line["split"] == split and isinstance(line.get(name), (int, float))
    ]
    table = np.array(found, float).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, 0], table[:, 1]

  def steps_per_epoch(self) -> float:
    """From the last line of an epoch; 1 where nothing was logged."""
    first = min((line["epoch"] for line in self.lines), default=1)
    done = [x for x in self.lines if x["split"] == "val" and x["step"]]
    done = done or [x for x in self.lines if x["step"]][-1:]
    if not done:
      return 1.0
    return done[-1]["step"] / (done[-1]["epoch"] + 1 - min(first, 1))

  def alpha(self) -> Points:
    """α of each epoch, x from 1."""
    logged = list((self.results or {}).get("alpha") or [])
    if logged:
      return np.arange(1.0, len(logged) + 1), np.array(logged, float)
    x, y = self.series("train", "alpha")
    epoch = np.ceil(x - 1e-9)
    last = [np.flatnonzero(epoch == e)[-1] for e in np.unique(epoch)]
    return epoch[last], y[last]

  def terms(self) -> list[str]:
    """Loss terms of train lines, ``loss`` first; none that only repeats it.

    They are all metrics but ``alpha`` and the method's declared diagnostics.
    """
    train = [line for line in self.lines if line["split"] == "train"]
    total = self.series("train", "loss")[1]
    own = [
      name
      for name in dict.fromkeys(k for line in train for k in line)
      if self._is_term(name)
      and not np.array_equal(self.series("train", name)[1], total)
    ]
    return ([] if total.size == 0 else ["loss"]) + own

  def _is_term(self, name: str) -> bool:
    if name == "loss" or name in _NO_TERMS:
      return False
    return not any(
      name == one or name.startswith(f"{one}_") for one in self.diagnostics
    )


@dataclasses.dataclass(frozen=True)
class Workdir:
  """All runs of a work directory.

  Attributes:
    path: of the directory.
    stored: contents of ``config.json``.
    results: contents of its ``results.json``, ``None`` while unfinished.
    runs: one or several seeds, in order.
  """

  path: Path
  stored: dict[str, Any]
  results: dict[str, Any] | None
  runs: list[RunFiles]

  @property
  def config(self) -> dict[str, Any]:
    return self.stored.get("config") or {}

  @property
  def recipe(self) -> str:
    return str(self.get("recipe", default="run"))

  @property
  def dataset(self) -> str:
    data = self.get("data", "name", default=None)
    return str((self.results or {}).get("dataset") or data or "own data")

  @property
  def tests(self) -> list[dict[str, Any]]:
    """Test metrics of each finished seed."""
    finished = [r.results for r in self.runs if r.results]
    if self.results:
      finished = self.results.get("runs") or [self.results]
    return [r["test"] for r in finished if r.get("test")]

  @property
  def readout(self) -> str:
    """The unimodal read-out, by its name."""
    known = [self.results or {}, *(self.results or {}).get("runs", [])]
    known += [r.results or {} for r in self.runs]
    return next((str(r["readout"]) for r in known if "readout" in r), "")

  @property
  def selected_by(self) -> str:
    """The score on val that chose the state, ``last``, or empty if unknown."""
    known = [self.results or {}, *(self.results or {}).get("runs", [])]
    known += [r.results or {} for r in self.runs]
    said = [str(r["selected_by"]) for r in known if "selected_by" in r]
    return said[0] if said else ""

  @property
  def modalities(self) -> list[str]:
    """From the results, else from what was logged, else from the config."""
    for metrics in self.tests:
      return [m for m in metrics if m not in _OTHER]
    logged = [k for r in self.runs for line in r.lines for k in line]
    names = [k.removesuffix("/accuracy") for k in logged if "/accuracy" in k]
    names = [m for m in names if "/" not in m and m not in _OTHER]
    names = list(dict.fromkeys(names))
    return names or list(self.get("encoders", default={}))

  @property
  def epochs(self) -> int | None:
    """Epochs that the run was configured with."""
    return self.get("train", "epochs", default=None)

  @property
  def epochs_done(self) -> int:
    """Of the seed that is furthest."""
    val = [r.series("val", "fused/accuracy")[0] for r in self.runs]
    return round(max((x[-1] for x in val if x.size), default=0))

  def get(self, *path: str, default: Any) -> Any:
    """A field of the config."""
    value: Any = self.config
    for name in path:
      if not isinstance(value, Mapping) or name not in value:
        return default
      value = value[name]
    return value


def read(workdir: str | Path) -> Workdir:
  """Everything that can be reported of ``workdir``.

  Raises:
    FileNotFoundError: no such directory, or none of a run.
    ValueError: a damaged file.
  """
  path = Path(workdir)
  if not path.is_dir():
    raise MissingFileError(
      f"no work directory {path}: train first, or name one with --workdir"
    )
  stored = _json(path / "config.json")
  if stored is None:
    raise MissingFileError(
      f"{path / 'config.json'} is missing, so {path} holds no run: name the "
      "work directory of a run with --workdir"
    )
  seeds = sorted(path.glob("seed_*"), key=_natural)
  folders = [folder for folder in seeds if folder.is_dir()] or [path]
  declared = _diagnostics(stored)
  runs = [_run(folder, declared) for folder in folders]
  return Workdir(path, stored, _json(path / "results.json"), runs)


def _natural(path: Path) -> list[Any]:
  return [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", path.name)]


def _diagnostics(stored: Mapping[str, Any]) -> tuple[str, ...]:
  """What the method of a run declares; an older run is looked up by name."""
  if "diagnostics" in stored:
    return tuple(stored["diagnostics"])
  options = (stored.get("config") or {}).get("method")
  if not options:
    return ()
  from dmg_jax.model import registry  # Late: it loads JAX.

  try:
    return registry.make_method(**options).diagnostics
  except (TypeError, ValueError):  # Of another version.
    return ()


def _run(folder: Path, diagnostics: tuple[str, ...]) -> RunFiles:
  metrics = folder / METRICS
  lines = read_metrics(metrics) if metrics.exists() else []
  return RunFiles(
    folder.name.replace("_", " "),
    lines,
    _json(folder / "results.json"),
    load_features(folder),
    load_predictions(folder),
    load_examples(folder),
    _json(folder / readouts.FILE),
    diagnostics,
  )


def _json(path: Path) -> dict[str, Any] | None:
  if not path.exists():
    return None
  try:
    return _numbers(json.loads(path.read_text(encoding="utf-8")))
  except ValueError as error:
    raise InputError(f"{path} is damaged ({error}): delete it") from error


def _numbers(tree: Any) -> Any:
  """NaN and infinities back from their strings."""
  if isinstance(tree, dict):
    return {k: _numbers(v) for k, v in tree.items()}
  if isinstance(tree, list):
    return [_numbers(v) for v in tree]
  return float(tree) if isinstance(tree, str) and tree in _SPECIAL else tree


def over_epochs(points: Points) -> Iterator[tuple[float, float]]:
  """Mean of each epoch, at the mean of its x."""
  x, y = points
  epoch = np.ceil(x - 1e-9)
  for e in np.unique(epoch):
    yield float(x[epoch == e].mean()), float(y[epoch == e].mean())
