"""What is kept of test: the very samples, as people see them."""

import numpy as np
import pytest

from data_pipelines.core import Cached, Dataset, ModalitySpec, Spec
from data_pipelines.transforms.text import WordVocabulary
from dmg_jax.evaluation import artefacts
from dmg_jax.evaluation.metrics import Evaluation
from dmg_jax.report import examples as chosen
from dmg_jax.report.features import load_features
from dmg_jax.report.predictions import by_head, load_predictions

WORDS = WordVocabulary(["red", "cat"])
SPECS = {
  "photo": ModalitySpec("image", (6, 6, 3), "uint8"),
  "clip": ModalitySpec("video", (3, 4, 4, 3), "uint8"),
  "sound": ModalitySpec("audio", (5, 7, 1), "float32"),
  "caption": ModalitySpec("text", (3,), "int32", len(WORDS)),
  "sensor": ModalitySpec("array", (30,), "float32"),
}
N = 20


@pytest.fixture
def dataset():
  """Samples that can be told apart by their pictures."""
  rng = np.random.default_rng(0)
  rows = [
    {
      "inputs": {
        "photo": np.full((6, 6, 3), 10 * i, np.uint8),
        "clip": rng.integers(0, 256, (3, 4, 4, 3)).astype(np.uint8),
        "sound": rng.normal(size=(5, 7, 1)).astype(np.float32),
        "caption": WORDS.encode("red cat" if i % 2 else "blue cat", 3),
        "sensor": rng.normal(size=30).astype(np.float32),
      },
      "label": i % 3,
      "id": f"test-{i}",
    }
    for i in range(N)
  ]
  spec = Spec("toy", SPECS, ("a", "b", "c"), {"test": N})
  return Dataset(
    spec,
    {"test": Cached(rows, SPECS)},
    view={"photo": lambda x: x[1:, 1:]},
    preprocessing={"caption": {"words": list(WORDS.words), "length": 3}},
  )


@pytest.fixture
def saved(dataset, tmp_path):
  """An evaluation, and the examples that are kept of it."""
  rng = np.random.default_rng(1)
  index = np.arange(N)
  labels = index % 3
  p = {h: rng.dirichlet([1, 1, 1], N) for h in ("fused", *SPECS)}
  features = {m: rng.normal(size=(N, 4)) for m in SPECS}
  test = Evaluation({}, labels, index, p, features)
  artefacts.save_test(tmp_path, test, dataset)
  stored = chosen.load_examples(tmp_path)
  assert stored is not None
  return test, stored


def test_predictions_and_features_are_kept(saved, tmp_path):
  test, _ = saved
  kept = load_predictions(tmp_path)
  assert kept is not None and load_features(tmp_path) is not None
  assert kept["classes"].tolist() == ["a", "b", "c"]
  np.testing.assert_array_equal(kept["labels"], test.labels)
  np.testing.assert_array_equal(kept["index"], test.index)
  assert list(by_head(kept)) == ["fused", *SPECS]
  for head, p in by_head(kept).items():
    np.testing.assert_allclose(p, test.probabilities[head], atol=1e-7)


def test_examples_are_the_samples(saved, dataset):
  test, stored = saved
  want = chosen.choose(test.probabilities, test.labels)
  assert stored["index"].tolist() == [row for row, _ in want]
  assert stored["rules"].tolist() == [rule for _, rule in want]
  assert stored["modalities"].tolist() == list(SPECS)
  assert all(x.dtype.kind in "uiU" for x in stored.values())
  photo, clip, sound, caption, sensor = (stored[f"shown_{i}"] for i in range(5))
  for place, i in enumerate(stored["index"]):
    sample = dataset.sources["test"][int(i)]
    assert stored["ids"][place] == f"test-{i}" == sample["id"]
    # The part that a batch holds, the middle frame, low pitch below.
    assert (photo[place] == 10 * i).all() and photo.shape[1:] == (5, 5, 3)
    np.testing.assert_array_equal(clip[place], sample["inputs"]["clip"][1])
    assert caption[place] == ("red cat" if i % 2 else "? cat")
    wave = sample["inputs"]["sound"][::-1, :, 0]
    levels = 255 * (wave - wave.min()) / np.ptp(wave)
    np.testing.assert_allclose(sound[place], levels, atol=0.51)
    assert sensor[place].shape == (6, 30) and np.ptp(sensor[place]) == 255


