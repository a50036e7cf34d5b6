"""Held-out batches for α: shuffled, but as they are at test time."""

import numpy as np
import pytest

from data_pipelines.core import Dataset
from data_pipelines.transforms import image
from dmg_jax.config import compose
from dmg_jax.training import experiment
from dmg_jax.training.replica import Replica
from helpers import toy_dataset

OUTER = {"heldout": "outer", "train": "train"}


@pytest.fixture
def replica(quick, monkeypatch):
  """``replica(recipe, resident)`` on data whose pictures are mirrored."""
  del quick
  toy = toy_dataset(("image", "text"))
  data = Dataset(toy.spec, toy.sources, {"image": image.mirror})
  monkeypatch.setattr(experiment, "load", lambda config, method: data)

  def make(recipe, resident):
    config = compose.base()
    config.data.name = f"mirrored-{resident}"
    config.encoders = {
      "image": compose.encoder("small.ConvNet", features=8, widths=(8,)),
      "text": compose.encoder("small.WordBag", features=8, width=8),
    }
    config.train.update(batch_size=16, outer_batch_size=12)
    config.eval.batch_size = 16
    config.loader.update(workers=0, resident=resident)
    setup = experiment.assemble(compose.with_recipe(config, recipe))
    return Replica(setup), data

  return make


@pytest.mark.parametrize("resident", ["off", "on"])
@pytest.mark.parametrize("outer", OUTER)
def test_outer_batches_are_shuffled_and_not_augmented(replica, outer, resident):
  one, data = replica(f"lb,outer={outer}", resident)
  source = data.sources[OUTER[outer]]
  assert one.outer_loader is not None
  orders = []
  for number in range(3):
    batch = one.outer_loader.batch(number)
    index = np.asarray(batch.index)
    stored = np.stack([source[int(i)]["inputs"]["image"] for i in index])
    np.testing.assert_array_equal(np.asarray(batch.inputs["image"]), stored)
    orders.append(tuple(index))
  assert len(set(orders)) == 3 and tuple(sorted(orders[0])) != orders[0]


@pytest.mark.parametrize("resident", ["off", "on"])
def test_training_batches_are_augmented(replica, resident):
  one, data = replica("lb", resident)
  batch, source = one.loader.batch(0), data.sources["train"]
  stored = [source[int(i)]["inputs"]["image"] for i in np.asarray(batch.index)]
  pictures = np.asarray(batch.inputs["image"])
  same = [np.array_equal(a, b) for a, b in zip(pictures, stored, strict=True)]
  assert not all(same)
  mirrored = [s[:, ::-1] for s in stored]
  for picture, *either in zip(pictures, stored, mirrored, strict=True):
    assert any(np.array_equal(picture, x) for x in either)
