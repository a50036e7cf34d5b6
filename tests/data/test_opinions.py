"""CMU-MOSI and CMU-MOSEI: pickles of MMSA and MulT, with their faults."""

import collections
import csv
import pickle

import numpy as np
import opinion_files
import pytest

from configs import mosei as mosei_config
from configs import mosi as mosi_config
from data_pipelines import core
from data_pipelines.core import raw, storage
from data_pipelines.load.loader import Loader
from data_pipelines.sets import mosei, mosi
from data_pipelines.sets._sequences import contents, opinions
from data_pipelines.transforms import preprocess
from helpers import samples

SIZES = opinion_files.SIZES
TOTAL = sum(SIZES.values())


def problems(made):
  path = storage.pathlib.Path(made.folder) / raw.FILE
  with path.open(encoding="utf-8", newline="") as file:
    return {r["sample"]: (r["kind"], r["reason"]) for r in csv.DictReader(file)}


@pytest.fixture
def download(tmp_path):
  """A folder of MMSA's, with both sets in it."""
  folder = tmp_path / "MMSA-Standard"
  for i, name in enumerate(("MOSI", "MOSEI")):
    path = folder / name / "Processed" / "aligned_50.pkl"
    opinion_files.write(path, opinion_files.mmsa(seed=i))
  return folder


@pytest.mark.parametrize(("module", "seed"), [(mosi, 0), (mosei, 1)])
def test_samples_of_mmsa(module, seed, download, tmp_path):
  made = module.prepare(tmp_path, raw=str(download))
  data = module.load(tmp_path, standardise=True)
  content = opinion_files.mmsa(seed=seed)
  found = samples(data)
  assert len(found) == TOTAL and set(data.spec.modalities) == {
    "text", "audio", "vision"
  }  # fmt: skip
  assert data.spec.sizes["val"] == 8 and data.spec.sizes["test"] == 10
  assert data.spec.sizes["train"] + data.spec.sizes["outer"] == 24
  names = {"train": "train", "outer": "train", "val": "valid", "test": "test"}
  train = {k for s, k in found if s == "train"}
  own = content["train"]
  chosen = [i for i, key in enumerate(own["id"]) if key in train]
  for (split, key), (label, inputs) in found.items():
    part = content[names[split]]
    i = part["id"].index(key)
    score = part["regression_labels"][i]
    assert label == ("negative" if score < 0 else "non_negative")
    for m, x in inputs.items():
      seen = own[m][chosen].astype(np.float64)
      mean, scale = seen.mean(axis=0), seen.std(axis=0)
      want = (part[m][i] - mean) / np.where(scale > 1e-6, scale, 1)
      np.testing.assert_allclose(x, want, rtol=1e-4, atol=1e-4)
  assert problems(made) == {}
  assert [p for p in made.problems if "the official number" in p]
  for m, make in preprocess.of(data).items():  # As predict does.
    i = content["test"]["id"].index("testfilm0$_$0")
    want = found["test", "testfilm0$_$0"][1][m]
    np.testing.assert_array_equal(make(content["test"][m][i]), want)
  Loader(data, "train", 8, seed=0).batch(0)
  assert module.prepare(tmp_path) == made  # the pickle is not needed


def test_samples_of_mult(tmp_path):
  path = tmp_path / "data" / "mosi_data.pkl"
  content = opinion_files.mult()
  opinion_files.write(path, content, 2)
  made = mosi.prepare(tmp_path, raw=str(path), standardise=False)
  found = samples(mosi.load(tmp_path, standardise=False))
  assert len(found) == TOTAL
  for part, n in SIZES.items():
    for i in range(n):
      key = f"{part}{i}_{i}_{i + 1.5}"
      (inputs,) = (x[1] for (_, k), x in found.items() if k == key)
      for m in inputs:
        want = np.nan_to_num(content[part][m][i], neginf=0)
        np.testing.assert_allclose(inputs[m], want, rtol=1e-6)
  (told,) = (n for n in made.notes if "numbers were NaN" in n)
  assert told == "audio: 3 numbers were NaN or infinite"
  assert any("3 samples hold NaN or infinite" in n for n in made.notes)
  same = mosi.load(tmp_path / "other", raw=str(path.parent), standardise=False)
  assert same.spec.sizes == mosi.load(tmp_path, standardise=False).spec.sizes


