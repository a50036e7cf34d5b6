"""UPMC Food-101: 90,704 pictures of 101 dishes with the titles of their pages.

The data of Wang et al., "Recipe Recognition with Large Multimodal Food
Dataset", ICME workshops 2015. ``raw`` is the folder of the release:

==========  ===================================================================
pictures    ``images/train/<class>/<class>_<number>.jpg``, ``images/test/...``
titles      ``texts/train_titles.csv``, ``texts/test_titles.csv``: rows
            ``picture,title,class``, without a header or with one
==========  ===================================================================

Instead of the titles' files, lists made from them are read if they are there:
``split.json`` and ``text.json`` of missing_aware_prompts, or ``train.jsonl``,
``dev.jsonl`` and ``test.jsonl`` as MMBT writes them. Then val is theirs.

==========  ===================================================================
image       [s s 3] uint8: the whole picture, squashed to a square
text        [t] int32: word pieces, or words if there is no tokenizer
label       the dish
train       67,988 pictures, of which ``outer`` and ``val`` have 10 % each
test        22,716 pictures
==========  ===================================================================

1. A picture without a title is left out and listed; so is a title without a
   picture.
2. Titles stay as they are. BalanceBenchmark takes out links and ``#``, MMBT
   reads the texts of the pages instead.
3. BalanceBenchmark has no val and chooses on test. Here val and ``outer`` are
   shares of the training part: of each class those whose names have the
   lowest hashes.

What pictures become is in ``_tweets``.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping

from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.errors import InputError
from data_pipelines.sets._tweets import prepare as making
from data_pipelines.sets._tweets import tweets
from data_pipelines.sets._tweets.prepare import HELD_OUT
from data_pipelines.sets._tweets.raw import ENDINGS, Annotations, Post, collect
from data_pipelines.sets.food101.lists import Item, Lists
from data_pipelines.sets.food101.official_counts import PICTURES

CLASSES = tuple(PICTURES)
_LABELS = {dish: label for label, dish in enumerate(CLASSES)}
_SHOWN = 5  # classes of a sentence


def load(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  image_size: int = 224,
  min_area: float = 1.0,
  flip: bool = True,
  tokenizer: str = "",
  max_words: int = 40,
  word_dropout: float = 0.0,
  held_out: float = HELD_OUT,
  workers: int = 4,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  Args:
    data_dir: folder of all prepared data.
    raw: the download's folder; not needed once the data are prepared.
    image_size: side of a picture in pixels, 8 to 256 (as stored).
    min_area: smallest share of a picture that training crops to, at random; at
      1 it gets whole pictures, as evaluation does.
    flip: mirror pictures in training.
    tokenizer: Hugging Face name or folder of a tokenizer; none: the words of
      the training titles.
    max_words: words or word pieces kept of a title.
    word_dropout: chance in [0, 1) to leave out a word in training.
    held_out: share of the training part that is ``outer``; as much is ``val``
      if no list says what is.
    workers: processes that read pictures; 0 reads them in this one.

  Raises:
    ValueError: an option out of its range, or no download is named.
    core.DataError: the download lacks lists or pictures; or the prepared data
      are damaged, or cannot be written.
  """
  options = tweets.Options(
    image_size, min_area, flip, tokenizer, max_words, word_dropout
  )
  return tweets.load(
    FOOD101, data_dir, options, tweets.plain, raw, held_out, workers
  )


