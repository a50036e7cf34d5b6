"""Recipes through the real path, and what the other modes make of it.

``test_recipes.py`` takes two steps of each of the others.
"""

import csv
import json
import math
import re

import numpy as np
import pytest

from configs import openmoji
from dmg_jax.tracking.logging import read_metrics
from dmg_jax.training import runner

SIZES = {"train": 972, "outer": 158, "val": 159, "test": 340}
MODALITIES, CLASSES, EPOCHS = {"image", "text"}, 8, 2
# Recipes that differ in what the loop does for them; α moves in mid-epoch.
WHOLE = ("joint", "h", "lb", "mses", "unimodal")
QUICK = ("lb", "unimodal")
KEYS = {
  "unimodal": "unimodal,modality=text",
  "lb": "lb,inner_iters=7,iterations=1",
}
ALIASES = {"concat": "joint", "heuristic": "h"}
WITH_ALPHA = {"h", "lb"}
SCORES = {"accuracy", "balanced_accuracy", "map", "macro_f1", "loss"}


def check_metrics(found, modalities):
  assert set(found) == {"fused", "gap", *modalities}
  for head in ("fused", *modalities):
    assert set(found[head]) == SCORES
    for score in SCORES - {"loss"}:
      assert 0 <= found[head][score] <= 1
    assert 0 < found[head]["loss"] < 10
  single = [found[m]["accuracy"] for m in modalities]
  assert found["gap"]["accuracy"] == pytest.approx(max(single) - min(single))
  pairs = {"image-text"} if len(modalities) == 2 else set()
  assert set(found["gap"]["centroid"]) == pairs
  assert all(0 <= x <= 2 for x in found["gap"]["centroid"].values())


def check_contributions(results, split, modalities):
  found = results["contributions"][split]
  together = found["together"]
  assert together == pytest.approx(results[split]["fused"]["accuracy"])
  shares = found["shapley"]
  assert set(shares) == set(found["gain"]) == modalities
  assert sum(shares.values()) == pytest.approx(together - found["nothing"])


@pytest.mark.parametrize(
  "name",
  [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in WHOLE],
)
def test_recipe(straight, name):
  work = straight(KEYS.get(name, name))
  results = json.loads((work / "results.json").read_text())
  assert set(results) == {
    "recipe", "dataset", "seed", "epochs", "alpha", "selected_step",
    "selected_by", "readout", "val", "test", "contributions", "timing",
  }  # fmt: skip
  assert results["recipe"] == name and results["dataset"] == "openmoji"
  assert (results["seed"], results["epochs"]) == (0, EPOCHS)
  assert len(results["alpha"]) == (EPOCHS if name in WITH_ALPHA else 0)
  assert all(0 <= a <= 1 for a in results["alpha"])
  assert results["selected_step"] in (15, 30)
  assert re.match(r"R\d ", results["readout"])
  modalities = {"text"} if name == "unimodal" else MODALITIES
  for split in ("val", "test"):
    check_metrics(results[split], modalities)
    check_contributions(results, split, modalities)
  assert results["timing"]["train_steps"] == 30
  assert results["timing"]["total_seconds"] > 0
  check_files(work, results)


def check_files(work, results):
  config = json.loads((work / "config.json").read_text())
  fields = {"config", "versions", "git", "command", "data", "diagnostics"}
  assert set(config) == fields
  assert config["config"]["recipe"] == results["recipe"]
  assert "jax" in config["versions"]
  assert (work / "report" / "report.html").stat().st_size > 1000
  assert list(work.glob("events.*")) and not list(work.rglob("*.part"))
  lines = read_metrics(work / "metrics.jsonl")
  assert all({"step", "epoch", "split"} <= set(x) for x in lines)
  assert all(
    math.isfinite(v) for x in lines for v in x.values() if v != x["split"]
  )
  steps = {s: [x["step"] for x in lines if x["split"] == s] for s in SIZES}
  assert steps["train"] == [10, 15, 20, 30] and steps["val"] == [15, 30]
  best = max(
    (x["fused/accuracy"], x["step"]) for x in lines if x["split"] == "val"
  )
  assert best[1] == results["selected_step"]
  assert best[0] == results["val"]["fused"]["accuracy"]
  kept = {int(p.name) for p in (work / "checkpoints").iterdir()}
  assert kept == {30, best[1]}


@pytest.mark.slow
def test_alpha_of_a_schedule(straight):
  results = json.loads((straight("h") / "results.json").read_text())
  expected = [1 - math.exp(-1), 1 - math.exp(-1 / 2)]
  np.testing.assert_allclose(results["alpha"], expected, rtol=1e-6)


@pytest.mark.slow
def test_phases_are_trained_and_only_the_last_is_chosen_from(straight):
  """Teachers take epochs of their own, and never are the best."""
  work = straight("umt,teacher_epochs=1")
  results = json.loads((work / "results.json").read_text())
  assert results["epochs"] == EPOCHS + 1
  assert results["timing"]["train_steps"] == 45
  assert results["selected_step"] in (30, 45)
  kept = {int(p.name) for p in (work / "checkpoints").iterdir()}
  assert 15 not in kept and 45 in kept


@pytest.mark.parametrize("alias,name", ALIASES.items())
def test_aliases(alias, name):
  one, other = openmoji.get_config(alias), openmoji.get_config(name)
  changed = {"recipe": name, "variant": name}
  assert {**one.to_dict(), **changed} == other.to_dict()


