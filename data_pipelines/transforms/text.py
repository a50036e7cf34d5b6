"""Texts as numbers: of words, or of a pretrained model's tokens."""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from data_pipelines.core import Augment
from data_pipelines.errors import DataError, InputError
from data_pipelines.transforms.tokens import LENGTH, Tokens

__all__ = [
  "LENGTH", "PADDING", "UNKNOWN", "Tokens", "WordVocabulary", "coder",
  "tokenizer", "word_dropout", "words",
]  # fmt: skip

PADDING, UNKNOWN = 0, 1
_FIRST = 2  # number of the first real word
_IDEOGRAPH = r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_MARKS = "".join(  # Vowel signs and the like, which are no letters to ``\w``.
  chr(c) for c in range(0x300, 0xAC00)
  if unicodedata.category(chr(c)) in ("Mn", "Mc")
)  # fmt: skip
_LETTERS = rf"(?:(?!{_IDEOGRAPH})[^\W_][{_MARKS}]*)+"
_WORD = re.compile(rf"{_IDEOGRAPH}|{_LETTERS}(?:['’]{_LETTERS})*")


def words(text: str) -> list[str]:
  """Lower-cased words; hyphens and punctuation separate, apostrophes do not.

  Chinese characters are a word each, as nothing separates words there.
  """
  return _WORD.findall(unicodedata.normalize("NFC", text.lower()))


class WordVocabulary:
  """Words and their numbers: 0 is padding, 1 is any unknown word."""

  padding = PADDING
  special = (PADDING,)

  def __init__(self, known: Sequence[str]):
    if len(set(known)) != len(known):
      raise InputError("a vocabulary holds each word once")
    self.words = tuple(known)
    self._numbers = {w: i for i, w in enumerate(self.words, _FIRST)}

  @classmethod
  def build(cls, texts: Iterable[str], min_count: int = 1) -> WordVocabulary:
    """Words seen at least ``min_count`` times, most frequent first."""
    counts = collections.Counter(w for text in texts for w in words(text))
    kept = [w for w, n in counts.items() if n >= min_count]
    return cls(sorted(kept, key=lambda w: (-counts[w], w)))

  def __len__(self) -> int:
    """Number of entries, including padding and unknown."""
    return len(self.words) + _FIRST

  def __contains__(self, word: str) -> bool:
    return word in self._numbers

  def encode(self, text: str, length: int) -> np.ndarray:
    """Numbers [length] int32: the first ``length`` words, then padding."""
    numbers = [self._numbers.get(w, UNKNOWN) for w in words(text)[:length]]
    array = np.full(length, PADDING, np.int32)
    array[: len(numbers)] = numbers
    return array

  def decode(self, numbers: np.ndarray) -> str:
    """The words of ``encode``'s result, ``?`` for unknown ones."""
    kept = [int(n) for n in numbers if n != PADDING]
    return " ".join(
      "?" if n == UNKNOWN else self.words[n - _FIRST] for n in kept
    )

  def save(self, path: str | os.PathLike) -> None:
    """Writes JSON."""
    text = json.dumps({"words": self.words}, ensure_ascii=False, indent=0)
    pathlib.Path(path).write_text(text, encoding="utf-8")

  @classmethod
  def load(cls, path: str | os.PathLike) -> WordVocabulary:
    """Reads what ``save`` wrote.

    Raises:
      DataError: the file is absent or not a vocabulary.
    """
    try:
      stored = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
      return cls([str(w) for w in stored["words"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise DataError(f"{path} is no vocabulary: {error}") from error


def tokenizer(name: str) -> Tokens:
  """``Tokens.load``: of a local folder or a Hugging Face name."""
  return Tokens.load(name)


def coder(tokenizer: str, texts: Iterable[str]) -> WordVocabulary | Tokens:
  """A pretrained tokenizer, or a vocabulary of words if the name is empty.

  Args:
    tokenizer: Hugging Face name, local folder, or empty.
    texts: of the training split; the vocabulary is made of their words.

  Raises:
    DataError: as ``Tokens.load``.
  """
  return Tokens.load(tokenizer) if tokenizer else WordVocabulary.build(texts)


def word_dropout(
  rate: float, coder: WordVocabulary | Tokens | None = None
) -> Augment:
  """Drops each word with probability ``rate``, but never all of them.

  Args:
    rate: in [0, 1).
    coder: vocabulary or tokenizer; its special tokens stay. ``None``: words.

  Raises:
    ValueError: a rate outside [0, 1).
  """
  if not 0 <= rate < 1:
    raise InputError(f"word_dropout must lie in [0, 1), got {rate!r}")
  kind = WordVocabulary if coder is None else coder
  return functools.partial(
    _drop_words, rate=rate, padding=kind.padding, special=kind.special
  )


def _drop_words(
  rng: np.random.Generator,
  numbers: np.ndarray,
  *,
  rate: float,
  padding: int,
  special: Collection[int],
) -> np.ndarray:
  places = np.flatnonzero(~np.isin(numbers, list(special)))
  chance = rng.random(len(places))
  lost = places[(chance < rate) & (chance != chance.max(initial=-1.0))]
  result = np.full_like(numbers, padding)
  result[: len(numbers) - len(lost)] = np.delete(numbers, lost)
  return result
