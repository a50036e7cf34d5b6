"""Tiny runs through the real path, on data that are prepared once."""

import contextlib
import io
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

import helpers
import launch
from configs import manifest, openmoji
from dmg_jax.cli.flags import FLAGS
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, programs, runner, sharding, steps
from pages import without_pictures

ROOT = Path(launch.__file__).parent
# Model and pictures as small as they go; 15 steps an epoch.
TINY = {
  "data.image_size": 8,
  "encoders.image.widths": (8,),
  "encoders.image.features": 8,
  "encoders.text.features": 8,
  "encoders.text.width": 8,
  "train.epochs": 2,
}


@pytest.fixture(scope="session", autouse=True)
def loaded_once(data_dir):
  """The prepared OpenMoji is decoded once for all runs with its options."""
  original, loaded = experiment.load, {}

  def load(config, method):
    if config.data.dir != str(data_dir):
      return original(config, method)
    key = repr((sorted(config.data.to_dict().items()), method.modalities))
    if key not in loaded:
      loaded[key] = original(config, method)
    return loaded[key]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(experiment, "load", load)
    yield


@pytest.fixture(scope="session")
def tiny(data_dir):
  """``tiny("lb,seed=3", {"train.epochs": 1})`` is a config."""

  def make(recipe, fields=()):
    config = openmoji.get_config(recipe)
    changes = {**TINY, "data.dir": str(data_dir), **dict(fields)}
    config.update_from_flattened_dict(changes)
    return config

  return make


@pytest.fixture(scope="session")
def words(data_dir):
  """The same as words of a command line."""

  def make(recipe, workdir, **fields):
    changes = {**TINY, "data.dir": data_dir, **fields}
    return [
      f"--config=configs/openmoji.py:{recipe}",
      f"--workdir={workdir}",
      *(f"--config.{k}={str(v).replace(' ', '')}" for k, v in changes.items()),
    ]

  return make


@pytest.fixture
def command(monkeypatch):
  """``launch.py`` in this process: ``(exit code, output, errors)``."""
  monkeypatch.chdir(ROOT)

  def run(*arguments):
    _forget_flags()
    monkeypatch.setattr(sys, "argv", ["launch.py", *map(str, arguments)])
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      try:
        launch.entry()
      except SystemExit as end:
        code = end.code
    return code, out.getvalue(), err.getvalue()

  yield run
  _forget_flags()


def _forget_flags():
  """As in a new process: no fields of another config, nothing given."""
  for name in list(flags.FLAGS):
    if name.startswith("config."):
      delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()
  for name in FLAGS:
    flags.FLAGS[name].unparse()


class Shared:
  """What runs of one config share here and would each make anew otherwise."""

  def __init__(self):
    self._made = {}

  def assemble(self, original):
    """Data, model and method, once a config and number of devices."""

    def wrapped(config, dataset=None, encoders=None):
      if encoders:
        return original(config, dataset, encoders)
      names = {"variant": "", "recipe": ""}  # They change nothing.
      fields = json.dumps({**config.to_dict(), **names})
      key = fields, sharding.make_mesh
      if key not in self._made:
        self._made[key] = original(config, dataset)
      return self._made[key]

    return wrapped

  def load(self, original):
    """A data set, once."""

    def wrapped(config, method):
      key = json.dumps(config.data.to_dict()), method.modalities
      if key not in self._made:
        self._made[key] = original(config, method)
      return self._made[key]

    return wrapped

  def once(self, original):
    """A compiled function, once a problem."""

    def wrapped(problem, *rest, **options):
      several = rest[-1:] == (True,)
      key = (original.__name__, id(problem), several)
      if key not in self._made:
        self._made[key] = original(problem, *rest, **options)
      return self._made[key]

    return wrapped


@pytest.fixture(scope="session")
def shared():
  """One memory of compiled programs for the session."""
  return Shared()


def _one_device(batch_size):
  del batch_size
  kind, one = (jax.sharding.AxisType.Auto,), jax.devices()[:1]
  return jax.make_mesh((1,), ("b",), axis_types=kind, devices=one)


@pytest.fixture(scope="module")
def quick(shared):
  """Runs compile once, use one device and render no pictures."""
  with pytest.MonkeyPatch.context() as patch:
    without_pictures(patch)
    patch.setattr(sharding, "make_mesh", _one_device)
    patch.setattr(experiment, "assemble", shared.assemble(experiment.assemble))
    patch.setattr(experiment, "load", shared.load(experiment.load))
    for module, name in (
      (steps, "make_train_step"),
      (steps, "make_outer_step"),
      (programs, "make_eval_step"),
    ):
      patch.setattr(module, name, shared.once(getattr(module, name)))
    yield


@pytest.fixture(scope="session")
def finished():
  """{(recipe, devices): work directory}."""
  return {}


@pytest.fixture
def straight(quick, tiny, finished, tmp_path_factory):
  """The work directory of a run that never stopped; not to be changed."""
  del quick

  def folder(recipe):
    key = recipe, sharding.make_mesh(8).size
    if key not in finished:
      path = tmp_path_factory.mktemp("run") / "work"
      runner.run(tiny(recipe), path, Console(quiet=True))
      finished[key] = path
    return finished[key]

  return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
  """A manifest, and the words of a command line on it."""
  folder = tmp_path_factory.mktemp("given")
  table = helpers.write_manifest(folder / "files", 48, helpers.COLUMNS)
  fields = {
    "data.manifest": str(table),
    "data.dir": str(folder / "data"),
    "data.image_size": 8,
    "encoders.image.widths": (8,),
    "encoders.image.features": 8,
    "encoders.text.features": 8,
    "eval.batch_size": 8,
  }
  return table, fields


@pytest.fixture(scope="module")
def work(quick, pairs, tmp_path_factory):
  """The folder of a run; not to be changed."""
  del quick
  config = manifest.get_config("h")
  config.update_from_flattened_dict(pairs[1])
  return helpers.write_run(config, tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def new(pairs):
  """The rows of test without split and label, and those of all."""
  table, _ = pairs
  rows = [r for r in helpers.read_table(table) if r["split"] == "test"]
  kept = [{c: row[c] for c in helpers.COLUMNS} for row in rows]
  return helpers.write_table(table.with_name("new.csv"), kept), rows


@pytest.fixture(scope="module")
def loaded(work):
  import dmg_jax

  return dmg_jax.load(work, batch_size=8)


@pytest.fixture(scope="module")
def restored(work):
  from dmg_jax.training import restore

  changes = {"eval": {"batch_size": 8}, "loader": {"resident": "off"}}
  return restore.restore(work, changes)


@pytest.fixture(scope="module")
def found(loaded, new):
  """Predictions on the new samples, by Python."""
  path, rows = new
  return loaded.predict(
    {
      "photo": [path.parent / r["photo:image"] for r in rows],
      "caption": [r["caption:text"] for r in rows],
      "sensor": [np.load(path.parent / r["sensor:array"]) for r in rows],
    }
  )
