"""Every field of every config: it is refused, or it changes nothing."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import launch
from configs import manifest, openmoji
from dmg_jax.config import files, identity
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, run_folder, runner
from dmg_jax.training.checkpoint import Checkpoints

ROOT = Path(launch.__file__).parent
QUIET = Console(quiet=True)
CONFIGS = files.datasets(ROOT / "configs")
# Two epochs of fifteen steps: PMR's prototypes read val's batches between them.
RECIPE = "pmr"


def config_of(name, recipe="lb"):
  return files.load(ROOT / "configs" / f"{name}.py").get_config(recipe)


def store(folder, config):
  folder.mkdir(exist_ok=True)
  text = json.dumps({"config": config})
  (folder / run_folder.FILE).write_text(text, encoding="utf-8")


def nested(flat):
  tree = {}
  for path, value in flat.items():
    *parents, last = path.split(".")
    node = tree
    for name in parents:
      node = node.setdefault(name, {})
    node[last] = value
  return tree


def changed(value):
  if isinstance(value, bool):
    return not value
  if isinstance(value, int | float):
    return value + 1
  return [*value, 1] if isinstance(value, list) else f"{value}-other"


@pytest.mark.parametrize("name", CONFIGS)
def test_every_field_is_refused_or_free(name, tmp_path):
  config = config_of(name)
  flat = identity.flat(config.to_dict())
  store(tmp_path, nested(flat))
  run_folder.check_config(config, tmp_path)
  assert {"eval.batch_size", "loader.resident", "method.rate"} <= set(flat)
  for path, value in flat.items():
    store(tmp_path, nested({**flat, path: changed(value)}))
    if path in identity.FREE:
      run_folder.check_config(config, tmp_path)
    else:
      with pytest.raises(ValueError, match="differs in") as caught:
        run_folder.check_config(config, tmp_path)
      assert path in str(caught.value)


def test_free_fields_are_those_of_a_config():
  there = {p for n in CONFIGS for p in identity.flat(config_of(n).to_dict())}
  assert set(identity.FREE) <= there


@pytest.mark.parametrize("name", CONFIGS)
def test_a_field_that_an_older_run_lacks_has_its_default(name, tmp_path):
  """A new field locks no old run out, unless another value is asked for."""
  config = config_of(name, "joint")
  flat, usual = identity.flat(config.to_dict()), identity.defaults(config)
  named = {f"encoders.{m}.name" for m in config.encoders}
  named |= {"fusion.name", "method.name"}
  assert set(flat) <= set(usual) | named
  for path, value in flat.items():
    if path in named:
      continue
    store(tmp_path, nested({k: v for k, v in flat.items() if k != path}))
    if path in identity.FREE or usual[path] == value:
      run_folder.check_config(config, tmp_path)
    else:
      with pytest.raises(ValueError, match="differs in"):
        run_folder.check_config(config, tmp_path)


def test_defaults_are_those_of_the_parts():
  config = openmoji.get_config("lb")
  usual = identity.defaults(config)
  assert usual["method.solver"] == "neumann" and usual["method.rate"] is None
  assert usual["data.image_size"] == 32 and config.data.image_size == 24
  assert usual["encoders.text.dropout"] == 0.0
  assert usual["fusion.mean"] is False and config.fusion.mean
  assert identity.defaults(manifest.get_config("joint"))["data.nperseg"] == 512


class Silent:
  """A tracker that is there and does nothing."""

  def __init__(self, *args):
    del args

  def log(self, *args):
    del args

  results = log

  def close(self):
    pass


@pytest.mark.slow
def test_free_fields_change_nothing(quick, tiny, tmp_path, monkeypatch):
  """All of them at once: the weights, the log and val to the bit."""
  del quick
  monkeypatch.setattr("dmg_jax.training.replica.Tracking", Silent)
  monkeypatch.setattr("dmg_jax.tracking.trackers.require", lambda name: None)
  plain = tiny(RECIPE)
  one, other = tmp_path / "one", tmp_path / "other"
  runner.run(plain, one, QUIET)
  (tmp_path / "elsewhere").symlink_to(plain.data.dir)
  changes = {
    "variant": "another",
    "vmap_seeds": "on",
    "report": "off",
    "track": "wandb",
    "data.dir": str(tmp_path / "elsewhere"),
    "loader.workers": 1,
    "train.checkpoint_steps": 4,
    "train.keep": (1,),
    "eval.test": False,
    "eval.split": "val",
    "eval.manifest": "new.csv",
    "eval.output": "new.parquet",
    "sharding": "fsdp",
  }
  others = {"data.raw", "data.max_pixels"}  # Of other data sets.
  assert set(changes) == set(identity.FREE) - others
  config = tiny(RECIPE, changes)
  run_folder.check_config(config, one)
  runner.run(config, other, QUIET)
  log = (one / "metrics.jsonl").read_bytes()
  assert log == (other / "metrics.jsonl").read_bytes()
  values = [json.loads((w / "results.json").read_text()) for w in (one, other)]
  assert values[0]["val"] == values[1]["val"]
  assert states(one, plain) == states(other, plain)


@pytest.mark.slow
def test_batches_of_evaluation_change_a_run(quick, tiny, tmp_path):
  """PMR's prototypes and the loss on val are sums over them."""
  del quick
  logs = []
  for size in (256, 24):
    work = tmp_path / str(size)
    runner.run(tiny(RECIPE, {"eval.batch_size": size}), work, QUIET)
    logs.append((work / "metrics.jsonl").read_bytes())
  assert logs[0] != logs[1]


def states(work, config):
  """Bytes of the last state and of the best."""
  like, found = experiment.assemble(config).fresh(), []
  checkpoints = Checkpoints(work)
  for step in (checkpoints.last(), checkpoints.best()):
    assert step is not None
    state = jax.device_get(checkpoints.restore(step, like))
    found.append([np.asarray(x).tobytes() for x in jax.tree.leaves(state)])
  checkpoints.close()
  return found


@pytest.mark.parametrize(
  ("before", "now", "field"),
  [
    ({"encoders.image.dtype": "float32"}, {}, ""),  # A run of an older version.
    ({"encoders.image.dtype": "bfloat16"}, {}, "encoders.image.dtype"),
    ({"precision": "bf16"}, {}, "precision"),
    (
      {"precision": "bf16", "encoders.text.dtype": "float32"},
      {"precision": "bf16"},
      "encoders.text.dtype",
    ),
  ],
)
def test_a_dtype_is_what_is_computed_in(before, now, field):
  one, two = config_of("openmoji"), config_of("openmoji")
  one.update_from_flattened_dict(before)
  two.update_from_flattened_dict(now)
  found = identity.differences(two, one.to_dict())
  assert list(found) == [field] * bool(field)
