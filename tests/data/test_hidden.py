"""Modalities hidden at random: rates, seeds, and what a batch then holds."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.core import Cached, catalog, hidden, labels
from data_pipelines.load.loader import Loader
from dmg_jax.config import compose, identity, own_data
from dmg_jax.training import resident, sharding, validation
from helpers import toy_dataset

ALL = ("array", "image", "text")


class Plain:
  """A source that says nothing of being in memory."""

  def __init__(self, source):
    self._source = source

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    return self._source[index]


def plain(data):
  sources = {k: Plain(s) for k, s in data.sources.items()}
  return dataclasses.replace(data, sources=sources)


def lost(data, split="train"):
  """{modality: whether it is missing, [n]}."""
  samples = [data.sources[split][i] for i in range(len(data.sources[split]))]
  return {
    m: np.array([m in s.get("missing", ()) for s in samples])
    for m in data.spec.modalities
  }


def test_rates_hold_and_one_modality_stays():
  data = toy_dataset(("array", "image"), 4000)
  made = lost(hidden.hide(data, "image:0.5+array:0.4"))
  assert abs(made["image"].mean() - 0.5) < 0.025
  assert abs(made["array"].mean() - 0.4) < 0.025
  assert not (made["image"] & made["array"]).any()
  three = toy_dataset(ALL, 4000)
  made = lost(hidden.hide(three, "image:0.7"))
  assert abs(made["image"].mean() - 0.7) < 0.025
  assert not made["text"].any() and not made["array"].any()


@pytest.mark.parametrize("wanted", [(0.4, 0.5), (0.6, 0.6, 0.6), (0.9, 0.05)])
def test_chances_give_the_rates_given_that_one_is_left(wanted):
  p = hidden.independent(wanted)
  cases = np.array(np.meshgrid(*[(0, 1)] * len(p))).reshape(len(p), -1).T
  chance = np.prod(np.where(cases, p, 1 - p), axis=1) * ~cases.all(axis=1)
  np.testing.assert_allclose(chance @ cases / chance.sum(), wanted, rtol=1e-6)
  alone = hidden.independent((0.3, 0.0, 0.9))
  np.testing.assert_array_equal(alone, (0.3, 0.0, 0.9))


def test_a_function_of_seed_split_and_place():
  data = toy_dataset(("array", "image"), 200)
  one, again = (lost(hidden.hide(data, "image:0.5")) for _ in range(2))
  np.testing.assert_array_equal(one["image"], again["image"])
  other = lost(hidden.hide(data, "image:0.5", seed=1))
  assert (one["image"] != other["image"]).any()
  test = lost(hidden.hide(data, "image:0.5"), "test")["image"]
  assert (one["image"][: len(test)] != test).any()
  only = hidden.hide(data, "image:0.5", splits="test+val")
  assert not lost(only)["image"].any() and lost(only, "val")["image"].any()
  batch = Loader(only, "train", 4, seed=0).batch(0)
  np.testing.assert_array_equal(batch.present["image"], np.ones(4))


def test_rate_0_is_the_data_as_they_are():
  data = toy_dataset()
  assert hidden.hide(data, "") is data is hidden.hide(data, "image:0")
  assert Loader(data, "train", 4, seed=0).batch(0).present is None


def test_batches_hold_zeros_and_masks_in_any_source():
  data = hidden.hide(toy_dataset(ALL, 21), "image:0.5+text:0.4").select(
    ("text", "image")
  )
  other = hidden.hide(plain(toy_dataset(ALL, 21)), "image:0.5+text:0.4").select(
    ("image", "text")
  )
  assert data.cached("train") and not other.cached("train")
  made = [Loader(d, "train", 8, seed=3, augment=False) for d in (data, other)]
  for a, b in zip(*(loader.padded() for loader in made), strict=True):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    for m in ("image", "text"):
      there = a.present[m] > 0
      assert not a.inputs[m][~there].any() and a.inputs[m][there].any()
      np.testing.assert_array_equal(a.having(m), a.present[m] * a.mask)
  assert a.mask.sum() == 5 and not any(p[5:].any() for p in a.present.values())
  np.testing.assert_array_equal(
    labels(data.sources["train"]), labels(other.sources["train"])
  )
  # No present modality of a sample is touched.
  whole = toy_dataset(ALL, 21).sources["train"]
  for i in range(21):
    sample = data.sources["train"][i]
    for m in {"image", "text"} - {*sample.get("missing", ())}:
      np.testing.assert_array_equal(sample["inputs"][m], whole[i]["inputs"][m])


def test_an_augmentation_leaves_what_is_missing_at_zero():
  data = hidden.hide(toy_dataset(("array", "image"), 16), "array:0.5")
  batch = Loader(data, "train", 16, seed=3).batch(0)
  there = batch.present["array"] > 0
  assert 0 < there.sum() < 16
  assert not batch.inputs["array"][~there].any()
  assert batch.inputs["array"][there].all()


def test_on_the_device_as_on_the_host():
  data = hidden.hide(toy_dataset(ALL, 21), "image:0.5+text:0.4")
  data = data.select(("image", "text"))
  host = Loader(data, "train", 8, seed=3)
  home = resident.Home(data, sharding.make_mesh(8))
  there = home.loader(host, "train")
  pairs = zip(host.padded(), there.padded(), strict=True)
  for a, b in [(host.batch(1), there.batch(1)), *pairs]:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("wrap", [lambda data: data, plain])
def test_a_sample_that_lacked_some_keeps_one(wrap):
  data = toy_dataset(("array", "image"), 200)
  specs = {
    m: dataclasses.replace(s, optional=m == "array")
    for m, s in data.spec.modalities.items()
  }
  rows = [data.sources["train"][i] for i in range(200)]
  rows = [
    r | {"missing": ("array",)} if i % 2 else r for i, r in enumerate(rows)
  ]
  spec = dataclasses.replace(data.spec, modalities=specs)
  data = dataclasses.replace(
    data, spec=spec, sources={"train": Cached(rows, specs)}, augment={}
  )
  made = hidden.hide(wrap(data), "image:0.5")
  gone = lost(made)
  assert gone["array"].sum() == 100 and 25 < gone["image"].sum() < 75
  assert not (gone["array"] & gone["image"]).any()
  batch = Loader(made, "train", 200, seed=0, shuffle=False).batch(0)
  for m in gone:
    np.testing.assert_array_equal(batch.present[m], ~gone[m])
    assert not batch.inputs[m][gone[m]].any()


@pytest.mark.parametrize(
  "drop, message",
  [
    ("image", "'image' without a rate: give modality:rate"),
    ("image:half", "'image' is no number, 'half'"),
    ("image:1", r"'image' must lie in \[0, 1\), got 1"),
    ("image:-.1", r"must lie in \[0, 1\), got -.1"),
    ("image:nan", r"must lie in \[0, 1\), got nan"),
    ("imag:0.5", "unknown modality of data.drop 'imag'; did you mean 'image'"),
    ("image:.2+image:.3", "names 'image' twice"),
    ("image:0.5+array:0.5", "rates must sum to less than 1, got 1"),
  ],
)
def test_rates_that_cannot_be(drop, message):
  with pytest.raises(ValueError, match=message):
    hidden.hide(toy_dataset(), drop)


def test_other_options_that_cannot_be():
  with pytest.raises(ValueError, match=r"unknown split of data\.drop_splits"):
    hidden.hide(toy_dataset(), "image:.5", splits="train+tset")
  with pytest.raises(ValueError, match="drop_seed must be at least 0"):
    hidden.hide(toy_dataset(), "image:.5", seed=-1)
  alone = toy_dataset(("image",))
  with pytest.raises(ValueError, match="must sum to less than 0"):
    hidden.hide(alone, "image:.5")


@pytest.mark.slow
def test_every_data_set_has_the_option(tmp_path):
  given = {"drop": "image:0.5", "drop_seed": 3, "image_size": 8}
  data = catalog.dataset("openmoji", tmp_path, given)
  specs = data.spec.modalities
  assert specs["image"].optional and not specs["text"].optional
  gone = lost(data, "test")["image"]
  assert abs(gone.mean() - 0.5) < 0.1
  made = catalog.prepare("openmoji", tmp_path, given)
  assert (
    made.counts
    == catalog.prepare("openmoji", tmp_path, {"image_size": 8}).counts
  )


def test_as_a_dictionary_in_a_config():
  config = compose.base()
  compose.assign(config, "data.drop", {"image": 0.5, "text": 0.25})
  assert config.data.drop == "image:0.5+text:0.25"
  assert hidden.rates(config.data.drop) == {"image": 0.5, "text": 0.25}


def test_a_run_goes_on_with_the_same_modalities_hidden_alone():
  config = own_data.get_config("joint")
  there = config.to_dict()
  for name in ("drop", "drop_seed", "drop_splits"):
    del there["data"][name]  # A run from before.
  assert not identity.differences(config, there)
  config = own_data.get_config("joint,drop=a:0.5")
  assert identity.differences(config, there) == {"data.drop": ""}
  config.data.drop_seed = 1
  assert identity.differences(config, config.to_dict()) == {}


@pytest.mark.parametrize(
  "field, value, message",
  [
    ("drop", "a:2", r"'a' must lie in \[0, 1\), got 2"),
    ("drop_splits", "tain", "did you mean 'train'"),
    ("drop_seed", -1, r"data\.drop_seed must lie in \[0, "),
  ],
)
def test_checked_before_the_data_are_loaded(field, value, message):
  config = own_data.get_config("joint")
  config.data[field] = value
  with pytest.raises(ValueError, match=message):
    validation.check(config)
