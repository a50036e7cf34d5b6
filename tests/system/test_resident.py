"""Data on the devices: the host loader's batches, cut and flipped there."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import core
from data_pipelines.load.loader import Loader
from data_pipelines.transforms import crop, image
from dmg_jax.training import resident, sharding
from helpers import toy_dataset

PLAIN = dataclasses.replace(toy_dataset(("image", "text"), 48), augment={})


@pytest.fixture(scope="module")
def mesh():
  return sharding.make_mesh(8)


def same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_batches_are_the_loaders(mesh):
  home = resident.Home(PLAIN, mesh)
  host = Loader(PLAIN, "train", 16, seed=3)
  own = home.loader(host, "train")
  assert own.steps_per_epoch == host.steps_per_epoch
  for step in (0, 5):
    same(own.batch(step), host.batch(step))
  for a, b in zip(itertools.islice(own.stream(4), 2), (4, 5), strict=True):
    same(a, host.batch(b))
  chances = np.r_[np.full(24, 3 / 96), np.full(24, 1 / 96)]
  host = Loader(PLAIN, "train", 16, seed=3, chances=chances)
  same(home.loader(host, "train").batch(5), host.batch(5))
  order = np.random.default_rng(0).permutation(48)
  ordered = list(own.ordered(order, 2, 1))
  assert len(ordered) == 2
  same(ordered[1], list(host.ordered(order, 2, 1))[1])
  test = Loader(PLAIN, "test", 16, seed=3, shuffle=False)
  for a, b in zip(
    home.loader(test, "test").padded(), test.padded(), strict=True
  ):
    same(a, b)


def test_batches_lie_where_a_step_wants_them(mesh):
  host = Loader(PLAIN, "train", 16, seed=3)
  batch = resident.Home(PLAIN, mesh).loader(host, "train").batch(0)
  placed = sharding.make_place(mesh)(batch)
  for x, y in zip(jax.tree.leaves(batch), jax.tree.leaves(placed), strict=True):
    assert (
      x.sharding
      == y.sharding
      == sharding.make_place(mesh)(host.batch(0)).labels.sharding
    )


def cut(rng, x):
  raise AssertionError("this is for the host")


def middle(x):
  return x[5:11]


def cut_on_device(key, x):
  top = jax.random.randint(key, (), 0, 12)
  return jax.lax.dynamic_slice_in_dim(x, top, 4)


@pytest.fixture(autouse=True)
def known(monkeypatch):
  monkeypatch.setitem(resident.AUGMENT, cut, cut_on_device)
  monkeypatch.setitem(resident.VIEW, middle, middle)


def scenes():
  """Two views of one scene of 16 rows, of which a batch holds some."""
  stored = {
    m: core.ModalitySpec(kind, (16, 2), "float32")
    for m, kind in (("a", "array"), ("b", "audio"))
  }
  spec = {
    m: core.ModalitySpec(s.kind, (6, 2), "float32") for m, s in stored.items()
  }

  def sample(i):
    x = np.arange(32, dtype=np.float32).reshape(16, 2) + 64 * i
    return {"inputs": {"a": x, "b": -x / 3}, "label": i % 3, "id": str(i)}

  return core.Dataset(
    core.Spec("scenes", spec, ("x", "y", "z"), {"train": 16}),
    {"train": core.Cached([sample(i) for i in range(16)], stored)},
    dict.fromkeys(stored, cut),
    stored,
    dict.fromkeys(stored, middle),
    ("a", "b"),
  )


def test_crops_on_the_device(mesh):
  data = scenes()
  home = resident.Home(data, mesh)
  own = home.loader(Loader(data, "train", 8, seed=1), "train")
  first, again, later = own.batch(2), own.batch(2), own.batch(3)
  same(first, again)
  a, b = first.inputs["a"], first.inputs["b"]
  assert a.shape == (8, 4, 2) and a.dtype == b.dtype == jnp.float32
  np.testing.assert_allclose(b, -a / 3, rtol=2**-8)
  np.testing.assert_array_equal(b, b.astype(jnp.bfloat16))
  tops = [np.asarray(x.inputs["a"])[:, 0, 0] % 64 for x in (first, later)]
  assert len(set(tops[0])) > 2 and not np.array_equal(*tops)
  np.testing.assert_array_equal(a[:, 0, 0] // 64, first.index)
  apart = dataclasses.replace(data, together=())
  other = resident.Home(apart, mesh).loader(
    Loader(apart, "train", 8, seed=1), "train"
  )
  x = other.batch(2).inputs
  assert (abs(x["b"] + x["a"] / 3) > 1).any()
  shown = next(own.padded())
  np.testing.assert_array_equal(
    shown.inputs["a"][1], data.sources["train"][1]["inputs"]["a"][5:11]
  )


def test_what_cannot_be_resident_says_why(mesh):
  data = toy_dataset(("array", "image"))
  assert "array" in resident.obstacle(data)
  with pytest.raises(ValueError, match="augments array on the host"):
    resident.Home(data, mesh)
  assert resident.obstacle(data.select(["image"])) is None


def test_size_counts_what_lies_on_the_device():
  assert resident.nbytes(scenes()) == 16 * (32 * 4 + 32 * 2)
  assert not resident.fits(scenes())  # A CPU has no memory of its own.


def coordinates(width, height):
  """Red is 2·x, green is 2·y."""
  array = np.zeros((height, width, 3), np.uint8)
  array[..., 0] = 2 * np.arange(width)
  array[..., 1] = 2 * np.arange(height)[:, None]
  return array


def test_random_resized_crops_as_on_the_host():
  """Share of the area, ratio and place of boxes have the same distribution."""
  whole = coordinates(120, 80)
  options = {"scale": (0.3, 0.6), "ratio": (0.75, 1.5), "flip": False}
  host = crop.random_resized_crop(16, **options)
  twin = resident._twin(resident.AUGMENT, host)
  rng = np.random.default_rng(0)
  keys = jax.random.split(jax.random.key(0), 400)
  there = np.asarray(jax.jit(jax.vmap(twin, (0, None)))(keys, whole))
  here = np.stack([host(rng, whole) for _ in range(400)])
  assert there.shape == here.shape and there.dtype == np.uint8
  for values in (sides(there), sides(here)):
    x, y, width, height = values
    share, ratio = width * height / (120 * 80), width / height
    np.testing.assert_allclose((x.mean(), y.mean()), (59.5, 39.5), atol=2)
    assert 0.27 < share.min() < 0.34 and 0.56 < share.max() < 0.64
    assert 0.7 < ratio.min() < 0.8 and 1.4 < ratio.max() < 1.6
  a, b = sides(there), sides(here)
  for i in range(4):
    np.testing.assert_allclose(a[i].std(), b[i].std(), rtol=0.25)
    np.testing.assert_allclose(a[i].mean(), b[i].mean(), rtol=0.05)


def sides(cuts):
  """Middle x and y, width and height of what was cut out, in pixels."""
  x, y = cuts[..., 0].mean(1) / 2, cuts[..., 1].mean(2) / 2
  sizes = [(v[:, 13] - v[:, 2]) / 11 * 16 for v in (x, y)]
  return x.mean(1), y.mean(1), *sizes


def test_mirrors_and_frames_on_the_device():
  video = np.stack([coordinates(40, 40)] * 3)
  twin = resident._twin(
    resident.AUGMENT, crop.random_resized_crop(8, scale=(0.2, 0.9))
  )
  cut = np.asarray(jax.jit(twin)(jax.random.key(1), video)).astype(int)
  assert cut.shape == (3, 8, 8, 3)
  assert not np.array_equal(cut[0], cut[1])
  mirror = resident._twin(resident.AUGMENT, image.mirror)
  keys = jax.random.split(jax.random.key(0), 64)
  flipped = [
    np.array_equal(x, video[..., ::-1, :])
    for x in jax.vmap(mirror, (0, None))(keys, video)
  ]
  assert 16 < sum(flipped) < 48


def test_resize_as_on_the_host():
  view = functools.partial(image.resize, size=12)
  array = np.random.default_rng(0).integers(0, 256, (2, 30, 20, 3), np.uint8)
  there = np.asarray(resident._twin(resident.VIEW, view)(array))
  assert there.shape == (2, 12, 12, 3)
  assert abs(there.astype(int) - image.resize(array, 12)).max() <= 1


@pytest.mark.parametrize(
  ("shape", "size"),
  [((9, 7, 3), 20), ((40, 31, 1), 8), ((12, 12, 2), 12), ((40, 31, 1), 12)],
)
def test_crops_by_rows_are_those_by_matrices(shape, size):
  rng = np.random.default_rng(0)
  picture = rng.integers(0, 256, shape).astype(np.uint8)
  for _ in range(5):
    box = rng.uniform(0.2, 1, 2) * shape[:2]
    start = rng.uniform(0, 1, 2) * (np.array(shape[:2]) - box)
    given = (picture, size, jnp.asarray(start), jnp.asarray(box))
    np.testing.assert_allclose(
      resident._cut_by_rows(*given), resident._cut(*given), atol=2e-2
    )
