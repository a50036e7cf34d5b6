"""Data and settings that cannot work, and some that can, by the command."""

import functools
import json

import numpy as np
import pytest

import helpers
from dmg_jax.tracking.logging import read_metrics
from dmg_jax.training import checkpoint
from dmg_jax.training.experiment import Setup


def rows(splits, classes="abc", count=60):
  """(split, class, number) of each sample; the splits take turns."""
  for i in range(count):
    turn, place = divmod(i, len(splits))
    yield splits[place], classes[turn % len(classes)], i


def write(folder, samples):
  """A manifest of an array and a text, which both tell the class."""
  rng, table = np.random.default_rng(0), []
  folder.mkdir()
  for split, label, i in samples:
    path = folder / f"{i}.npy"
    np.save(path, rng.normal(size=4) + 2 * np.eye(4)["abcd".index(label)])
    table.append(
      {
        "split": split,
        "label": label,
        "sensor:array": path.name,
        "words:text": f"{label} word{i}",
      }
    )
  return helpers.write_table(folder / "table.csv", table)


SLOW = functools.partial(pytest.param, marks=pytest.mark.slow)
BOTH = ["joint", SLOW("lb")]
SPLITS = ("train", "train", "train", "outer", "val", "test")


@pytest.fixture
def train(command, quick, tmp_path):
  """``train(table, "lb,epochs=2", **fields)``: exit code, output, errors."""
  del quick

  def run(table, recipe, *words, config="manifest", work="work", **fields):
    changes = {
      "data.manifest": table,
      "data.dir": tmp_path / "data",
      "encoders.array.features": 8,
      "encoders.array.widths": "(8,)",
      "encoders.text.features": 8,
      "encoders.text.width": 8,
      "loader.workers": 0,
      **fields,
    }
    return command(
      f"--config=configs/{config}.py:{recipe}",
      f"--workdir={tmp_path / work}",
      *(f"--config.{k}={v}" for k, v in changes.items()),
      *words,
    )

  return run


@pytest.fixture
def plain(tmp_path):
  return write(tmp_path / "plain", rows(SPLITS))


def _one_line(err):
  assert err.startswith("error: ") and err.count("\n") == 1, err
  assert "Traceback" not in err


def _listed(err, *parts):
  """Faults of the data, a line each."""
  assert err.startswith("error: ") and "Traceback" not in err
  for part in parts:
    assert part in err, err


def test_nan_in_one_input(train, plain, tmp_path):
  bad = np.load(plain.parent / "7.npy")
  bad[2] = np.nan
  np.save(plain.parent / "7.npy", bad)
  code, _, err = train(plain, "lb")
  assert code == 1 and not (tmp_path / "work").exists()
  _listed(err, "row 8", "'sensor:array'", "7.npy", "NaN")
  recipe, leave = "joint,epochs=1", {"data.skip_bad": True}
  code, _, err = train(plain, recipe, "--quiet", **leave)
  assert (code, err) == (0, "")


@pytest.mark.parametrize("recipe", BOTH)
def test_a_rate_of_a_million(train, plain, tmp_path, recipe):
  """Weights stay finite; the loss is as bad as infinite."""
  given = plain, f"{recipe},epochs=3,learning_rate=1e6,batch_size=8", "--quiet"
  for _ in range(2):  # The same command fails in the same way.
    code, _, err = train(*given)
    assert code == 1
    _one_line(err.splitlines(keepends=True)[-1])
    assert "loss is" in err and "at step" in err
    assert "learning_rate" in err and "none had been saved" in err
  assert not (tmp_path / "work" / "results.json").exists()
  assert not checkpoint.saved(tmp_path / "work")


def test_a_rate_that_grows_keeps_the_last_good_checkpoint(
  train, plain, tmp_path
):
  """The first step of a warm-up has rate 0, the second one diverges."""
  given = plain, "joint,epochs=3,learning_rate=1e30,batch_size=8", "--quiet"
  fields = {"optimiser.warmup_epochs": 1, "train.checkpoint_steps": 1}
  code, _, err = train(*given, **fields)
  assert code == 1 and "step 1 is kept" in err, err
  assert checkpoint.saved(tmp_path / "work") == {1}


def test_a_class_without_training_samples(train, tmp_path):
  samples = [
    (split, "d" if (split, i % 7) == ("val", 0) else label, i)
    for split, label, i in rows(SPLITS)
  ]
  code, _, err = train(write(tmp_path / "m", samples), "lb")
  assert code == 1 and not (tmp_path / "work").exists()
  _listed(err, "'label'", "no row of split 'train' is of class 'd'")


@pytest.mark.parametrize("recipe", BOTH)
def test_a_batch_larger_than_the_data(train, plain, tmp_path, recipe):
  """One padded step an epoch; padding has no influence."""
  code, out, err = train(plain, f"{recipe},epochs=2,batch_size=512")
  assert (code, err) == (0, ""), err
  lines = read_metrics(tmp_path / "work" / "metrics.jsonl")
  steps = [x["step"] for x in lines if x["split"] == "train"]
  assert steps == [1, 2] and all(np.isfinite(x.get("loss", 0)) for x in lines)
  assert "512" in out, out


@pytest.mark.parametrize("recipe", ["lb", SLOW("lb_forward")])
def test_an_outer_split_of_three(train, tmp_path, recipe):
  """Works: batches for α are padded."""
  samples = list(rows(SPLITS, count=90))
  held = [s for s in samples if s[0] == "outer"][:3]
  kept = [s for s in samples if s[0] != "outer"] + held
  table = write(tmp_path / "m", kept)
  code, out, err = train(table, f"{recipe},epochs=2")
  assert (code, err) == (0, ""), err
  results = json.loads((tmp_path / "work" / "results.json").read_text())
  assert len(results["alpha"]) == 2 and np.isfinite(results["alpha"]).all()
  assert "outer" in out


@pytest.fixture
def second_diverges(monkeypatch):
  """The run of seed 1 begins with weights that are not finite."""
  original = Setup.fresh

  def fresh(self):
    state = original(self)
    if self.config.seed != 1:
      return state
    import jax

    broken = jax.tree.map(lambda p: p * np.float32(np.nan), state.params)
    return state.replace(params=broken)

  monkeypatch.setattr(Setup, "fresh", fresh)


@pytest.mark.parametrize("how", ["on", "off"])
def test_one_seed_diverges(train, plain, tmp_path, second_diverges, how):
  recipe = f"joint,epochs=2,seeds=3,vmap_seeds={how}"
  code, _, err = train(plain, recipe, "--quiet")
  assert code == 1 and "step 1" in err and "nan" in err
  _one_line(err)
  ended = [
    (tmp_path / "work" / f"seed_{i}" / "results.json").exists()
    for i in range(3)
  ]
  assert ended == [True, False, True]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["on", "off"])
def test_one_cell_of_a_table_diverges(
  train, plain, tmp_path, second_diverges, how
):
  keys = f"rows=joint+h,epochs=2,seeds=3,vmap_seeds={how}"
  recipe = f"table1,dataset=manifest,{keys}"
  code, out, err = train(plain, recipe, config="tables")
  assert code == 0 and err == ""
  for row in ("joint", "h"):
    folder = tmp_path / "work" / row
    failed = json.loads((folder / "seed_1_failure.json").read_text())
    assert failed["status"] == "diverged" and "step 1" in failed["reason"]
    for seed in (0, 2):
      found = json.loads((folder / f"seed_{seed}" / "results.json").read_text())
      assert np.isfinite(found["test"]["fused"]["loss"])
  assert "diverged" in out
