"""Twitter2015: 5,338 targets in tweets with pictures, and the mood about each.

The data of Yu and Jiang, "Adapting BERT for Target-Oriented Multimodal
Sentiment Classification", IJCAI 2019 (TomBERT). Annotations come from
github.com/jefferyYu/TomBERT, pictures from the link in its README; lay both
into one folder, ``raw``:

==========  ===================================================================
texts       ``train.tsv``, ``dev.tsv``, ``test.tsv``, as in
            ``absa_data/twitter2015/`` of the repository
pictures    named as in the annotations, in ``twitter2015_images/``,
            ``images/`` or any other folders; other endings work too
==========  ===================================================================

A line has five columns, by their place: number, label (0 negative, 1 neutral,
2 positive), picture, tweet with ``$T$`` in place of the target, target. The
header is not read; that of test.tsv lacks the label's column. Lines of one
tweet differ in the target, and often in the label; they lie in one split.

==========  ===================================================================
image       [s s 3] uint8: the whole picture, squashed to a square
text        [t] int32: word pieces, or words if there is no tokenizer
label       ``negative``, ``neutral``, ``positive``
train       3,179, of which ``outer`` has about 10 %; val 1,122; test 1,037
==========  ===================================================================

What the text says of the target is ``target``:

==========  ===================================================================
keep        the tweet with ``$T$``, which marks the target's place but not its
            name: what the loaders of the paper's group read; the default
replace     the tweet as it was written: nothing tells the target, so that
            samples of one tweet are alike whatever their label
pair        ``keep``, then `` [SEP] `` and the target, as TomBERT's BERT, but
            without its segment numbers
==========  ===================================================================

Deviations are numbered in ``_tweets``.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.errors import InputError, unknown
from data_pipelines.sets._tweets import tweets
from data_pipelines.sets._tweets.prepare import HELD_OUT, Tweets
from data_pipelines.sets._tweets.raw import Layout, Post

MARK = "$T$"  # of the target, in a tweet
COLUMNS = 5


def _replace(record: dict[str, Any]) -> str:
  return tweets.plain(record).replace(MARK, record["target"].decode())


def _pair(record: dict[str, Any]) -> str:
  return f"{tweets.plain(record)} [SEP] {record['target'].decode()}"


TARGETS = {"keep": tweets.plain, "replace": _replace, "pair": _pair}


def load(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  target: str = "keep",
  image_size: int = 224,
  min_area: float = 1.0,
  flip: bool = True,
  tokenizer: str = "",
  max_words: int = 128,
  word_dropout: float = 0.0,
  held_out: float = HELD_OUT,
  workers: int = 4,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  Args:
    data_dir: folder of all prepared data.
    raw: the download's folder; not needed once the data are prepared.
    target: what the text says of the target: keep, replace or pair.
    image_size: side of a picture in pixels, 8 to 256 (as stored).
    min_area: smallest share of a picture that training crops to, at random; at
      1 it gets whole pictures, as evaluation does.
    flip: mirror pictures in training.
    tokenizer: Hugging Face name or folder of a tokenizer; none: the words of
      the training texts.
    max_words: words or word pieces kept of a text.
    word_dropout: chance in [0, 1) to leave out a word in training.
    held_out: share of the training tweets that are ``outer``.
    workers: processes that read pictures; 0 reads them in this one.

  Raises:
    ValueError: an option out of its range, or no download is named.
    core.DataError: the download lacks annotations or pictures; or the prepared
      data are damaged, or cannot be written.
  """
  if target not in TARGETS:
    raise unknown("target", target, TARGETS)
  options = tweets.Options(
    image_size, min_area, flip, tokenizer, max_words, word_dropout
  )
  return tweets.load(
    TWITTER2015, data_dir, options, TARGETS[target], raw, held_out, workers
  )


def parse(item: Any, split: str) -> Post | None:
  """A line to its row; ``None`` for the header.

  Raises:
    raw.Skip: the label is unknown, or the text or target empty.
    ValueError: it is not of the form that the module describes.
  """
  cells = [cell.strip() for cell in item.split("\t")]
  if cells[0] == "index":
    return None
  if len(cells) != COLUMNS:
    raise InputError(f"{len(cells)} columns instead of {COLUMNS}")
  number, label, picture, text, target = cells
  if not number.isascii() or not number.isdigit():
    raise InputError(f"{number!r} in the first column is no number")
  if not picture:
    raise InputError("the picture's name is empty")
  key = f"{split}-{number}"
  if label not in ("0", "1", "2"):
    raise raw.Skip(f"label {label!r} is not one of 0, 1, 2", key)
  if not text:
    raise raw.Skip("the text is empty", key)
  if MARK not in text:
    raise raw.Skip(f"there is no {MARK} in the text", key)
  if not target:
    raise raw.Skip("the target is empty", key)
  stem = pathlib.PurePosixPath(picture).stem
  return Post(key, stem, stem, text, int(label), target)


TWITTER2015 = Tweets(
  name="twitter2015",
  version="1.0.0",
  classes=("negative", "neutral", "positive"),
  expected={
    "train": (368, 1883, 928),
    "val": (149, 670, 303),
    "test": (113, 607, 317),
  },
  layout=Layout(
    files=({"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"},),
    folders=("twitter2015", "twitter2015_images", "images"),
    foreign=("twitter", "twitter2017", "twitter2017_images"),
  ),
  parse=parse,
)
prepare = TWITTER2015.prepare
