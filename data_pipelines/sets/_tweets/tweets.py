"""Data sets of tweets with pictures: what Sarcasm and Twitter2015 share.

Pictures are stored as JPEG of 256 × 256 pixels, texts as annotated. Word
numbers and smaller pictures are made on access.

1. The papers resize pictures to 224 × 224, whatever their shape. Here they are
   squashed to 256 × 256, stored, and resized from there.
2. Damaged pictures are left out and listed. Official loaders of this group
   read as far as they can and leave the rest grey.
3. The papers name no samples to learn α from. ``outer`` is a share of the
   training tweets: of each class those whose ids have the lowest hashes.
4. AMSS gives BERT word pieces without [CLS] and [SEP]; here texts include them,
   also in the limit of ``max_words`` pieces.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

from data_pipelines import core
from data_pipelines.core import storage
from data_pipelines.errors import InputError
from data_pipelines.sets._tweets.prepare import (
  SIDE,
  PicturesWithTexts,
  picture_settings,
)
from data_pipelines.transforms import crop, image, kinds, text

# A stored record -> the text that the encoder gets.
Compose = Callable[[dict[str, Any]], str]


@dataclasses.dataclass(frozen=True)
class Options:
  """How stored tweets become samples of a batch; see ``sarcasm.load``.

  Raises:
    ValueError: an option is out of its range.
  """

  image_size: int
  min_area: float
  flip: bool
  tokenizer: str
  max_words: int
  word_dropout: float

  def __post_init__(self):
    for name, most in (("image_size", SIDE), ("max_words", 10_000)):
      value, least = getattr(self, name), 8 if name == "image_size" else 1
      if not least <= value <= most:
        raise InputError(
          f"{name} must be a whole number from {least} to {most}, got {value!r}"
        )
    if not 0 < self.min_area <= 1:
      raise InputError(f"min_area must lie in (0, 1], got {self.min_area!r}")
    text.word_dropout(self.word_dropout)

  @property
  def stored_size(self) -> int:
    """Side of decoded pictures, no larger than the augmentation needs."""
    return SIDE if self.min_area < 1 else self.image_size


def load(
  about: PicturesWithTexts,
  data_dir: str | os.PathLike,
  options: Options,
  compose: Compose,
  raw: str,
  held_out: float,
  workers: int,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be."""
  folder = about.folder(data_dir, held_out)
  tokens = text.tokenizer(options.tokenizer) if options.tokenizer else None
  if not folder.exists():
    about.prepare(data_dir, raw=raw, held_out=held_out, workers=workers)
  storage.check(folder)
  made = core.PreparedSummary.read(folder)
  records = {s: storage.read(folder, s, ("image",)) for s in made.counts}
  coder = tokens
  if coder is None:
    coder = text.coder("", map(compose, records["train"]))
  words = core.ModalitySpec("text", (options.max_words,), "int32", len(coder))
  batch = {"image": _square(options.image_size), "text": words}
  stored = {**batch, "image": _square(options.stored_size)}
  decode = _decoder(options, compose, coder)
  sources = {
    split: core.cache_if_small(core.Decoded(r, decode), stored)
    for split, r in records.items()
  }
  sizes = {split: len(source) for split, source in sources.items()}
  spec = core.Spec(about.name, batch, about.classes, sizes)
  augment: dict[str, core.Augment] = {}
  if options.word_dropout:
    augment["text"] = text.word_dropout(options.word_dropout, coder)
  whole = _dataset(spec, sources, stored, options, augment)
  return dataclasses.replace(
    whole,
    preprocessing=preprocessing(options, coder),
    fingerprint=made.fingerprint,
  )


def preprocessing(
  options: Options, coder: kinds.Coder
) -> dict[str, dict[str, Any]]:
  """Settings of both modalities; a text is what the encoder gets."""
  return {
    "image": picture_settings(options.image_size),
    "text": kinds.of_text(coder, options.max_words),
  }


def plain(record: dict[str, Any]) -> str:
  """The text as annotated."""
  return record["text"].decode()


def _square(size: int) -> core.ModalitySpec:
  return core.ModalitySpec("image", (size, size, 3), "uint8")


def _dataset(
  spec: core.Spec,
  sources: dict[str, core.Source],
  stored: dict[str, core.ModalitySpec],
  options: Options,
  augment: dict[str, core.Augment],
) -> core.Dataset:
  """The data set with the augmentation of pictures added."""
  if options.min_area < 1:
    augment["image"] = crop.random_resized_crop(
      options.image_size, scale=(options.min_area, 1.0), flip=options.flip
    )
    view = functools.partial(image.resize, size=options.image_size)
    decoded = {"image": stored["image"]}
    return core.Dataset(spec, sources, augment, decoded, {"image": view})
  if options.flip:
    augment["image"] = image.mirror
  return core.Dataset(spec, sources, augment)


def _decoder(
  options: Options, compose: Compose, coder: kinds.Coder
) -> Callable[[dict[str, Any]], core.Sample]:
  return functools.partial(
    _decode,
    compose=compose,
    pictures=kinds.SquashedImage(picture_settings(options.image_size)),
    texts=kinds.Text({"length": options.max_words}, coder),
    whole=options.min_area < 1,
  )


def _decode(
  record: dict[str, Any],
  compose: Compose,
  pictures: kinds.SquashedImage,
  texts: kinds.Text,
  whole: bool,
) -> core.Sample:
  """``whole``: pictures in stored size, which training crops."""
  stored = record["image"]
  inputs = {
    "image": pictures.unpack(stored) if whole else pictures.decode(stored),
    "text": texts.decode(compose(record)),
  }
  label, key = int(record["label"]), record["id"].decode()
  return {"inputs": inputs, "label": label, "id": key}
