"""Batches: pure, reshuffled, resumable, padded, cut into processes."""

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
from concurrent import futures

import jax
import numpy as np
import pytest

import helpers
from data_pipelines.core import Cached, Dataset, ModalitySpec, Spec
from data_pipelines.load import ahead
from data_pipelines.load.loader import Loader
from dmg_jax.config import class_weights
from helpers import toy_dataset

ALL = ("array", "image", "text")


def make(n=50, batch_size=8, split="train", **options):
  return Loader(toy_dataset(ALL, n), split, batch_size, seed=3, **options)


def same(a, b):
  return all(
    x.dtype == y.dtype and np.array_equal(x, y)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  )


def test_batch_fields():
  batch = make().batch(0)
  assert batch.inputs["array"].shape == (8, 5)
  assert batch.inputs["image"].shape == (8, 8, 8, 3)
  assert batch.inputs["image"].dtype == np.uint8
  assert batch.inputs["text"].dtype == np.int32
  assert batch.labels.dtype == np.int32
  assert batch.index.dtype == np.int32
  assert batch.mask.dtype == np.float32
  assert (batch.mask == 1).all()


def test_batch_is_a_pure_function_of_seed_and_step():
  first, second = make(), make()
  late = second.batch(17)  # out of order, on a fresh loader
  for step in (0, 3, 17, 3):
    assert same(first.batch(step), make().batch(step))
  assert same(first.batch(17), late)
  other = Loader(toy_dataset(ALL, 50), "train", 8, seed=4)
  assert not np.array_equal(other.batch(0).index, first.batch(0).index)


def test_index_labels_and_inputs_belong_together():
  data = toy_dataset(ALL, 50)
  loader = Loader(data, "train", 8, seed=0, augment=False)
  for step in (0, 5, 11):
    batch = loader.batch(step)
    for row, i in enumerate(batch.index):
      sample = data.sources["train"][int(i)]
      assert sample["label"] == batch.labels[row]
      for m, x in sample["inputs"].items():
        np.testing.assert_array_equal(batch.inputs[m][row], x)


def epoch_indices(loader, epoch):
  n = loader.steps_per_epoch
  steps = range(epoch * n, (epoch + 1) * n)
  return np.concatenate([loader.batch(s).index for s in steps])


def test_each_epoch_is_another_permutation():
  loader = make(n=48)
  epochs = [epoch_indices(loader, e) for e in range(4)]
  for order in epochs:
    np.testing.assert_array_equal(np.sort(order), np.arange(48))
  for a, b in itertools.combinations(epochs, 2):
    assert not np.array_equal(a, b)


def test_seeds_do_not_share_orders():
  orders = [
    tuple(epoch_indices(Loader(toy_dataset(), "train", 8, seed=s), e))
    for s in range(4)
    for e in range(4)
  ]
  assert len(set(orders)) == len(orders)


def test_the_remainder_is_dropped_within_an_epoch():
  loader = make(n=50)
  assert loader.steps_per_epoch == 6
  dropped = []
  for epoch in range(4):
    order = epoch_indices(loader, epoch)
    assert len(set(order.tolist())) == 48  # none twice
    dropped.append(frozenset(range(50)) - set(order.tolist()))
  assert len(set(dropped)) > 1  # not always the same ones


def test_without_shuffling_the_order_is_the_splits():
  loader = make(n=50, shuffle=False)
  for epoch in (0, 2):
    np.testing.assert_array_equal(epoch_indices(loader, epoch), np.arange(48))


def test_augmentation_differs_between_epochs_and_can_be_turned_off():
  data = toy_dataset(("array",), 8)
  on = Loader(data, "train", 8, seed=0, shuffle=False)
  off = Loader(data, "train", 8, seed=0, shuffle=False, augment=False)
  a, b = on.batch(0).inputs["array"], on.batch(1).inputs["array"]
  assert not np.array_equal(a, b)
  plain = off.batch(0).inputs["array"]
  assert not np.array_equal(a, plain)
  assert same(off.batch(0), off.batch(1))
  source = data.sources["train"]
  np.testing.assert_array_equal(plain[2], source[2]["inputs"]["array"])


@pytest.mark.parametrize("start", [0, 5, 13])
def test_stream_equals_random_access(start):
  loader = make()
  for step, batch in enumerate(itertools.islice(loader.stream(start), 9)):
    assert same(batch, loader.batch(start + step))


def test_resume_continues_the_stream():
  whole = list(itertools.islice(make().stream(0), 15))
  resumed = list(itertools.islice(make().stream(7), 8))
  assert all(same(a, b) for a, b in zip(whole[7:], resumed, strict=True))


