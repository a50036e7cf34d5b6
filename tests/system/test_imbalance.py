"""Runs on classes of different sizes: weights, sampler, choice of the state."""

import json
import shutil

import numpy as np
import pytest

from dmg_jax.evaluation import selection
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import experiment, restore, runner, validation

QUIET = Console(quiet=True)
FIELDS = ("class_weights", "sampler", "select_by")


def results(work):
  return json.loads((work / "results.json").read_text())


def train_lines(work):
  return [x for x in read_metrics(work / "metrics.jsonl") if "loss" in x]


@pytest.mark.parametrize("key", ["class_weights", "sampler"])
def test_training_changes(straight, key):
  plain, other = straight("joint"), straight(f"joint,{key}=balanced")
  first = [train_lines(w)[0]["loss"] for w in (plain, other)]
  assert first[0] != first[1]
  found = results(other)["val"]["fused"]
  assert 0 <= found["balanced_accuracy"] <= 1
  assert results(other)["selected_by"] == "accuracy"


def test_the_sampler_draws_all_classes_equally_often(quick, tiny):
  setup = experiment.assemble(tiny("joint,sampler=balanced"))
  labels = np.array(
    [s["label"] for s in map(setup.dataset.sources["train"].__getitem__,
                             range(setup.dataset.spec.sizes["train"]))]
  )  # fmt: skip
  share = np.bincount(labels, setup.chances)
  np.testing.assert_allclose(share, 1 / len(setup.dataset.spec.classes))
  assert setup.class_weights is None


def test_weights_are_those_of_the_training_split(quick, tiny):
  setup = experiment.assemble(tiny("joint,class_weights=balanced"))
  labels = setup.dataset.sources["train"].labels()
  counts = np.bincount(labels)
  want = counts.sum() / (len(counts) * counts)
  np.testing.assert_allclose(setup.class_weights, want)
  assert setup.chances is None
  name = setup.dataset.spec.classes[0]
  config = tiny("joint", {"train.class_weights": json.dumps({name: 4})})
  found = experiment.assemble(config).class_weights
  assert found[0] == pytest.approx(4 * found[1])
  config.train.class_weights = "no such=2"
  with pytest.raises(ValueError, match="unknown class of train") as error:
    experiment.assemble(config)
  assert name in str(error.value)


def test_equal_weights_are_none(quick, tiny):
  names = experiment.assemble(tiny("joint")).dataset.spec.classes
  config = tiny("joint", {"train.class_weights": json.dumps(
    dict.fromkeys(names, 2.0))})  # fmt: skip
  assert experiment.assemble(config).class_weights is None


def test_between_epochs_a_method_sees_the_weights(quick, tiny):
  from dmg_jax.training.loop import EpochData

  setup = experiment.assemble(tiny("joint,class_weights=balanced"))
  batch = next(EpochData(setup, 15).batches("val"))
  want = setup.class_weights[np.asarray(batch.labels)]
  np.testing.assert_allclose(batch.weight, want, rtol=1e-6)
  plain = experiment.assemble(tiny("joint"))
  assert next(EpochData(plain, 15).batches("val")).weight is None


@pytest.mark.parametrize("score", ["macro_f1", "loss"])
def test_the_best_state_is_that_of_the_score(straight, score):
  work = straight(f"joint,select_by={score}")
  found = results(work)
  lines = [
    x for x in read_metrics(work / "metrics.jsonl") if x["split"] == "val"
  ]
  good = [selection.goodness(score, x[f"fused/{score}"]) for x in lines]
  best = max(range(len(good)), key=lambda i: (good[i], i))
  assert found["selected_step"] == lines[best]["step"]
  assert found["selected_by"] == score
  assert found["val"]["fused"][score] == pytest.approx(
    lines[best][f"fused/{score}"]
  )
  setup, state = restore.restore(work, {})
  assert int(state.step) == found["selected_step"]
  assert setup.config.train.select_by == score
  name = selection.NAMES[score]
  page = (work / "report" / "report.html").read_text()
  assert f"State: the best on val by {name}." in page


def test_a_run_of_an_older_version_is_read(straight, tiny, tmp_path):
  work = tmp_path / "old"
  shutil.copytree(straight("joint"), work)
  path = work / "config.json"
  content = json.loads(path.read_text())
  for field in FIELDS:
    del content["config"]["train"][field]
  for field in ("drop", "drop_seed", "drop_splits"):
    del content["config"]["data"][field]
  path.write_text(json.dumps(content))
  old = results(work)
  del old["selected_by"]
  for split in ("val", "test"):
    for head in ("fused", "image", "text"):
      del old[split][head]["balanced_accuracy"]
  (work / "results.json").write_text(json.dumps(old))
  assert runner.run(tiny("joint"), work, Console()) == old
  _, state = restore.restore(work, {})
  assert int(state.step) == old["selected_step"]
  assert "balanced accuracy" in (work / "report" / "report.html").read_text()
  other = tiny("joint,class_weights=balanced")
  with pytest.raises(ValueError, match=r"differs in train\.class_weights"):
    runner.run(other, work, QUIET)


@pytest.mark.parametrize(
  "keys,said",
  [
    ("joint,select_by=f1", "train.select_by 'f1'"),
    ("joint,sampler=even", "train.sampler 'even'"),
    ("joint,class_weights=even", "'even' without a weight"),
    ("bss,sampler=balanced", "bss chooses the order of its samples itself"),
  ],
)
def test_what_is_refused_before_the_data(tiny, keys, said):
  with pytest.raises(ValueError) as error:
    validation.check(tiny(keys))
  assert said in str(error.value)


def test_seeds_of_two_versions_have_a_common_mean():
  values = [{"accuracy": 0.5, "new": 1.0}, {"accuracy": 0.7}]
  assert runner._over_runs(np.mean, values) == {"accuracy": pytest.approx(0.6)}
