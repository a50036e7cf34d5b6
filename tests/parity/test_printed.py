"""The protocol behind printed numbers: splits, scaling, training."""

import numpy as np
import pytest
import scipy.io

from benchmarks.printed import __main__ as printed
from benchmarks.printed import ours, sets
from data_pipelines.errors import DataError

RNG = np.random.default_rng(0)
Y = np.repeat(np.arange(3), 20)
WHOLE = sets.Part(
  {
    "a": (RNG.normal(size=(60, 3)) + 4 * np.eye(3)[Y]).astype(np.float32),
    "b": RNG.normal(size=(60, 2)).astype(np.float32),
  },
  Y,
)


def test_a_fifth_of_each_class_is_test():
  first, again, other = (sets.divide(Y, s) for s in (0, 0, 1))
  assert np.bincount(Y[first]).tolist() == [4, 4, 4]
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_apart_takes_the_extremes_of_test_itself():
  held = sets.divide(Y, 0)
  parts = WHOLE.rows(~held), WHOLE.rows(held)
  for scale in sets.SCALES:
    train, test = sets.scaled(*parts, scale)
    for m, x in train.views.items():
      np.testing.assert_allclose([x.min(0), x.max(0)][0], 0, atol=1e-7)
      np.testing.assert_allclose(x.max(0), 1, atol=1e-6)
      own = test.views[m]
      if scale == "apart":
        np.testing.assert_allclose(own.min(0), 0, atol=1e-7)
      else:  # A line through both: differences keep their ratio.
        wide = np.ptp(parts[0].views[m], axis=0)
        np.testing.assert_allclose(
          np.diff(own, axis=0) * wide,
          np.diff(parts[1].views[m], axis=0),
          rtol=1e-4,
          atol=1e-5,
        )


def test_a_number_that_never_changes_is_zero():
  part = sets.Part({"a": np.full((4, 1), 7, np.float32)}, np.zeros(4, int))
  train, test = sets.scaled(part, part)
  assert not train.views["a"].any()
  assert not test.views["a"].any()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["tmc", "etmc"])
def test_what_can_be_learned_is(method):
  held = sets.divide(Y, 0)
  parts = sets.scaled(WHOLE.rows(~held), WHOLE.rows(held), "train")
  made = ours.accuracy(method, *parts, rate=0.1, seed=0, epochs=60, every=1)
  assert made == (100, 100)


def test_every_sample_is_in_an_epoch_once():
  run = ours._Run("tmc", (("a", 2),), 2, 450, 0.1)
  order = run.order(np.random.default_rng(0))
  assert order.shape == (3, 200)
  assert sorted(order.ravel())[:150] == [-1] * 150
  assert sorted(order.ravel())[150:] == list(range(450))


def test_a_checkout_without_the_file_is_refused(tmp_path):
  with pytest.raises(DataError, match="handwritten_6views"):
    sets.released(tmp_path)


def test_the_split_of_the_file_is_read(tmp_path):
  folder = tmp_path / "TMC ICLR" / "datasets"
  folder.mkdir(parents=True)
  x = {
    f"x{v}_{s}": RNG.normal(size=(4, v))
    for v in (1, 2)
    for s in ("train", "test")
  }
  y = {f"gt_{s}": np.array([[1], [2], [1], [2]]) for s in ("train", "test")}
  scipy.io.savemat(folder / "handwritten_6views.mat", {**x, **y})
  train, test = sets.released(tmp_path)
  assert list(train.views) == ["view_1", "view_2"]
  np.testing.assert_allclose(test.views["view_2"], x["x2_test"], rtol=1e-6)
  assert train.labels.tolist() == [0, 1, 0, 1]


def test_rows_become_a_table():
  row = {
    "set": "s", "method": "tmc", "split": "one", "code": "ours",
    "rate": 3e-4, "printed": (98.51, 0.13), "accuracy": [90.0, 92.0],
    "best on test": [92.0, 92.0],
  }  # fmt: skip
  last = printed.table([row]).splitlines()[-1]
  assert last == (
    "| s | TMC | one | ours | 0.0003 | 91.00 ± 1.41 | 98.51 ± 0.13 "
    "| 92.00 ± 0.00 |"
  )


def test_unknown_sets_are_refused(capsys):
  with pytest.raises(SystemExit):
    printed.parse(["--data=x", "--only=mnist"])
  assert "handwritten, scene15" in capsys.readouterr().err