def test_seeds(straight):
  work = straight("joint,seeds=2,vmap_seeds=off")
  results = json.loads((work / "results.json").read_text())
  assert set(results) == {"recipe", "dataset", "runs", "mean", "std"}
  assert [r["seed"] for r in results["runs"]] == [0, 1]
  for i, run in enumerate(results["runs"]):
    alone = json.loads((work / f"seed_{i}" / "results.json").read_text())
    assert alone == run
  a, b = (r["test"]["fused"]["loss"] for r in results["runs"])
  assert a != b
  assert results["mean"]["fused"]["loss"] == pytest.approx((a + b) / 2)
  std = abs(a - b) / math.sqrt(2)
  assert results["std"]["fused"]["loss"] == pytest.approx(std)
  single = json.loads((straight("joint") / "results.json").read_text())
  assert single["test"] == results["runs"][0]["test"]


def test_evaluate(straight, command, words):
  work = straight("h")
  results = json.loads((work / "results.json").read_text())
  before = set(work.rglob("*"))
  for split in ("val", "test"):
    code, out, err = command(
      *words("h", work), "--mode=evaluate", f"--config.eval.split={split}"
    )
    assert (code, err) == (0, "") and "fused" in out
    assert "Shapley values of accuracy: image" in out
    found = json.loads((work / f"evaluation_{split}.json").read_text())
    shares = results["contributions"][split]
    assert found == {"split": split, **results[split], "contributions": shares}
  added = {p.name for p in set(work.rglob("*")) - before}
  assert added == {"evaluation_val.json", "evaluation_test.json"}


@pytest.mark.parametrize("split", ["test", "outer"])
def test_predict(straight, command, words, split):
  work = straight("h")
  given = [*words("h", work), "--mode=predict", f"--config.eval.split={split}"]
  assert command(*given)[::2] == (0, "")
  path = work / f"predictions_{split}.csv"
  with path.open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == SIZES[split] == len({row["id"] for row in rows})
  heads = ("fused", "image", "text")
  classes = [k.partition(":")[2] for k in rows[0] if k.startswith("fused:")]
  assert len(classes) == CLASSES
  assert list(rows[0]) == [
    "id", "label", *(f"{h}_prediction" for h in heads),
    *(f"{h}:{c}" for h in heads for c in classes),
  ]  # fmt: skip
  for row in rows:
    assert row["label"] in classes
    for head in heads:
      p = [float(row[f"{head}:{c}"]) for c in classes]
      assert min(p) >= 0 and sum(p) == pytest.approx(1, abs=1e-5)
      said = row[f"{head}_prediction"]
      assert float(row[f"{head}:{said}"]) == max(p)
  if split == "test":
    results = json.loads((work / "results.json").read_text())
    right = np.mean([r["fused_prediction"] == r["label"] for r in rows])
    assert right == results["test"]["fused"]["accuracy"]


def test_prepare_and_report(straight, command, words, tmp_path):
  code, out, err = command(*words("h", tmp_path / "w"), "--mode=prepare")
  assert (code, err) == (0, "") and "1,629" in out.replace("1629", "1,629")
  assert list(tmp_path.iterdir()) == []
  page = straight("h") / "report" / "report.html"
  page.unlink()
  assert command(*words("h", straight("h")), "--mode=report")[::2] == (0, "")
  assert page.exists()


def test_finished_run_is_only_shown(straight, command, words, monkeypatch):
  work = straight("h")
  before = {
    p: p.stat().st_mtime_ns
    for p in work.rglob("*")
    if p.is_file() and p.parent.name != "report"
  }
  monkeypatch.delattr(runner, "run_jobs")
  code, out, err = command(*words("h", work))
  assert (code, err) == (0, "") and "finished before" in out
  assert "fused" in out and "image" in out
  assert {p: p.stat().st_mtime_ns for p in before} == before
  assert command(*words("h", work), "--quiet") == (0, "", "")


def test_another_config_is_refused(straight, command, words):
  work = straight("h")
  for recipe, field, part in (
    ("h", {"train.epochs": 3}, "train.epochs (2 there)"),
    ("h,seed=1", {}, "seed (0 there)"),
    ("joint", {}, "method.name (heuristic there)"),
  ):
    code, out, err = command(*words(recipe, work, **field))
    assert (code, out, err.count("\n")) == (1, "", 1) and part in err


def test_foreign_folder_is_refused(command, words, tmp_path):
  (tmp_path / "thesis.tex").write_text("mine")
  code, out, err = command(*words("h", tmp_path))
  assert (code, out, err.count("\n")) == (1, "", 1)
  assert "not empty" in err and "--workdir" in err
  assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_default_workdir(command, words, monkeypatch):
  """``runs/<data set>-<recipe string>``, below the current folder."""
  asked = []
  monkeypatch.setattr(
    runner, "run", lambda config, workdir, *rest: asked.append(workdir)
  )
  given = [w for w in words("h,seed=3", "") if not w.startswith("--workdir")]
  assert command(*given) == (0, "", "")
  assert [str(w) for w in asked] == ["runs/openmoji-h,seed=3"]


@pytest.mark.parametrize("table,folder", [
  ("data/digits/manifest.csv", "digits-manifest-h"),
  ("/pairs.tsv", "pairs-h"),
])  # fmt: skip
def test_default_workdir_of_a_manifest(command, monkeypatch, table, folder):
  """Runs of different tables do not share a folder."""
  asked = []
  monkeypatch.setattr(
    runner, "run", lambda config, workdir, *rest: asked.append(workdir)
  )
  words = ("--config=configs/manifest.py:h", f"--config.data.manifest={table}")
  assert command(*words) == (0, "", "")
  assert [str(w) for w in asked] == [f"runs/{folder}"]