@pytest.mark.parametrize("n,size,sizes", [
  (50, 8, [8] * 6 + [2]), (48, 8, [8] * 6), (5, 8, [5]), (1, 1, [1]),
])  # fmt: skip
def test_padded_is_one_pass_in_order(n, size, sizes):
  data = toy_dataset(ALL, n)
  batches = list(Loader(data, "train", size, seed=0).padded())
  assert [int(b.mask.sum()) for b in batches] == sizes
  kept = [b.index[b.mask > 0] for b in batches]
  np.testing.assert_array_equal(np.concatenate(kept), np.arange(n))
  for batch in batches:
    assert batch.labels.shape == (size,)
    hidden = batch.mask == 0
    assert (batch.labels[hidden] == 0).all()
    assert not any(x[hidden].any() for x in batch.inputs.values())
  first = data.sources["train"][0]["inputs"]["array"]  # not augmented
  np.testing.assert_array_equal(batches[0].inputs["array"][0], first)


def join(parts):
  return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_each_batch(count):
  whole = make()
  parts = [make(process_index=p, process_count=count) for p in range(count)]
  assert {p.steps_per_epoch for p in parts} == {whole.steps_per_epoch}
  for step in (0, 4, 11):
    assert same(join([p.batch(step) for p in parts]), whole.batch(step))
  padded = zip(*(p.padded() for p in parts), strict=True)
  for batches, expected in zip(padded, whole.padded(), strict=True):
    assert same(join(batches), expected)


def test_too_large_a_batch_names_both_numbers_and_the_fix():
  loader = make(n=5, batch_size=8)
  message = r"batch_size 8 .*'train', which has 5 .*at most 5"
  for access in (lambda: loader.batch(0), lambda: loader.stream(0)):
    with pytest.raises(ValueError, match=message):
      access()
  assert loader.steps_per_epoch == 0


@pytest.mark.parametrize("options,message", [
  ({"split": "tets"}, "unknown split 'tets'.*'test'.*outer, test, train, val"),
  ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
  ({"process_count": 3}, "batch_size 8 must be a multiple of the 3 processes"),
  ({"process_index": 2, "process_count": 2}, r"lie in \[0, 2\), got 2"),
])  # fmt: skip
def test_bad_arguments(options, message):
  with pytest.raises(ValueError, match=message):
    make(**options)


def test_negative_step_and_empty_split():
  with pytest.raises(ValueError, match="step must be >= 0, got -1"):
    make().batch(-1)
  with pytest.raises(ValueError, match="split 'outer' of 'toy' is empty"):
    make(n=3, split="outer", batch_size=1)


def test_a_sample_unlike_its_spec_is_named():
  data = toy_dataset(("array",), 8)
  sample = {"inputs": {"array": np.zeros(4)}, "label": 0, "id": "odd"}
  broken = Dataset(data.spec, {"train": [sample] * 8})
  with pytest.raises(ValueError, match=r"'odd', modality 'array': float64"):
    Loader(broken, "train", 4, seed=0).batch(0)


@pytest.mark.parametrize("modalities", [("text",), ("image", "array"), ALL])
def test_any_number_of_modalities(modalities):
  loader = Loader(toy_dataset(modalities), "val", 4, seed=0)
  assert set(loader.batch(0).inputs) == set(modalities)


def test_batches_are_writable_copies():
  loader = make(augment=False)
  expected = loader.batch(0)
  loader.batch(0).inputs["image"][:] = 0
  assert same(loader.batch(0), expected)


def crop(rng, array):
  top = rng.integers(array.shape[0] - 4)
  return array[top : top + 4]


def test_views_of_larger_samples_and_crops_drawn_together():
  """Training cuts all views of a scene alike; evaluation its own way."""
  stored = {m: ModalitySpec("array", (16, 2), "int32") for m in ("a", "b")}
  spec = {m: ModalitySpec("array", (6, 2), "int32") for m in stored}

  def sample(i):
    x = np.arange(32, dtype=np.int32).reshape(16, 2) + 100 * i
    return {"inputs": {"a": x, "b": -x}, "label": 0, "id": str(i)}

  source = Cached([sample(i) for i in range(12)], stored)
  data = Dataset(
    Spec("scenes", spec, ("c",), {"train": 12}),
    {"train": source},
    dict.fromkeys(stored, crop),
    stored,
    dict.fromkeys(stored, lambda x: x[5:11]),
    ("a", "b"),
  )
  batch = Loader(data, "train", 4, seed=0).batch(3)
  assert batch.inputs["a"].shape == (4, 4, 2)
  np.testing.assert_array_equal(batch.inputs["a"], -batch.inputs["b"])
  assert len({tuple(x[0] % 100) for x in batch.inputs["a"]}) > 1
  apart = dataclasses.replace(data, together=())
  other = Loader(apart, "train", 4, seed=0).batch(3)
  assert (other.inputs["a"] != -other.inputs["b"]).any()
  shown = next(Loader(data, "train", 5, seed=0).padded())
  np.testing.assert_array_equal(
    shown.inputs["b"][2], -sample(2)["inputs"]["a"][5:11]
  )
  plain = Loader(data, "train", 4, seed=0, augment=False).batch(0)
  assert plain.inputs["a"].shape == (4, 6, 2)
  assert list(data.select(["b"]).view) == ["b"]