@pytest.mark.parametrize(
  ("labels", "classes", "left"),
  [
    ("nonnegative", ("negative", "non_negative"), TOTAL),
    ("sign", ("negative", "positive"), TOTAL - 1),
    ("three", ("negative", "neutral", "positive"), TOTAL),
    ("seven", ("-3", "-2", "-1", "0", "1", "2", "3"), TOTAL),
  ],
)
def test_labels(labels, classes, left, tmp_path):
  content = opinion_files.mmsa()
  content["train"]["regression_labels"][5] = 0
  opinion_files.write(tmp_path / "aligned_50.pkl", content)
  made = mosi.prepare(tmp_path, raw=str(tmp_path), labels=labels)
  data = mosi.load(tmp_path, labels=labels)
  assert data.spec.classes == classes
  assert sum(data.spec.sizes.values()) == left
  assert any("sentiment 0" in n for n in made.notes) == (labels == "sign")


def test_seven_classes_are_those_of_mmsa():
  """``np.round(np.clip(y, -3, 3))``, in its code of seven classes."""
  scores = np.linspace(-3.4, 3.4, 137)
  want = np.round(np.clip(scores, -3.0, 3.0)).astype(int)
  found = [int(opinions.LABELS["seven"](float(y)) or 0) for y in scores]
  assert found == want.tolist()


def test_raw_texts(tmp_path):
  content = opinion_files.mmsa()
  opinion_files.write(tmp_path / "aligned_50.pkl", content)
  mosi.prepare(tmp_path, raw=str(tmp_path), text="raw")
  data = mosi.load(tmp_path, text="raw", max_words=5)
  assert data.spec.modalities["text"].kind == "text"
  inputs = samples(data)["test", "testfilm0$_$2"][1]
  want = preprocess.of(data)["text"]("word test number 2")
  np.testing.assert_array_equal(inputs["text"], want)
  for part in content.values():
    del part["raw_text"]
  opinion_files.write(tmp_path / "b.pkl", content)
  with pytest.raises(core.DataError, match="raw_text"):
    mosi.prepare(tmp_path / "b", raw=str(tmp_path / "b.pkl"), text="raw")


def test_faults_are_listed_and_the_rest_trains(tmp_path):
  content = opinion_files.mmsa()
  train, test = content["train"], content["test"]
  train["regression_labels"][2] = np.nan
  train["audio"][3] = np.nan
  train["audio"][4, 1] = np.nan
  train["vision"][5, 0, 0] = np.inf
  train["vision"][6] = 1e30
  train["id"][7] = train["id"][8]
  train["id"][9] = test["id"][0]
  opinion_files.write(tmp_path / "aligned_50.pkl", content)
  made = mosi.prepare(tmp_path, raw=str(tmp_path))
  want = {
    "trainfilm0$_$2": "its label is nan",
    "trainfilm1$_$3": "audio has no finite number",
    train["id"][8]: "is that of train, sample 7, too",
    test["id"][0]: "is that of test, sample 0, too",
  }
  found = problems(made)
  assert found.keys() == want.keys()
  for key, (kind, reason) in found.items():
    assert kind == raw.SKIPPED and want[key] in reason and "sample" in reason
  assert "audio: 5 numbers were NaN or infinite" in made.notes
  assert any("as large as 1e+30" in p for p in made.problems)
  keys = collections.Counter(k for _, k in samples(mosi.load(tmp_path)))
  assert max(keys.values()) == 1 and len(keys) == TOTAL - 5


def change(content, field, value, part="train"):
  content[part][field] = value
  return content


