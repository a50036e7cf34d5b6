"""Random crops, told from pictures whose colours are coordinates."""

import numpy as np
import pytest

from data_pipelines.transforms import crop, image


def coordinates(width, height):
  """Red is 2·x, green is 2·y."""
  array = np.zeros((height, width, 3), np.uint8)
  array[..., 0] = 2 * np.arange(width)
  array[..., 1] = 2 * np.arange(height)[:, None]
  return array


def sides(array):
  """Left, right, top, bottom of what was cut out, in pixels of the whole."""
  x, y = array[..., 0].mean(0) / 2, array[..., 1].mean(1) / 2
  half = [(v[-9] - v[8]) / (len(v) - 17) * len(v) for v in (x, y)]
  return x.mean(), half[0], y.mean(), half[1]


def test_random_resized():
  rng = np.random.default_rng(0)
  augment = crop.random_resized_crop(64, scale=(0.25, 1.0), flip=False)
  whole = coordinates(128, 96)
  shares, ratios, places = [], [], []
  for _ in range(400):
    cut = augment(rng, whole)
    assert cut.shape == (64, 64, 3) and cut.dtype == np.uint8
    x, width, y, height = sides(cut)
    shares.append(width * height / whole[..., 0].size)
    ratios.append(np.log(width / height))
    places.append((x, y))
  shares, ratios, places = map(np.asarray, (shares, ratios, places))
  assert 0.22 < shares.min() < 0.3 and 0.85 < shares.max() < 1.05
  assert abs(ratios).max() < np.log(4 / 3) + 0.05
  assert abs(ratios).max() > np.log(4 / 3) - 0.05
  # Centred on the whole on average, and spread about it.
  np.testing.assert_allclose(places.mean(0), (63.5, 47.5), atol=2)
  assert places.std(0).min() > 4


def test_random_resized_is_a_function_of_the_generator():
  whole = coordinates(40, 40)
  one, other = (
    crop.random_resized_crop(16)(np.random.default_rng(3), whole)
    for _ in range(2)
  )
  np.testing.assert_array_equal(one, other)
  # Of a strip that no such box fits into, the middle.
  strip = coordinates(120, 9)
  large = crop.random_resized_crop(16, scale=(0.9, 1.0), flip=False)
  cut = large(np.random.default_rng(0), strip)
  np.testing.assert_array_equal(cut, image.resize(strip[:, 54:66], 16))


@pytest.mark.parametrize("size", [(40, 20), (16, 60), (24, 24)])
def test_resize(size):
  small = image.resize(coordinates(*size), 24)
  assert small.shape == (24, 24, 3)
  x, width, y, height = sides(np.repeat(np.repeat(small, 2, 0), 2, 1))
  np.testing.assert_allclose((x, y), np.subtract(size, 1) / 2, atol=0.6)
  np.testing.assert_allclose((width, height), size, rtol=0.1)
