"""Words to numbers, pictures to arrays, and their augmentation."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.transforms import image, text
from dmg_jax.errors import DataError


def test_words():
  assert text.words("Family: man, woman") == ["family", "man", "woman"]
  assert text.words("up-pointing T-shirt") == ["up", "pointing", "t", "shirt"]
  assert text.words("worker’s keycap 7 *") == ["worker’s", "keycap", "7"]
  assert text.words("Ünïcode größe") == ["ünïcode", "größe"]
  assert text.words("U\u0308ber") == ["\u00fcber"]
  assert text.words("我喝3杯coffee。") == ["我", "喝", "3", "杯", "coffee"]
  assert text.words("ラーメンを食べる") == ["ラーメンを", "食", "べる"]
  assert text.words("हिन्दी भाषा।") == ["हिन्दी", "भाषा"]


def test_vocabulary():
  vocabulary = text.WordVocabulary.build(["b a", "b c", "b c"])
  assert vocabulary.words == ("b", "c", "a")
  assert len(vocabulary) == 5
  numbers = vocabulary.encode("A b unseen", 5)
  assert numbers.dtype == np.int32
  np.testing.assert_array_equal(numbers, [4, 2, text.UNKNOWN, 0, 0])
  np.testing.assert_array_equal(vocabulary.encode("a b c", 2), [4, 2])
  np.testing.assert_array_equal(vocabulary.encode("", 2), [0, 0])
  assert vocabulary.decode(numbers) == "a b ?"
  assert "c" in vocabulary and "z" not in vocabulary
  rare = text.WordVocabulary.build(["b a", "b c", "b c"], min_count=2)
  assert rare.words == ("b", "c")


def test_vocabulary_file(tmp_path):
  vocabulary = text.WordVocabulary.build(["grün b’c"])
  path = tmp_path / "words.json"
  vocabulary.save(path)
  assert text.WordVocabulary.load(path).words == vocabulary.words
  path.write_text('{"words": ["a"', encoding="utf-8")
  with pytest.raises(DataError, match=r"words\.json is no vocabulary"):
    text.WordVocabulary.load(path)
  with pytest.raises(ValueError, match="each word once"):
    text.WordVocabulary(["a", "a"])


def test_word_dropout():
  drop = text.word_dropout(0.5)
  numbers = np.array([5, 6, 7, 8, 0, 0], np.int32)
  lengths = []
  for seed in range(300):
    kept = drop(np.random.default_rng(seed), numbers)
    again = drop(np.random.default_rng(seed), numbers)
    np.testing.assert_array_equal(kept, again)
    assert kept.dtype == np.int32
    words = kept[kept > 0].tolist()
    assert words == sorted(words) and set(words) <= {5, 6, 7, 8}
    assert not kept[len(words) :].any()
    lengths.append(len(words))
  assert min(lengths) == 1
  assert np.mean(lengths) == pytest.approx(2 + 1 / 16, abs=0.2)
  empty = np.zeros(3, np.int32)
  np.testing.assert_array_equal(drop(np.random.default_rng(0), empty), empty)


def encoded(picture, kind="PNG"):
  file = io.BytesIO()
  picture.save(file, kind)
  return file.getvalue()


def test_decode_keeps_the_aspect_and_fills_with_white():
  red = Image.new("RGB", (40, 20), (255, 0, 0))
  array = image.decode(encoded(red), 16)
  assert array.shape == (16, 16, 3) and array.dtype == np.uint8
  assert (array[:4] == 255).all() and (array[12:] == 255).all()
  assert (array[4:12] == [255, 0, 0]).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK"])
def test_decode_every_mode(mode):
  picture = Image.new("RGB", (10, 10), "white").convert(mode)
  kind = "JPEG" if mode == "CMYK" else "PNG"
  assert (image.decode(encoded(picture, kind), 8) >= 254).all()


def test_decode_puts_white_behind_transparency():
  clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
  assert (image.decode(encoded(clear), 8) == 255).all()


def test_encode_round_trip():
  pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
  data = image.encode(Image.fromarray(pixels))
  np.testing.assert_array_equal(image.decode(data, 9), pixels)


def picture():
  array = np.full((20, 20, 3), 255, np.uint8)
  array[6:12, 4:9] = (200, 30, 30)
  return array


def test_augmentation_is_pure_and_keeps_shape_and_content():
  augment, array = image.augmentation(), picture()
  ink = (255.0 - array).sum()
  results = []
  for seed in range(40):
    moved = augment(np.random.default_rng(seed), array)
    again = augment(np.random.default_rng(seed), array)
    np.testing.assert_array_equal(moved, again)
    assert moved.shape == array.shape and moved.dtype == np.uint8
    assert 0.7 < (255.0 - moved).sum() / ink < 1.4
    results.append(moved.tobytes())
  assert len(set(results)) == 40
  np.testing.assert_array_equal(array, picture())  # input untouched


def test_no_augmentation_is_the_identity():
  augment = image.augmentation(shift=0, rotate=0, scale=0, flip=False)
  moved = augment(np.random.default_rng(0), picture())
  np.testing.assert_array_equal(moved, picture())


def test_flip_mirrors_every_second_picture():
  augment = image.augmentation(shift=0, rotate=0, scale=0, flip=True)
  mirrored = 0
  for seed in range(200):
    moved = augment(np.random.default_rng(seed), picture())
    if not np.array_equal(moved, picture()):
      np.testing.assert_array_equal(moved, picture()[:, ::-1])
      mirrored += 1
  assert 70 < mirrored < 130


def test_shift_is_bounded():
  augment = image.augmentation(shift=0.1, rotate=0, scale=0, flip=False)
  centres = []
  for seed in range(100):
    ink = 255.0 - augment(np.random.default_rng(seed), picture()).mean(-1)
    y, x = np.indices(ink.shape)
    centres.append([(ink * y).sum() / ink.sum(), (ink * x).sum() / ink.sum()])
  offset = np.array(centres) - [8.5, 6.0]
  assert np.abs(offset).max() < 2.01
  assert np.abs(offset).max() > 1.6
  assert np.abs(offset.mean(0)).max() < 0.4