def test_sequences_and_what_is_missing(tmp_path):
  """Pictures with time to the right; what is missing is said to be so."""
  lengths = [3 + 7 * i for i in range(N)]
  specs = {
    "steps": ModalitySpec("array", (144, 4), "float32", None, True, (72, 144)),
    "caption": ModalitySpec("text", (3,), "int32", len(WORDS)),
  }
  numbers = np.arange(4 * 144, dtype=np.float32).reshape(-1, 4)
  rows = [
    {
      "inputs": {
        "steps": numbers[: t * (i % 4 > 0)],
        "caption": WORDS.encode("red cat", 3),
      },
      "label": i % 3,
      "id": f"{i}",
      "missing": ("steps",) * (i % 4 == 0),
    }
    for i, t in enumerate(lengths)
  ]
  spec = Spec("toy", specs, ("a", "b", "c"), {"test": N})
  rng, index = np.random.default_rng(1), np.arange(N)
  p = {h: rng.dirichlet([1, 1, 1], N) for h in ("fused", *specs)}
  p["steps"][::4] = np.nan
  features = {m: rng.normal(size=(N, 4)) for m in specs}
  test = Evaluation({}, index % 3, index, p, features)
  artefacts.save_test(
    tmp_path, test, Dataset(spec, {"test": Cached(rows, specs)})
  )
  stored, kept = chosen.load_examples(tmp_path), load_predictions(tmp_path)
  assert stored is not None and kept is not None
  there = stored["missing"][:, 0] == 0
  assert 0 < there.sum() < len(there)
  for place in np.flatnonzero(there):
    picture = stored["shown_0"][place]
    assert picture.shape[1] == artefacts.SIDE
    # The features rise downward, and with time.
    assert (np.diff(picture.astype(int), axis=0) >= 0).all()
    assert picture[0, 0] == 0 and picture[-1, -1] == 255
  page = chosen.grid(stored, kept)
  assert page.count("<q>steps: missing</q>") == (~there).sum()
  assert page.count("<img") == there.sum()


def test_no_vocabulary_and_long_texts(saved):
  del saved
  numbers = [np.array([2, 3, 0])]
  assert artefacts._texts(numbers, None) == ["token ids 2 3 0"]
  absent = {"tokenizer": "no/such-folder-here", "length": 3}
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("HF_HUB_OFFLINE", "1")
    assert artefacts._texts(numbers, absent) == ["token ids 2 3 0"]
  settings = {"words": ["long" * 100], "length": 1}
  (text,) = artefacts._texts([np.array([2])], settings)
  assert len(text) == 280 and text.endswith("…")


def test_pictures_of_any_shape():
  large = np.zeros((400, 300, 3), np.uint8)
  assert artefacts.picture(large, "image").shape == (160, 120, 3)
  one = np.full((4, 5, 1), 9, np.uint8)
  np.testing.assert_array_equal(artefacts.picture(one, "image"), one[..., 0])
  flow = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
  assert artefacts.picture(flow, "video").shape == (4, 5)
  assert artefacts.picture(np.zeros((2, 3)), "array").tolist() == [[0] * 3] * 2
  cube = np.arange(24.0).reshape(2, 3, 4)
  assert artefacts.picture(cube, "array").shape == (2, 12)
  assert artefacts.picture(np.array([np.nan, 1.0]), "array").max() == 255
  assert artefacts.picture(np.array(3.0), "array").shape == (1, 1)
