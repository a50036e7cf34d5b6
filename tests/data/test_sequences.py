"""Arrays [t d] of different t: stored unpadded, batched by length, bucketed."""

import itertools
import json

import jax
import numpy as np
import pytest

import dmg_jax.types  # Makes a batch a pytree.  # noqa: F401
from data_pipelines import core
from data_pipelines import manifest as pipeline
from data_pipelines.core import decoded, sequences
from data_pipelines.errors import ListedDataError
from data_pipelines.load.loader import Loader
from data_pipelines.manifest import memory
from data_pipelines.transforms.preprocess import Preprocessor, describe


def same(a, b):
  return all(
    np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def columns(lengths, features=3, seed=0):
  """A table in memory; the first number of a step tells its sample."""
  rng = np.random.default_rng(seed)
  n = len(lengths)
  arrays = [rng.normal(3, 2, (t, features)) for t in lengths]
  for i, array in enumerate(arrays):
    array[:, 0] = i
  return {
    "split": [("train", "train", "train", "test")[i % 4] for i in range(n)],
    "label": ["ab"[i // 4 % 2] for i in range(n)],
    "s:array": arrays,
    "note:text": ["a word" for _ in range(n)],
  }


def dataset(folder, lengths, **options):
  table = columns(lengths)
  made = memory.prepare(table, folder, **options)
  key = made.versions["key"]
  return table, made, pipeline.load(folder, prepared=key, **options)


LENGTHS = [3 + (7 * i * i) % 90 for i in range(80)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  return dataset(tmp_path_factory.mktemp("data"), LENGTHS, standardise=False)


def test_a_modality_of_sequences(plain):
  table, made, data = plain
  spec = data.spec.modalities["s"]
  assert spec.ragged and spec.kind == "array" and spec.dtype == np.float32
  assert spec.shape == (spec.buckets[-1], 3)
  assert 2 <= len(spec.buckets) <= sequences.MOST
  assert all(b % 8 == 0 for b in spec.buckets)
  (note,) = [n for n in made.notes if n.startswith("s: ")]
  low, high = min(LENGTHS), max(LENGTHS)
  assert f"sequences of {low} to {high} steps of 3 numbers" in note
  for split, source in data.sources.items():
    lengths = core.lengths(source, data.spec.modalities)["s"]
    for i in range(len(source)):
      x = source[i]["inputs"]["s"]
      row = int(x[0, 0])
      np.testing.assert_array_equal(x, table["s:array"][row].astype("f4"))
      assert lengths[i] == len(x) == LENGTHS[row], split


def padded_to_buckets(batch, table, spec):
  """That a batch is what ``Batch.inputs`` says; T."""
  x = batch.inputs["s"]
  values, mask = x["values"], x["mask"]
  assert values.dtype == mask.dtype == np.float32
  rows = int(batch.mask.sum())
  lengths = mask.sum(axis=1).astype(int)
  assert values.shape == (*mask.shape, 3) and (lengths[rows:] == 0).all()
  wanted = min(b for b in spec.buckets if b >= lengths.max())
  assert mask.shape[1] == wanted
  for row, t in zip(values[:rows], lengths, strict=False):
    whole = table["s:array"][int(row[0, 0])].astype("f4")
    np.testing.assert_array_equal(row[:t], whole)
    assert not row[t:].any()
  return wanted


@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_are_padded_to_the_smallest_bucket(
  plain, in_memory, monkeypatch, tmp_path
):
  table, made, data = plain
  if not in_memory:
    monkeypatch.setattr(decoded, "cache_if_small", lambda source, _: source)
    folder = made.folder.rsplit("/manifest_", 1)[0]
    key = made.versions["key"]
    data = pipeline.load(folder, prepared=key, standardise=False)
    source = data.sources["train"]
    monkeypatch.setattr(source, "_decode", None)
    lengths = core.lengths(source, data.spec.modalities)["s"]
    assert len(lengths) == len(source)  # Nothing is decoded for them.
    monkeypatch.undo()
    monkeypatch.setattr(decoded, "cache_if_small", lambda source, _: source)
    data = pipeline.load(folder, prepared=key, standardise=False)
  assert data.cached("train") == in_memory
  spec = data.spec.modalities["s"]
  loader = Loader(data, "train", 4, seed=0)
  found = set()
  for batch in itertools.islice(loader.stream(), 2 * loader.steps_per_epoch):
    found.add(padded_to_buckets(batch, table, spec))
  assert found == {*spec.buckets}
  for batch in Loader(data, "test", 6, seed=0).padded():
    padded_to_buckets(batch, table, spec)
  order = np.arange(len(data.sources["train"]))[::-1]
  for batch in loader.ordered(order, 0):
    padded_to_buckets(batch, table, spec)


def test_an_epoch_is_a_pure_function_of_seed_and_epoch(plain):
  data = plain[2]
  loaders = [Loader(data, "train", 4, seed=s) for s in (3, 3, 4)]
  late = loaders[1].batch(17)
  assert same(loaders[0].batch(17), late)
  n, steps = len(data.sources["train"]), loaders[0].steps_per_epoch
  orders = []
  for loader, epoch in ((loaders[0], 0), (loaders[0], 1), (loaders[2], 0)):
    batches = [loader.batch(epoch * steps + i) for i in range(steps)]
    order = np.concatenate([b.index for b in batches])
    assert len({*order}) == steps * 4 <= n
    np.testing.assert_array_equal(
      order, [i for s in range(steps) for i in loader.rows(epoch * steps + s)]
    )
    orders.append(order)
  assert not np.array_equal(orders[0], orders[1])
  assert not np.array_equal(orders[0], orders[2])


def test_parts_of_several_processes_share_one_length(plain):
  data = plain[2]
  whole = Loader(data, "train", 4, seed=0).batch(5)
  parts = [
    Loader(data, "train", 4, seed=0, process_index=i, process_count=2).batch(5)
    for i in range(2)
  ]
  for name in ("values", "mask"):
    joined = np.concatenate([p.inputs["s"][name] for p in parts])
    np.testing.assert_array_equal(joined, whole.inputs["s"][name])


def test_little_is_padded():
  rng = np.random.default_rng(0)
  lengths = rng.integers(3, 901, 4000)
  buckets = sequences.choose({"s": lengths})["s"]
  spec = core.ModalitySpec("array", (buckets[-1], 1), "f4", buckets=buckets)
  ranks = sequences.rank({"s": lengths})

  def steps(order):
    longest = lengths[order].reshape(-1, 16).max(axis=1)
    return sum(sequences.extents({"s": n}, {"s": spec})["s"] for n in longest)

  order = rng.permutation(4000)
  grouped = sequences.grouped(order, ranks, 16, rng)
  assert sorted(grouped) == list(range(4000))
  least = lengths.sum() / 16
  assert steps(grouped) < 1.2 * least < 1.6 * least < steps(order)
  # Each sample stays among those of its window, and long batches come anywhere.
  longest = lengths[grouped].reshape(-1, 16).max(axis=1)
  assert abs(np.corrcoef(longest, np.arange(250))[0, 1]) < 0.25


def test_buckets_cost_least():
  """Against all cuts of a small set, and the rules of their number."""
  rng = np.random.default_rng(1)
  lengths = 8 * rng.integers(1, 9, 40)

  def cost(buckets):
    return sum(min(b for b in buckets if b >= n) for n in lengths)

  made = sequences.choose({"s": lengths})["s"]
  choices = sorted({*lengths.tolist()})
  best = min(
    cost((*c, choices[-1]))
    for c in itertools.combinations(choices[:-1], len(made) - 1)
  )
  assert cost(made) == best
  assert sequences.choose({"s": np.full(9, 50)})["s"] == (56,)
  assert sequences.choose({"s": np.full(9, 50)}, {"s": 300})["s"] == (56, 304)


def test_levels_are_shared_by_modalities():
  rng = np.random.default_rng(2)
  a = rng.integers(3, 200, 500)
  both = sequences.choose({"a": a, "b": a * 3 + rng.integers(0, 9, 500)})
  assert len(both["a"]) == len(both["b"]) <= sequences.MOST
  specs = {
    m: core.ModalitySpec("array", (b[-1], 1), "f4", buckets=b)
    for m, b in both.items()
  }
  for level, pair in enumerate(zip(both["a"], both["b"], strict=True)):
    got = sequences.extents({"a": 1, "b": pair[1]}, specs)
    assert got == {"a": both["a"][level], "b": pair[1]}
  last = both["a"][-1]
  got = sequences.extents({"a": 3 * last, "b": 1}, specs)
  assert got == {"a": 4 * last, "b": 4 * both["b"][-1]}


def test_standardised_over_all_steps_of_the_training_rows(tmp_path):
  table, _, data = dataset(tmp_path, LENGTHS[:24])
  table["s:array"][0][:, 2] = 7.0
  source = data.sources["train"]
  steps = np.concatenate([source[i]["inputs"]["s"] for i in range(len(source))])
  wide = steps.astype(np.float64)
  np.testing.assert_allclose(wide.mean(axis=0), 0, atol=1e-6)
  np.testing.assert_allclose(wide.std(axis=0), 1, atol=1e-6)
  settings = data.preprocessing["s"]
  new = np.arange(24.0).reshape(8, 3)
  stored = json.loads(json.dumps(describe(data.spec.modalities["s"], settings)))
  made = Preprocessor.from_json(stored)(new)
  want = (new - settings["mean"]) / np.array(settings["scale"])
  np.testing.assert_allclose(made, want, rtol=1e-6)
  for wrong, said in (
    (np.zeros((8, 4)), "have 3 numbers a step"),
    (np.zeros(8), "sequences [t d]"),
  ):
    with pytest.raises(ValueError, match="cannot be used as array") as caught:
      Preprocessor.from_json(stored)(wrong)
    assert said in str(caught.value)


def test_a_sequence_of_another_width_is_named(tmp_path):
  table = columns(LENGTHS[:24])
  table["s:array"][4] = np.zeros((9, 5))
  with pytest.raises(ListedDataError) as caught:
    memory.prepare(table, tmp_path)
  said = "has shape (9, 5), 23 of 24 are sequences [t 3]: of 3 numbers a step"
  assert said in str(caught.value)


def test_many_samples_open_from_one_file(tmp_path, monkeypatch):
  monkeypatch.setattr(decoded, "LEAST", 10)
  _, made, data = dataset(tmp_path, LENGTHS[:40])
  first = Loader(data, "train", 4, seed=0).batch(3)
  kept = sorted(p.name[:5] for p in tmp_path.glob("*/*/decoded/*"))
  assert kept == ["test-", "train"]
  read = core.Cached.__init__
  splits = []

  def noted(self, source, modalities):
    splits.append(len(source))
    read(self, source, modalities)

  monkeypatch.setattr(core.Cached, "__init__", noted)
  again = pipeline.load(tmp_path, prepared=made.versions["key"])
  assert same(Loader(again, "train", 4, seed=0).batch(3), first)
  assert max(splits) < 10  # The large splits are not decoded again.


def test_arrays_of_one_shape_stay_as_they_are(tmp_path):
  data = dataset(tmp_path, [5] * 24)[2]
  spec = data.spec.modalities["s"]
  assert not spec.ragged and spec.shape == (5, 3)
  assert np.shape(data.preprocessing["s"]["mean"]) == (5, 3)
  assert "ragged" not in data.preprocessing["s"]
  assert Loader(data, "train", 4, seed=0).batch(0).inputs["s"].shape == (
    4,
    5,
    3,
  )


def test_batches_brought_to_one_length(plain):
  loader = Loader(plain[2], "train", 4, seed=0)
  batches = [loader.batch(i) for i in range(6)]
  extents = {b.inputs["s"]["mask"].shape[1] for b in batches}
  assert len(extents) > 1
  for before, after in zip(batches, sequences.alike(batches), strict=True):
    t = before.inputs["s"]["mask"].shape[1]
    assert after.inputs["s"]["mask"].shape[1] == max(extents)
    for name, x in after.inputs["s"].items():
      np.testing.assert_array_equal(x[:, :t], before.inputs["s"][name])
      assert not x[:, t:].any()
    assert after.inputs["note"] is before.inputs["note"]


def test_drawn_classes_are_grouped_too(plain):
  data = plain[2]
  labels = core.labels(data.sources["train"])
  chances = np.where(labels == 0, 1.0, 0.0) / (labels == 0).sum()
  loader = Loader(data, "train", 4, seed=0, chances=chances)
  for step in range(loader.steps_per_epoch):
    assert (loader.batch(step).labels == 0).all()