CHANGES = {
  "no part": (lambda c: {"train": c["train"]}, "no part 'test'; it has train"),
  "no dict": (lambda c: [c], "holds no dict, but list"),
  "a list": (lambda c: c | {"train": []}, "a list in place of a dict"),
  "a text": (lambda c: change(c, "audio", "x"), "audio is a str"),
  "two axes": (
    lambda c: change(c, "audio", c["train"]["audio"][:, 0]), "has shape",
  ),
  "words": (lambda c: change(c, "text", ["a"] * 24), "entry 0 is str"),
  "floats": (lambda c: change(c, "text", [1.0] * 24), "entry 0 is float"),
  "features": (
    lambda c: change(
      c, "text", [np.zeros((3, 4 + i % 2), "f4") for i in range(24)]
    ),
    "different features",
  ),
  "fewer": (
    lambda c: change(c, "vision", c["train"]["vision"][:-1]),
    "24 of text, 24 of audio, 23 of vision",
  ),
  "fewer ids": (lambda c: change(c, "id", ["a"]), "1 of id"),
  "labels": (lambda c: change(c, "regression_labels", None), "shape"),
  "two labels": (
    lambda c: change(c, "regression_labels", np.zeros((24, 2))),
    "one number a sample",
  ),
  "word labels": (
    lambda c: change(c, "regression_labels", ["good"] * 24), "good",
  ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_pickles_of_another_form(name, tmp_path):
  make, words = CHANGES[name]
  path = tmp_path / "aligned_50.pkl"
  opinion_files.write(path, make(opinion_files.mmsa()))
  with pytest.raises(core.DataError, match=words) as error:
    contents.read(path, "aligned")
  assert "aligned_50.pkl" in str(error.value)
  assert len(str(error.value).splitlines()) == 1


def test_lists_of_arrays_are_arrays(tmp_path):
  content = opinion_files.mmsa()
  want = contents_of(tmp_path / "a.pkl", content)
  for part in content.values():
    part["audio"] = list(part["audio"])
    part["vision"] = np.array([*part["vision"], None], object)[:-1]
    part["id"] = np.array(part["id"])
    part["regression_labels"] = part["regression_labels"].tolist()
  found = contents_of(tmp_path / "b.pkl", content)
  for split, rows in want.samples.items():
    for a, b in zip(rows, found.samples[split], strict=True):
      assert a.id == b.id and abs(a.score - b.score) < 1e-6
      for m in a.features:
        np.testing.assert_array_equal(a.features[m], b.features[m])


def contents_of(path, content, form="aligned"):
  opinion_files.write(path, content)
  return contents.read(path, form)


def test_ids_of_films_get_numbers(tmp_path):
  content = opinion_files.mmsa()
  content["train"]["id"] = [f"film{i // 6}" for i in range(24)]
  found = contents_of(tmp_path / "a.pkl", content)
  assert found.problems == []
  keys = [row.id for row in found.samples["train"]]
  assert keys == [f"film{i // 6}_{i}" for i in range(24)]
  assert "id: 24 samples of train share ids, now numbered" in found.notes


@pytest.mark.parametrize("write", [opinion_files.mmsa, opinion_files.mult])
def test_unaligned_batches(write, tmp_path):
  """Sequences of any length, padded with zeros and a mask in a batch."""
  content = write(aligned=False)
  opinion_files.write(tmp_path / "unaligned_50.pkl", content)
  options = {"form": "unaligned", "standardise": False}
  mosi.prepare(tmp_path, raw=str(tmp_path), **options)
  data = mosi.load(tmp_path, **options)
  assert all(spec.ragged for spec in data.spec.modalities.values())
  found = contents.read(tmp_path / "unaligned_50.pkl", "unaligned")
  want = {row.id: row.features for row in found.samples["test"]}
  for (split, key), (_, inputs) in samples(data).items():
    if split == "test":
      for m, x in inputs.items():
        np.testing.assert_allclose(x, want[key][m], rtol=1e-6)
  batch = Loader(data, "train", 8, seed=0).batch(0)
  for m, own in batch.inputs.items():
    mask, padded = np.asarray(own["mask"]), np.asarray(own["values"])
    assert padded.shape[-1] == opinion_files.DIMS[m]
    assert 0 < mask.sum() < mask.size and not padded[mask == 0].any()


def test_lengths_cut_padding(tmp_path):
  """Steps of unaligned samples: by lengths, or without zeros at the ends."""
  content = opinion_files.mmsa(aligned=False)
  train = content["train"]
  train["audio_lengths"][1] = 0
  train["vision_lengths"][2] = 999
  found = contents_of(tmp_path / "a.pkl", content, "unaligned")
  (problem,) = found.problems
  assert problem.sample == "trainfilm0$_$1"
  assert "audio has no steps" in problem.reason
  assert "vision: 1 samples have a length beyond" in found.notes[0]
  rows = {row.id: row for row in found.samples["train"]}
  for i in (0, *range(2, 24)):
    own = rows[train["id"][i]].features
    assert len(own["audio"]) == train["audio_lengths"][i]
    assert len(own["text"]) == train["text_bert"][i, 1].sum()
    assert len(own["vision"]) == min(train["vision_lengths"][i], 15)
  content = opinion_files.mult(aligned=False)
  content["train"]["vision"][3] = 0
  found = contents_of(tmp_path / "b.pkl", content, "unaligned")
  first, other = found.samples["train"][0], found.samples["train"][3]
  assert len(first.features["audio"]) == 10  # Half was zeros in front.
  assert len(other.features["vision"]) == 1
  assert "vision: 1 samples hold only zeros, and keep one step" in found.notes


def test_a_pickle_that_runs_something(tmp_path):
  content = opinion_files.mmsa()
  data = pickle.dumps(content, 4)[:-1]
  data = data[:2] + data[11:]  # Without the frame, whose size has changed.
  more = opinion_files.named("posix", "system")[2:-1]
  path = tmp_path / "aligned_50.pkl"
  path.write_bytes(data + b"\x8c\x05extra" + more + b"s.")
  with pytest.raises(core.DataError, match=r"aligned_50\.pkl: .*posix\.system"):
    mosi.prepare(tmp_path, raw=str(tmp_path))
  assert [p.name for p in tmp_path.iterdir()] == ["aligned_50.pkl"]


def test_what_was_looked_for(download, tmp_path):
  with pytest.raises(core.DataError, match="no file or folder"):
    mosi.prepare(tmp_path, raw=str(tmp_path / "nowhere"))
  with pytest.raises(
    core.DataError, match=r"unaligned_50\.pkl or mosi_data_no"
  ):
    mosi.prepare(tmp_path, raw=str(download), form="unaligned")
  with pytest.raises(ValueError, match=r"--config\.data\.raw"):
    mosi.load(tmp_path)
  opinion_files.write(download / "mosi_data.pkl", {})
  with pytest.raises(core.DataError, match="name one of them"):
    mosi.prepare(tmp_path, raw=str(download))


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"form": "aligne"}, "aligned, unaligned"),
    ({"labels": "five"}, "nonnegative, seven, sign, three"),
    ({"text": "words"}, "features, raw"),
    ({"held_out": 0.7}, "held_out"),
    ({"max_words": 0}, "max_words"),
  ],
)
def test_options_out_of_range(options, words, tmp_path):
  with pytest.raises(ValueError, match=words):
    mosi.load(tmp_path, **options)


@pytest.mark.parametrize("file", [mosi_config, mosei_config])
def test_config(file):
  config = file.get_config("lb")
  assert set(config.encoders) == {"text", "audio", "vision"}
  assert config.optimiser.learning_rate == 1e-3
  assert file.get_config("lb,quick=true").train.epochs == 5


def test_official_numbers():
  assert mosi.MOSI.expected == {"train": 1284, "val": 229, "test": 686}
  assert sum(mosei.MOSEI.expected.values()) == 22_856
