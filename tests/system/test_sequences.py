"""Sequences of any length by a table, through the command line."""

import json

import numpy as np
import pytest

import helpers
from dmg_jax.config import compose, identity, own_data
from dmg_jax.evaluation import artefacts
from dmg_jax.model import registry
from dmg_jax.training import experiment

LENGTHS = (3, 900, 40, 12, 25, 8, 120, 17)


def table(folder, rows=80):
  """Noise about a level that tells the label, 3 to 900 steps; a note each."""
  rng, found = np.random.default_rng(0), []
  for i in range(rows):
    label = i // 3 % 2
    steps = LENGTHS[i % len(LENGTHS)]
    values = rng.normal(size=(steps, 4)) + label
    np.save(folder / f"{i}.npy", values.astype(np.float32))
    found.append({
      "split": ("train", "train", "outer", "test", "val")[i % 5],
      "label": "ab"[label],
      "sensor:array": f"{i}.npy",
      "note:text": ("low and calm", "high")[label] if i % 4 else "none",
    })  # fmt: skip
  return helpers.write_table(folder / "steps.csv", found)


def made(folder, recipe="joint"):
  """A config of ``table`` and its table, prepared or to be so."""
  config = own_data.get_config(recipe)
  path = folder / "steps.csv"
  given = str(path if path.exists() else table(folder))
  config.data.update(manifest=given, dir=str(folder / "data"))
  return config


def finite(tree):
  """Whether every number in nested results is one."""
  if isinstance(tree, dict):
    return all(finite(x) for x in tree.values())
  return not isinstance(tree, float) or np.isfinite(tree)


@pytest.mark.slow
@pytest.mark.parametrize(
  "recipe",
  [
    "joint",
    "joint,encoder.sensor=small.Transformer,encoder.sensor.layers=1,"
    "encoder.sensor.width=8,encoder.sensor.heads=2,"
    "encoder.text=small.Transformer,encoder.text.layers=1,"
    "encoder.text.pooling=cls",
  ],
)
def test_trained_by_the_command(command, tmp_path, recipe):
  path, work = table(tmp_path), tmp_path / "run"
  fields = {
    "data.manifest": path,
    "data.dir": tmp_path / "data",
    "train.epochs": 1,
    "train.batch_size": 8,
  }
  words = [f"--config.{k}={v}" for k, v in fields.items()]
  given = (f"--config=configs/manifest.py:{recipe}", f"--workdir={work}")
  code, _, err = command(*given, *words)
  assert code == 0, err
  results = json.loads((work / "results.json").read_text(encoding="utf-8"))
  assert set(results["test"]) >= {"fused"} and finite(results)


def test_encoders_of_sequences(tmp_path):
  """By default, by the names of modality, kind and ``sequence``; or refused."""
  for keys, sensor in {
    "": "GRU",
    ",encoder.sequence=small.LSTM": "LSTM",
    ",encoder.array=small.LSTM": "LSTM",
    ",encoder.sensor=small.Transformer,encoder.sequence=small.LSTM": (
      "Transformer"
    ),
  }.items():
    config = made(tmp_path, f"joint{keys}")
    found = experiment.assemble(config).encoders
    assert found["sensor"]["name"] == f"small.{sensor}"
    assert found["sensor"]["features"] == found["note"]["features"] == 64
    assert found["note"]["name"] == "small.WordBag"
  for keys, said in {
    "sensor=small.MLP": r"'small.MLP' reads samples of one shape; those of "
    r"modality 'sensor' differ in length: give it small.GRU, small.LSTM, "
    r"small.Transformer",
    "sensor=small.Transformer,encoder.sensor.positions=learned,"
    "encoder.sensor.longest=500": "500 learned positions.*904 steps",
    "sensor=small.Transformer,encoder.sensor.heads=5": "multiple of heads",
    "sensor=small.GRU,encoder.sensor.pooling=first": "'first'.*last, mean",
  }.items():
    config = made(tmp_path, f"joint,encoder.{keys}")
    with pytest.raises(ValueError, match=said):
      experiment.assemble(config)


def test_rows_of_numbers_are_no_sequences():
  for encoder in ("small.GRU", "small.LSTM", "small.Transformer"):
    with pytest.raises(ValueError, match=r"\[t d\].*\[6\]: give it small.MLP"):
      registry.check_input(encoder, "m", "array", (6,))
    registry.check_input(encoder, "m", "array", (6, 2))
    registry.check_input(encoder, "m", "text", (6,))


def test_a_run_of_before_is_the_same(tmp_path):
  """One whose config had no encoder of sequences can be taken up."""
  config = made(tmp_path)
  there = config.to_dict()
  del there["encoders"][compose.SEQUENCE]
  assert identity.differences(config, there) == {}
  there["encoders"][compose.SEQUENCE] = compose.encoder("small.LSTM")
  changed = identity.differences(config, there)
  assert list(changed) == [f"encoders.{compose.SEQUENCE}.name"]


def test_a_sequence_is_drawn_with_its_steps_across():
  rng = np.random.default_rng(0)
  drawn = [artefacts.strip(rng.normal(size=(t, 4)), 4) for t in (0, 1, 3, 900)]
  assert {x.shape for x in drawn} == {(40, artefacts.SIDE)}
  assert drawn[0].min() == 255
  rising = artefacts.strip(np.arange(5.0)[:, None], 1)
  assert (rising[0] == rising[-1]).all()
  np.testing.assert_array_equal(np.unique(rising), [0, 64, 128, 191, 255])