@dataclasses.dataclass(frozen=True)
class Food101(making.PicturesWithTexts):
  """The data set; see the module."""

  def open(self, folder: str) -> tuple[Annotations, making.Opened]:
    """The rows of a download, and its files."""
    download = Download(folder)
    return download.read(), download

  def divide(
    self, rows: dict[str, list[Post]], held_out: float
  ) -> dict[str, list[Post]]:
    """The official splits; ``outer``, and val if need be, are from train."""
    if "val" not in rows:
      train, val = making.hold_out(rows["train"], held_out)
      rows = {"train": train, "val": val, "test": rows["test"]}
      held_out /= 1 - held_out  # The same share of what is left.
    return making.with_outer(rows, held_out)

  def differences(self, counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """A sentence for each official part that differs from the release."""
    found = []
    for k, parts in enumerate((("train", "outer", "val"), ("test",))):
      want = {c: numbers[k] for c, numbers in PICTURES.items()}
      have = {c: sum(counts[p][c] for p in parts) for c in self.classes}
      other = [c for c in self.classes if have[c] != want[c]]
      if other:
        each = ", ".join(f"{c} {have[c]} of {want[c]}" for c in other[:_SHOWN])
        more = f", and {len(other) - _SHOWN} more" * (len(other) > _SHOWN)
        found.append(
          f"{', '.join(parts)}: {sum(have.values())} samples instead of "
          f"{sum(want.values())}, the pictures of the release ({each}{more})"
        )
    return found

  def notes(self, found: Annotations, held_out: float) -> list[str]:
    """How ``outer`` was made."""
    parts = "outer is" if "val" in found.rows else "outer and val are each"
    return [
      f"{parts} {held_out:.0%} of the training pictures of each class, by a "
      "hash of the name"
    ]


class Download:
  """The files of a download.

  Args:
    root: its folder.

  Raises:
    core.DataError: the folder, the lists or all pictures are not there.
  """

  def __init__(self, root: str):
    self.root = pathlib.Path(root).expanduser()
    self._lists = Lists(self.root)
    self._there: dict[str, list[pathlib.Path]] = collections.defaultdict(list)
    for folder, _, names in sorted(os.walk(self.root, followlinks=True)):
      for name in sorted(names):
        stem, ending = os.path.splitext(name)
        if ending.lower() in ENDINGS and name[0] != ".":
          self._there[stem].append(pathlib.Path(folder, name))
    if not self._there:
      raise core.DataError(
        f"no pictures in {self.root}: they lie in images/train/<class> and "
        "images/test/<class>"
      )
    self._paths: dict[str, pathlib.Path] = {}

  def picture(self, name: str) -> pathlib.Path:
    """The file of a row's picture, or where it should be."""
    return self._paths[name]

  def checksum(self) -> str:
    """Of the lists, 12 hexadecimal digits."""
    key = hashlib.sha256()
    for path in self._lists.files.values():
      key.update(path.read_bytes())
    return key.hexdigest()[:12]

  def read(self) -> Annotations:
    """All rows; pictures that no row names are among the problems."""
    made = Annotations({}, [], {}, [])
    named: set[str] = set()

    def parsed(item: Item, split: str) -> Post:
      named.add(_stem(item.picture))
      post = parse(item)
      self._paths.setdefault(post.picture, self._path(post, split))
      return post

    collect(made, self._lists.items(made), parsed)
    for stem in sorted(self._there.keys() - named):
      for path in self._there[stem]:
        text = f"{path}: no list names this picture"
        made.problems.append(raw.Defect(path.name, raw.SKIPPED, text))
    return made

  def _path(self, post: Post, split: str) -> pathlib.Path:
    """The picture in the folder of its split and class, if there are more."""
    folder, name = CLASSES[post.label], pathlib.PurePosixPath(post.picture).name
    part = "test" if split == "test" else "train"
    found = self._there.get(os.path.splitext(name)[0], [])
    if post.picture != name:  # Names like 1.jpg, in the folder of each class.
      found = [p for p in found if _class(p.parent.name) == folder]
    if not found:
      return self.root / "images" / part / folder / name
    return max(
      found,
      key=lambda p: (part in p.parts, p.parent.name == folder, p.name == name),
    )


def parse(item: Item) -> Post:
  """A row's sample; its id is the picture's name.

  Raises:
    raw.Skip: the class is not one of the 101 or not that of the name, or the
      title is empty.
    ValueError: there is no name, or a cell is no text.
  """
  if not isinstance(item.picture, str) or not _stem(item.picture):
    raise InputError(f"{item.picture!r} names no picture")
  name = item.picture.replace("\\", "/").rpartition("/")[2].strip()
  said = name.rpartition("_")[0] if item.label is None else item.label
  label, own = _class(str(said)), _class(name.rpartition("_")[0])
  if label is None:
    raise raw.Skip(f"class {said!r} is not one of the 101 dishes", name)
  if own not in (None, label):
    raise raw.Skip(f"its class is {said!r}, but it is named {name!r}", name)
  if not isinstance(item.title, str) or not item.title.strip():
    raise raw.Skip("there is no title", name)
  key = name if own else f"{label}/{name}"
  return Post(key, key, key, item.title.strip(), _LABELS[label])


def _stem(picture: object) -> str:
  name = str(picture or "").replace("\\", "/").rpartition("/")[2].strip()
  return os.path.splitext(name)[0]


def _class(name: str) -> str | None:
  """The dish of a name in another spelling: ``Apple pie`` is apple_pie."""
  plain = "_".join(name.strip().lower().replace("-", "_").split())
  return plain if plain in PICTURES else None


FOOD101 = Food101("food101", "1.0.0", CLASSES)
prepare = FOOD101.prepare
