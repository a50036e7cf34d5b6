"""Texts as the tokens of a pretrained language model."""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from data_pipelines.errors import DataError, InputError

LENGTH = 128  # tokens of a text by default
# What a fast tokenizer is read from: all files of one of these.
_SOURCES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))
_FILES = ("*.json", "vocab.txt", "merges.txt")


class Tokens:
  """A pretrained model's tokenizer; adds its special tokens.

  Attributes:
    name: Hugging Face name or folder.
    padding: number that fills up short texts.
    special: numbers of all special tokens, padding among them.
  """

  def __init__(self, name: str, tokenizer: Any):
    if tokenizer.pad_token_id is None:
      raise DataError(f"tokenizer {name!r} has no padding token")
    self.name = name
    self.padding = int(tokenizer.pad_token_id)
    self.special = tuple(sorted(map(int, tokenizer.all_special_ids)))
    self._special = frozenset(self.special)
    self._tokenizer = tokenizer
    self._least = 1 + tokenizer.num_special_tokens_to_add()

  @classmethod
  def load(cls, name: str) -> Tokens:
    """The fast tokenizer of a local folder or a Hugging Face name.

    A folder needs tokenizer.json, vocab.txt, or vocab.json and merges.txt. A
    vocab.txt alone is read as BERT's WordPiece, which lower-cases unless the
    vocabulary has upper-case tokens. A name is looked up on the hub, or in the
    local cache if the hub cannot be reached (``HF_HUB_OFFLINE=1``: only there).

    Raises:
      DataError: it is not available; the message says what to download.
    """
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
      if not _is_whole(folder):
        wanted = " or ".join(" with ".join(files) for files in _SOURCES)
        raise DataError(f"{folder} holds no fast tokenizer: it needs {wanted}")
      return cls(name, _read(folder))
    return cls(name, _read(_download(name)))

  @functools.cached_property
  def identity(self) -> str:
    """A hash of all that turns a text into numbers."""
    # Encoding sets a length in it, which is none of the tokenizer's.
    stored = json.loads(self._tokenizer.backend_tokenizer.to_str())
    stored |= {"truncation": None, "padding": None}
    known = json.dumps([stored, self.padding], sort_keys=True)
    return hashlib.sha256(known.encode()).hexdigest()

  def __len__(self) -> int:
    """Number of tokens, including special ones."""
    return len(self._tokenizer)

  def encode(self, text: str, length: int = LENGTH) -> np.ndarray:
    """Numbers [length] int32: text cut at its end, special tokens, padding.

    Raises:
      ValueError: ``length`` has no room beside the special tokens.
    """
    if length < self._least:
      raise InputError(
        f"tokenizer {self.name!r} needs texts of at least {self._least} "
        f"tokens, special ones included, got {length}"
      )
    made = self._tokenizer(
      text, truncation=True, max_length=length, padding="max_length"
    )
    return np.asarray(made["input_ids"], np.int32)

  def knows_any(self, text: str) -> bool:
    """Whether a token of the whole text is neither unknown nor special."""
    made = self._tokenizer(text, add_special_tokens=False)["input_ids"]
    return not self._special.issuperset(made)

  def decode(self, numbers: np.ndarray) -> str:
    """The text of ``encode``'s result, without special tokens."""
    return self._tokenizer.decode(numbers, skip_special_tokens=True)


def _is_whole(folder: pathlib.Path) -> bool:
  return any(all((folder / f).is_file() for f in s) for s in _SOURCES)


def _download(name: str) -> pathlib.Path:
  """Folder of the tokenizer's files in the hub's cache."""
  import huggingface_hub

  try:
    folder = pathlib.Path(
      huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES))
    )
    if not _is_whole(folder):
      raise FileNotFoundError(f"{folder} holds none")
    return folder
  except (OSError, ValueError) as error:
    include = " ".join(f"'{pattern}'" for pattern in _FILES)
    raise DataError(
      f"tokenizer {name!r} is no local folder and cannot be fetched from the "
      f"Hugging Face hub ({error}). On a machine with access to the hub, run: "
      f"hf download {name} --include {include} --local-dir FOLDER; then copy "
      "FOLDER here and give its path as the tokenizer"
    ) from error


def _read(folder: pathlib.Path) -> Any:
  import transformers

  alone = not any(folder.glob("*.json"))
  try:
    if alone:
      made = _word_pieces(folder / "vocab.txt")
    else:
      made = transformers.AutoTokenizer.from_pretrained(
        folder, use_fast=True, local_files_only=True, trust_remote_code=False
      )
  # The library raises anything about a damaged file.
  except Exception as error:
    raise DataError(f"{folder} holds no usable tokenizer: {error}") from error
  if not made.is_fast:
    raise DataError(
      f"{folder} holds a slow tokenizer: add the model's tokenizer.json"
    )
  return made


def _word_pieces(path: pathlib.Path) -> Any:
  """BERT's tokenizer (a fast one, as all of transformers 5) of a vocabulary."""
  import transformers

  pieces = path.read_text(encoding="utf-8").split("\n")
  cased = any(p != p.lower() for p in pieces if not p.startswith("["))
  return transformers.BertTokenizer(vocab=str(path), do_lower_case=not cased)
