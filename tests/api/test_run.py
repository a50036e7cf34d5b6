"""What ``fit`` returns and ``load`` opens."""

import sys

import numpy as np
import pandas
import pytest

import dmg_jax
import helpers
from tiny_samples import SMALL, samples


def test_numbers(run):
  assert run.classes == ("down", "up")
  assert run.modalities == {"sensor": "array", "note": "text"}
  assert run.results["recipe"] == "h" and run.config.seed == 1
  np.testing.assert_allclose(run.alpha, [1 - np.exp(-1)], rtol=1e-6)
  assert {"step", "epoch", "split", "loss"} <= set(run.history.columns)
  assert run.evaluate() == run.results["val"]
  assert run.evaluate("train")["fused"]["accuracy"] >= 0
  assert repr(run) == f"<Run of 'h' in {run.folder}>"


def test_predictions(run, tmp_path):
  x, y = samples()
  found = run.predict(x)
  assert set(found.probabilities) == {"fused", "sensor", "note"}
  assert len(found.labels) == len(y) and found.ids is None
  kinds = {"sensor:array": x["sensor"], "note:text": x["note"]}
  frame = pandas.DataFrame(
    {"id": range(24), "label": y, **x, "sensor": list(x["sensor"])}
  )
  for other in (kinds, frame, dmg_jax.Modalities(x)):
    made = run.predict(other)
    np.testing.assert_array_equal(
      made.probabilities["fused"], found.probabilities["fused"]
    )
  assert run.predict(frame).ids == [str(i) for i in range(24)]
  run.predict(frame).write(tmp_path / "table.csv")
  rows = helpers.read_table(tmp_path / "table.csv")
  assert [r["label"] for r in rows] == list(y)
  assert [r["fused_prediction"] for r in rows] == found.labels


def test_a_manifest_as_the_same_samples_in_memory(run, tmp_path):
  x, _ = samples()
  rows = []
  for i, (sensor, note) in enumerate(zip(x["sensor"], x["note"], strict=True)):
    np.save(tmp_path / f"{i}.npy", sensor)
    rows.append({"sensor:array": f"{i}.npy", "note:text": note})
  path = helpers.write_table(tmp_path / "new.csv", rows)
  found = run.predict(path)
  np.testing.assert_allclose(
    found.probabilities["fused"],
    run.predict(x).probabilities["fused"],
    atol=1e-6,
  )
  assert found.ids[0] == "1" and found.targets is None


def test_own_splits(run):
  found = run.predict(split="val")
  assert len(found.ids) == len(found.targets)
  right = np.mean(np.array(found.labels) == found.targets)
  assert right == pytest.approx(run.results["val"]["fused"]["accuracy"])


@pytest.mark.parametrize(
  "change,said",
  [
    ({"note": None}, r"modalities are sensor \(array\), note \(text\); got"),
    ({"more": [1] * 24}, "got sensor, note, more"),
    ({"note": ["a"]}, "as many rows: 'sensor' has 24, 'note' has 1"),
    ({"sensor": np.zeros((24, 2))}, r"has shape \(2,\), those of training"),
    ({"note": [""] * 24}, r"row 1, column 'note:text': .*empty"),
    ({"note": "a"}, "must be a list"),
  ],
)
def test_wrong_samples(run, change, said):
  given = {**samples()[0], **change}
  given = {m: v for m, v in given.items() if v is not None}
  with pytest.raises(dmg_jax.UserError, match=said):
    run.predict(given)


def test_what_was_not_done(run, tmp_path):
  for call, said in (
    (lambda: run.evaluate("test"), "unknown split 'test'.*train, val"),
    (lambda: run.predict(split="vall"), "'vall'; did you mean 'val'"),
    (run.predict, "one of them"),
    (run.readouts, "eval.test=true"),
    (lambda: dmg_jax.load(tmp_path), "holds no run"),
  ):
    with pytest.raises(dmg_jax.UserError, match=said):
      call()


def test_history_needs_pandas(run, monkeypatch):
  monkeypatch.setitem(sys.modules, "pandas", None)
  with pytest.raises(dmg_jax.UserError, match=r"\[pandas\]"):
    _ = run.history


def test_export(run, tmp_path):
  x, _ = samples()
  said = run.export(tmp_path / "out")
  assert any("predictor.jaxexport" in line for line in said)
  alone = dmg_jax.load(tmp_path / "out")
  assert isinstance(alone, dmg_jax.Predictor) and alone.classes == run.classes
  np.testing.assert_allclose(
    alone.predict(x).probabilities["fused"],
    run.predict(x).probabilities["fused"],
    atol=1e-6,
  )


def test_readouts_and_report(tmp_path, unrendered):
  x, y = samples(32)
  split = ["train", "train", "train", "test"] * 8
  run = dmg_jax.fit(
    {**x, "split": split}, y, recipe="joint", epochs=1, config=SMALL
  )
  found = run.readouts()
  assert found["samples"] == 8 and set(found["scores"]) >= {"fused", "note"}
  assert (run.folder / "readouts.json").exists()
  page = run.report()
  assert page == run.folder / "report" / "report.html" and page.exists()


def test_several_seeds(tmp_path):
  x, y = samples()
  keys = {"recipe": "h", "epochs": 1, "seeds": 2, "config": SMALL}
  run = dmg_jax.fit(x, y, workdir=tmp_path / "run", **keys)
  assert [one.folder.name for one in run.runs] == ["seed_0", "seed_1"]
  assert run.alpha.shape == (2, 1) and set(run.results) >= {"runs", "mean"}
  assert set(run.history["seed"]) == {0, 1}
  assert run.classes == ("down", "up")
  for call in (run.evaluate, run.readouts, run.export):
    with pytest.raises(ValueError, match=r"2 runs.*run\.runs\[0\]"):
      call()
  scores = [one.evaluate() for one in run.runs]
  assert scores == [one["val"] for one in run.results["runs"]]
