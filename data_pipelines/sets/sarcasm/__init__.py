"""Sarcasm: 24,635 tweets with pictures, sarcastic or not.

The multimodal sarcasm detection data (MMSD) of Cai, Cai and Wan, "Multi-Modal
Sarcasm Detection in Twitter with Hierarchical Fusion Model", ACL 2019. Texts
come from github.com/headacheboy/data-of-multimodal-sarcasm-detection, pictures
from the links in its README; lay both into one folder, ``raw``:

==========  ===================================================================
texts       ``train.txt``, ``valid2.txt``, ``test2.txt``, as in ``text/`` of the
            repository; or ``train.json``, ``valid.json``, ``test.json``
pictures    ``<tweet id>.jpg``, in ``dataset_image/``, ``images/`` or any other
            folders; other endings work too
==========  ===================================================================

A line is a Python list ``[tweet id, text, label]``; lines of valid2 and test2
have two labels, of which the last one, a person's, counts. JSON files are
lists of ``{"image": ..., "text": ..., "label": ...}`` (or ``"image_id"``).

Training texts with one of ``WORDS`` are left out, as the repository says,
because they reveal the label. Of 29,040 lines the paper's 19,816 remain.

==========  ===================================================================
image       [s s 3] uint8: the whole picture, squashed to a square
text        [t] int32: word pieces, or words if there is no tokenizer
label       ``not_sarcastic``, ``sarcastic``
train       19,816, of which ``outer`` has 10 %; val 2,410; test 2,409
==========  ===================================================================

Deviations are numbered in ``_tweets``.
"""

from __future__ import annotations

import ast
import os
import pathlib
from typing import Any

from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.errors import InputError
from data_pipelines.sets._tweets import tweets
from data_pipelines.sets._tweets.prepare import HELD_OUT, Tweets
from data_pipelines.sets._tweets.raw import Layout, Post

# Whole words of training texts that are left out.
WORDS = frozenset({
  "exgag", "humor", "humour", "ironic", "irony", "joke", "jokes", "reposting",
  "sarcasm", "sarcastic", "<url>",
})  # fmt: skip


def load(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
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
  options = tweets.Options(
    image_size, min_area, flip, tokenizer, max_words, word_dropout
  )
  return tweets.load(
    SARCASM, data_dir, options, tweets.plain, raw, held_out, workers
  )


def parse(item: Any, split: str) -> Post | None:
  """A line or entry to its row; ``None`` if one of ``WORDS`` is in it.

  Raises:
    raw.Skip: the label is unknown, or the text empty.
    ValueError: it is not of the form that the module describes.
  """
  name, words, label = _fields(item)
  if not name:
    raise InputError("the tweet's id is empty")
  if label in ("0", "1"):
    label = int(label)
  if type(label) is not int or label not in (0, 1):
    raise raw.Skip(f"label {label!r} is not one of 0, 1", name)
  if not words.strip():
    raise raw.Skip("the text is empty", name)
  if split == "train" and not WORDS.isdisjoint(words.split()):
    return None
  return Post(name, name, name, words, label)


def _fields(item: Any) -> tuple[str, str, Any]:
  """The tweet's id, text and label."""
  if isinstance(item, dict):
    key = "image" if "image" in item else "image_id"
    for field in (key, "text", "label"):
      if field not in item:
        raise InputError(f"there is no field {field!r}")
    name, words, label = item[key], item["text"], item["label"]
    name = pathlib.PurePosixPath(str(name)).name
    name = name.removesuffix(pathlib.PurePosixPath(name).suffix)
  else:
    try:
      name, words, *labels = ast.literal_eval(item.strip())
      if not 1 <= len(labels) <= 2:
        raise InputError
    except (ValueError, TypeError, SyntaxError, RecursionError) as error:
      raise InputError(
        "no Python list [tweet id, text, label] with one or two labels"
      ) from error
    label = labels[-1]
  if not isinstance(name, str) or not isinstance(words, str):
    raise InputError(f"id {name!r} and text {words!r} must both be strings")
  return name, words, label


SARCASM = Tweets(
  name="sarcasm",
  version="1.0.0",
  classes=("not_sarcastic", "sarcastic"),
  expected={"train": (11174, 8642), "val": (1451, 959), "test": (1450, 959)},
  layout=Layout(
    files=(
      {"train": "train.txt", "val": "valid2.txt", "test": "test2.txt"},
      {"train": "train.txt", "val": "valid.txt", "test": "test.txt"},
      {"train": "train.json", "val": "valid.json", "test": "test.json"},
    ),
    folders=("text", "text_json_clean", "dataset_image", "images"),
  ),
  parse=parse,
  rule=f"their texts hold one of the words {', '.join(sorted(WORDS))}",
)
prepare = SARCASM.prepare
