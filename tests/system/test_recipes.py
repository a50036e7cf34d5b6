"""Two steps of recipes on every config, and what they then predict."""

import jax
import numpy as np
import pytest

import helpers
from configs import manifest
from data_pipelines.core.hidden import SPLITS
from dmg_jax.config.recipes import RECIPES
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, steps
from dmg_jax.training.loop import Trainer

SMALL = {
  "data.image_size": 8,
  "encoders.image.widths": (8,),
  "encoders.audio.widths": (8,),
  "encoders.text.width": 8,
}
ALIASES = {"concat", "heuristic"}
NAMES = sorted(set(RECIPES) - ALIASES)
# One of each kind; all of them train on a table with holes.
FEW = ("lb", "lfm_code", "mla", "umt", "bss")
# As costly as their neighbours of another number or outer loss.
KEYS = {"lb": "lb,iterations=1", "lfm_paper": "lfm_paper,iterations=1"}


def two_steps(config):
  """Metrics of two steps, predicted probabilities, the method."""
  setup = experiment.assemble(config)
  trainer = Trainer([setup], Console(quiet=True))
  state, programs = setup.fresh(), trainer.programs
  state = steps.between_epochs(
    setup.problem, setup.method, state, trainer.data, 0
  )
  found = {}
  for i in range(2):
    batch = trainer.replicas[0].loader.batch(i)
    placed = setup.place(batch)
    state, metrics = programs.train(state, placed, trainer.seeds)
    found |= metrics
    if programs.outer is not None:
      hyper = trainer.hyper_batches([batch], i)
      state, metrics = programs.outer(state, *hyper, trainer.seeds)
      found |= metrics
  assert programs.train._cache_size() == 1
  assert programs.outer is None or programs.outer._cache_size() == 1
  part = programs.eval(
    state.params, state.stats, state.method, next(setup.batches("val"))
  )
  return found, part.probabilities, setup


@pytest.mark.parametrize("name", FEW)
def test_openmoji(quick, tiny, name):
  found, probabilities, setup = two_steps(tiny(KEYS.get(name, name)))
  assert all(np.isfinite(x) for x in jax.tree.leaves(found))
  assert "loss" in found
  assert set(probabilities) == {"fused", "image", "text"}
  for p in probabilities.values():
    np.testing.assert_allclose(p.sum(axis=-1), 1, rtol=1e-5)
  assert set(setup.parameters) >= {"image", "text"}


@pytest.fixture(scope="module")
def holes(tmp_path_factory):
  """Without 7 in 10 photos, 3 in 10 sounds and 1 in 10 captions of a split."""
  folder, splits = tmp_path_factory.mktemp("holes"), ("train", *SPLITS)
  whole = helpers.write_manifest(folder, 100, splits=splits)
  rows = helpers.read_table(whole)
  for i, row in enumerate(rows):
    for header, gone in HOLES.items():
      if (i // len(splits)) % 10 in gone:
        row[header] = ""
  return helpers.write_table(folder / "holes.csv", rows)


HOLES = {
  "photo:image": (0, 1, 2, 3, 4, 5, 6),
  "sound:audio": (5, 6, 7),
  "caption:text": (9,),
}


@pytest.mark.slow
def test_manifest_of_three_modalities(quick, made, tmp_path_factory):
  three(tmp_path_factory, made, "constant")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_manifest_of_three_modalities_with_holes(
  quick, holes, tmp_path_factory, name
):
  three(tmp_path_factory, holes, name, **{"data.missing": "allow"})


def three(tmp_path_factory, table, name, **fields):
  config = manifest.get_config(KEYS.get(name, name))
  folder = tmp_path_factory.getbasetemp() / "manifest"
  config.update_from_flattened_dict(
    {"data.dir": str(folder), "data.manifest": str(table), **SMALL, **fields}
  )
  config.train.batch_size = config.train.outer_batch_size = 4
  if name == "greedy":
    with pytest.raises(ValueError, match="two modalities"):
      two_steps(config)
    return
  found, probabilities, _ = two_steps(config)
  assert all(np.isfinite(x) for x in jax.tree.leaves(found))
  assert set(probabilities) == {"fused", "photo", "caption", "sound"}
