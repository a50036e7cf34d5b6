"""Finding a data set by name, its options, and what is kept of it."""

import ast
import importlib
import inspect
import pathlib

import numpy as np
import pytest

import data_pipelines
from data_pipelines import core
from data_pipelines.core import catalog
from data_pipelines.core.summary import PreparedSummary
from helpers import toy_dataset

FOLDER = pathlib.Path(data_pipelines.__path__[0])


def test_pipelines_have_prepare_and_load():
  """With options that are keyword-only and have defaults."""
  assert "openmoji" in catalog.pipelines()
  for name in catalog.pipelines():
    where = "manifest" if name == "manifest" else f"sets.{name}"
    module = importlib.import_module(f"data_pipelines.{where}")
    for function in (module.prepare, module.load):
      first, *options = inspect.signature(function).parameters.values()
      assert first.name == "data_dir" and first.default is first.empty, name
      for option in options:
        assert option.kind is option.KEYWORD_ONLY, (name, option)
        assert option.default is not option.empty, (name, option)


def test_layers():
  for path in FOLDER.rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
      name = getattr(node, "module", None)
      if isinstance(node, ast.Import):
        name = node.names[0].name
      assert not name or name.split(".")[0] not in ("dmg_jax", "configs"), path


# They read pickles, by a machine of their own that runs nothing.
READERS = ("sets/_sequences", "sets/mosei", "sets/mosi", "tools/sequences.py")
LOADERS = {
  "cPickle", "cloudpickle", "dill", "joblib", "marshal", "pickle",
  "pickletools", "shelve", "torch",
}  # fmt: skip


def test_no_pickle():
  for path in FOLDER.rglob("*.py"):
    source = path.read_text(encoding="utf-8")
    text = source.replace("allow_pickle=False", "")
    where = path.relative_to(FOLDER).as_posix()
    assert "pickle" not in text or where.startswith(READERS), path
    for call in ("allow_pickle", "read_pickle", "Unpickler"):
      assert call not in text, path
    for node in ast.walk(ast.parse(source)):
      names = [a.name for a in getattr(node, "names", []) if a.name]
      names = names if isinstance(node, ast.Import) else []
      if isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
      assert not {n.partition(".")[0] for n in names} & LOADERS, path


@pytest.mark.parametrize("name", ["openmojis", "core", "_tweets", ""])
def test_unknown_name(name, tmp_path):
  words = r"unknown data set .*choose from .*openmoji"
  with pytest.raises(ValueError, match=words):
    catalog.dataset(name, tmp_path, {})


@pytest.mark.parametrize("function", [catalog.dataset, catalog.prepare])
def test_unknown_option(function, tmp_path):
  message = "'image_sise'; did you mean 'image_size'.*max_words"
  with pytest.raises(ValueError, match=message):
    function("openmoji", tmp_path, {"image_sise": 32})
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option,value,message", [
  ("image_size", 0, "image_size must be a whole number from 8 to 72, got 0"),
  ("image_size", 32.5, "image_size must be a whole number"),
  ("max_words", 0, "max_words must be a whole number from 1"),
  ("word_dropout", 1.0, r"word_dropout must lie in \[0, 1\), got 1.0"),
  ("rotate", -1.0, "rotate must be a number >= 0, got -1.0"),
  ("scale", 1.0, "scale must be below 1, got 1.0"),
])  # fmt: skip
def test_option_out_of_range(option, value, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    catalog.dataset("openmoji", tmp_path, {option: value})
  assert not list(tmp_path.iterdir())  # told before any work


def test_select():
  data = toy_dataset(("array", "image", "text"))
  kept = data.select(("text", "array"))
  assert list(kept.spec.modalities) == ["array", "text"]
  assert set(kept.sources["test"][0]["inputs"]) == {"array", "text"}
  assert set(kept.augment) == {"array"}
  assert kept.spec.sizes == data.spec.sizes
  with pytest.raises(ValueError, match="'txt'; did you mean 'text'"):
    data.select(("txt",))
  with pytest.raises(ValueError, match="at least one modality of array"):
    data.select(())


def test_modality_spec():
  spec = core.ModalitySpec("image", [4, 4, 3], "uint8")
  assert spec.shape == (4, 4, 3)
  assert spec.dtype == np.dtype("uint8")
  assert spec.nbytes == 48
  with pytest.raises(ValueError, match="unknown kind of modality 'imgae'"):
    core.ModalitySpec("imgae", (1,), "uint8")


class Counting:
  """A source that counts how often it is read."""

  def __init__(self, n):
    self.n, self.reads = n, 0

  def __len__(self):
    return self.n

  def __getitem__(self, i):
    self.reads += 1
    return {"inputs": {"x": np.full(2, i, np.float32)}, "label": 0, "id": "a"}


def test_small_splits_are_decoded_once_and_large_ones_on_access():
  specs = {"x": core.ModalitySpec("array", (2,), "float32")}
  source = Counting(5)
  cached = core.cache_if_small(source, specs, limit=40)
  for i in (0, 4, 4):
    np.testing.assert_array_equal(cached[i]["inputs"]["x"], [i, i])
  assert source.reads == 5
  assert [s["inputs"]["x"][0] for s in cached] == [0, 1, 2, 3, 4]
  with pytest.raises(ValueError, match="read-only"):
    cached[0]["inputs"]["x"][0] = 1
  assert core.cache_if_small(source, specs, limit=39) is source


def test_report_text():
  counts = {"train": {"b": 2, "a": 1}, "test": {"b": 3}}
  report = PreparedSummary(
    "toy", "data/toy", counts, ("p is odd",), {"toys": "1.2"}
  )
  assert report.summary().splitlines() == [
    "toy in data/toy (toys 1.2)",
    "        train    test   total",
    "a           1       0       1",
    "b           2       3       5",
    "total       3       3       6",
    "problem: p is odd",
  ]
  assert report.classes == ("a", "b")
