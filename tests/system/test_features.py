"""Features of frozen encoders: what is cached is what would be computed."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import helpers
import toys
from data_pipelines import core
from data_pipelines.core import featured
from dmg_jax.model import classifier
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, restore, runner
from dmg_jax.training.inputs import features

QUIET = Console(quiet=True)
FROZEN = {"encoders.text.frozen": True}


@pytest.fixture(scope="module")
def setup(tiny):
  """Text is frozen, pictures are trained."""
  return experiment.assemble(tiny("joint", FROZEN))


def test_the_model_on_features_is_the_model(setup):
  """Same samples, outputs, gradients, and a state of the same structure."""
  state = setup.fresh()
  data = features.compute(setup, state, ("text",))
  bound = features.bound(setup, state, ("text",), data)
  assert data.spec.modalities["text"].shape == (setup.problem.sizes["text"],)
  assert data.spec.modalities["image"] == setup.dataset.spec.modalities["image"]
  on_features = dataclasses.replace(setup, features=data)
  whole, short = (next(iter(s.batches("val"))) for s in (setup, on_features))
  for name in ("labels", "mask", "index"):
    one, two = getattr(whole, name), getattr(short, name)
    np.testing.assert_array_equal(one, two)
  np.testing.assert_array_equal(whole.inputs["image"], short.inputs["image"])
  key = jax.random.key(0)
  made = [
    problem.forward(state.params, state.stats, batch.inputs, key, True)
    for problem, batch in ((setup.problem, whole), (bound, short))
  ]
  toys.assert_close(made[1], made[0], rtol=1e-5, atol=1e-6)
  assert jax.tree.structure(made[1][1]) == jax.tree.structure(state.stats)
  assert bound.owner == setup.problem.owner
  assert bound.outputs == setup.problem.outputs


def test_a_note_says_what_is_cached_and_why_not(setup, tiny, monkeypatch):
  kept, said = features.chosen(setup)
  assert kept == ("text",)
  assert len(said) == 1 and "of text are computed once: " in said[0]
  monkeypatch.setattr(features, "LIMIT", 100)
  kept, said = features.chosen(setup)
  assert kept == () and "every step: they take" in said[0]
  monkeypatch.undo()
  cases = {
    "channel": "channel reads inside the encoder",
    "agm": "agm ablates inputs",
  }
  for recipe, why in cases.items():
    config = tiny(recipe, FROZEN)
    kept, said = features.chosen(experiment.assemble(config))
    assert kept == () and why in said[0]
  noisy = dataclasses.replace(setup.dataset, augment={"text": lambda rng, x: x})
  other = dataclasses.replace(setup, dataset=noisy)
  assert "augmented at random" in features.chosen(other)[1][0]
  free = experiment.assemble(tiny("joint"))
  assert features.chosen(free) == ((), [])


@pytest.mark.parametrize("every", [True, False])
def test_samples_with_features_are_those_of_the_source(every):
  """Masks, labels and the other inputs stay; one by one and at once."""
  dataset = helpers.toy_dataset(("image", "text"))
  names = ("image", "text") if every else ("text",)
  rng = np.random.default_rng(0)
  made, there = {}, {}
  for split, source in dataset.sources.items():
    n = len(source)
    made[split] = {m: rng.normal(size=(n, 3)).astype("f4") for m in names}
    there[split] = {}
  new = featured.replaced(dataset, made, there)
  source, old = new.sources["val"], dataset.sources["val"]
  np.testing.assert_array_equal(core.labels(source), core.labels(old))
  rows = np.array([4, 1])
  taken = core.in_memory(source)(rows, dataset.spec.modalities)
  for i, row in enumerate(rows):
    sample = source[int(row)]
    core.check_sample(sample, new.spec.modalities)
    assert sample["label"] == old[int(row)]["label"] == taken.labels[i]
    for m, x in sample["inputs"].items():
      expected = made["val"][m][row] if m in names else old[row]["inputs"][m]
      np.testing.assert_array_equal(x, expected)
      np.testing.assert_array_equal(taken.inputs[m][i], expected)


def numbers(work):
  text = (work / "metrics.jsonl").read_text()
  return [
    {k: v for k, v in json.loads(line).items() if isinstance(v, float)}
    for line in text.splitlines()
  ]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["lb", "umt", "mses", "pmr", "bss"])
def test_runs_with_and_without_the_cache_agree(
  tiny, tmp_path, monkeypatch, recipe
):
  """Both encoders frozen, or one: the same up to rounding."""
  fields = {**FROZEN, "encoders.image.frozen": recipe in ("lb", "umt")}
  found = {}
  for name, limit in (("with", 2**30), ("without", 0)):
    monkeypatch.setattr(features, "LIMIT", limit)
    config = tiny(recipe, fields)
    runner.run(config, tmp_path / name, QUIET, page=False)
    found[name] = numbers(tmp_path / name)
  first = [lines[0]["loss"] for lines in found.values()]
  np.testing.assert_allclose(*first, rtol=1e-5)
  for one, two in zip(*found.values(), strict=True):
    assert one.keys() == two.keys()
    for key in one:
      if not key.endswith(("accuracy", "macro_f1", "map")):
        np.testing.assert_allclose(one[key], two[key], rtol=2e-3, atol=1e-4)
  states = [restore.restore(tmp_path / name, {})[1] for name in found]
  for m in ("image", "text"):
    own = [classifier.encoder_variables(s.params, s.stats, m) for s in states]
    assert fields[f"encoders.{m}.frozen"] is False or toys.same(*own)


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(tiny, tmp_path, monkeypatch):
  """Features are those of the weights in the checkpoint."""
  from dmg_jax.training.loop import Trainer

  config = tiny("lb", FROZEN)
  runner.run(config, tmp_path / "once", QUIET, page=False)
  original = Trainer._save_here

  def save_here(self, step, stop):
    stop.signal = 15 if step == 20 else stop.signal
    return original(self, step, stop)

  monkeypatch.setattr(Trainer, "_save_here", save_here)
  assert runner.run(config, tmp_path / "twice", QUIET, page=False) is None
  monkeypatch.undo()
  runner.run(config, tmp_path / "twice", QUIET, page=False)
  one, two = (numbers(tmp_path / name) for name in ("once", "twice"))
  assert one == two
  states = [restore.restore(tmp_path / n, {})[1] for n in ("once", "twice")]
  assert toys.same(*states)