def test_workers_make_the_same_batches_and_outlive_a_signal_to_all():
  """Those of a terminal's Ctrl-C and of a batch system's end of a job."""
  before = set(multiprocessing.active_children())
  with contextlib.closing(make(workers=2).stream(3)) as stream:
    assert same(next(stream), make().batch(3))
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    for worker in workers:
      for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid or 0, number)
    for step in range(4, 28):  # More than are ready.
      assert same(next(stream), make().batch(step))
  assert not any(worker.is_alive() for worker in workers)


def test_workers_begin_with_signals_blocked():
  """Ones that are not yet ready for them; here, none is lost."""
  told, blocked = [], set()

  def first():
    child = threading.Thread(
      target=lambda: blocked.update(
        signal.pthread_sigmask(signal.SIG_BLOCK, [])
      )
    )
    child.start()
    child.join()
    os.kill(os.getpid(), signal.SIGINT)
    return futures.Future()

  class Pool(futures.Executor):
    def submit(self, fn, /, *args, **kwargs):
      future = first()
      future.set_result(fn(*args, **kwargs))
      return future

  old = signal.signal(signal.SIGINT, lambda *_: told.append("signal"))
  try:
    stream = ahead._Ahead(range(1), Pool, str, 1, ahead._held_back)
    assert next(stream) == "0" and told == ["signal"]
  finally:
    signal.signal(signal.SIGINT, old)
  assert {signal.SIGINT, signal.SIGTERM} <= blocked
  assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_workers_load_nothing_that_computes(tmp_path):
  """Neither for the batches nor as they run the main module again."""
  kinds = ("photo:image", "caption:text")
  path = helpers.write_manifest(tmp_path / "files", 40, kinds)
  loader = Loader(
    helpers.load_manifest(path, tmp_path / "data", flip=True),
    "train",
    4,
    seed=0,
  )
  make = functools.partial(helpers.modules_after, loader)
  with contextlib.closing(ahead.ahead(range(3), make, 1)) as stream:
    loaded = next(stream)
  assert "data_pipelines.manifest" in loaded and "PIL" in loaded
  assert not loaded & {"jax", "flax", "optax", "tensorflow", "torch"}
  root = pathlib.Path(ahead.__file__).parents[2]
  code = (
    "import runpy, sys; runpy.run_path('launch.py', run_name='__mp_main__'); "
    "sys.exit(bool({'jax', 'flax', 'tensorflow'} & {*sys.modules}))"
  )
  subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_streams_are_lazy_ordered_and_end():
  calls = []

  def make_number(number):
    calls.append(number)
    if number == 6:
      raise ValueError("number 6")
    return number

  stream = ahead.ahead(range(3, 100), make_number)
  assert not calls
  assert [next(stream) for _ in range(3)] == [3, 4, 5]
  with pytest.raises(ValueError, match="number 6"):
    next(stream)
  stream.close()
  assert len(calls) <= 9  # A few ahead, not all.
  assert list(stream) == []
  assert list(ahead.ahead(range(2), make_number)) == [0, 1]


def test_rows_are_the_batches_index():
  for step in (0, 9):
    np.testing.assert_array_equal(make().rows(step), make().batch(step).index)
  part = make(process_index=1, process_count=2)
  np.testing.assert_array_equal(part.rows(2), make().rows(2)[4:])


def chances(labels):
  return class_weights.even_chances(np.asarray(labels))


def test_a_balanced_epoch_has_all_classes_equally_often():
  labels = np.repeat([0, 1, 3], [300, 60, 15])
  spec = Spec("toy", {}, tuple("abcd"), {"train": 375})
  cached = Cached(
    [{"inputs": {}, "label": c, "id": str(i)} for i, c in enumerate(labels)], {}
  )
  data = Dataset(spec, {"train": cached})
  loader = Loader(data, "train", 25, seed=3, chances=chances(labels))
  assert loader.steps_per_epoch == 15
  epochs = [
    np.concatenate([loader.batch(15 * e + i).index for i in range(15)])
    for e in range(40)
  ]
  seen = np.bincount(labels[np.concatenate(epochs)], minlength=4)
  share = seen / seen.sum()
  np.testing.assert_allclose(share, [1 / 3, 1 / 3, 0, 1 / 3], atol=0.02)
  assert len(set(epochs[0])) < 375  # With replacement.
  assert not np.array_equal(epochs[0], epochs[1])


def test_a_balanced_order_is_a_function_of_seed_and_epoch():
  even = chances([0] * 40 + [1] * 10)
  first, late = (make(chances=even) for _ in range(2))
  batches = [first.batch(i).index for i in range(9)]
  assert np.array_equal(late.batch(8).index, batches[8])
  stream = late.stream(4)
  assert np.array_equal(next(stream).index, batches[4])
  assert np.array_equal(first.rows(4), batches[4])
  parts = [
    make(chances=even, process_index=i, process_count=2).batch(4).index
    for i in range(2)
  ]
  assert np.array_equal(np.concatenate(parts), batches[4])
  assert not np.array_equal(make().batch(0).index, batches[0])


def test_chances_are_one_over_the_classes():
  labels = np.array([0, 0, 0, 2])
  np.testing.assert_allclose(chances(labels), [1 / 6, 1 / 6, 1 / 6, 1 / 2])
