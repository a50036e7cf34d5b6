"""From samples to what a program takes."""

import numpy as np
import pytest

from data_pipelines.core import ModalitySpec
from dmg_jax.serving import batching

SPECS = {
  "x": ModalitySpec("array", (2,), np.float32, optional=True),
  "s": ModalitySpec("array", (16, 3), np.float32, buckets=(8, 16)),
}


def samples(lengths):
  steps = [np.full((t, 3), i + 1, np.float32) for i, t in enumerate(lengths)]
  x = [None if i == 1 else np.ones(2, np.float32) for i in range(len(lengths))]
  return {"x": x, "s": steps}


def test_what_is_given_is_padded():
  made = batching.given(samples([3, 8, 1]), SPECS)
  assert set(made) == {"x", "s", "present/x"}
  np.testing.assert_array_equal(made["present/x"], [1, 0, 1])
  np.testing.assert_array_equal(made["x"], [[1, 1], [0, 0], [1, 1]])
  assert made["s"]["values"].shape == (3, 8, 3)
  np.testing.assert_array_equal(made["s"]["mask"].sum(axis=1), [3, 8, 1])
  whole = batching.padded(made, 4)
  assert whole["s"]["values"].shape == (4, 8, 3)
  assert whole["present/x"].tolist() == [1, 0, 1, 0]
  inputs, present = batching.separate(whole)
  assert set(inputs) == {"x", "s"} and present is not None
  assert set(present) == {"x"}
  assert batching.separate({"x": 1}) == ({"x": 1}, None)


def test_a_length_that_is_fixed():
  made = batching.given(samples([3, 8, 1]), SPECS, {"s": 16})
  assert made["s"]["mask"].shape == (3, 16)
  with pytest.raises(ValueError, match=r"s: it has 17 steps.*at most 16"):
    batching.given(samples([17, 8, 1]), SPECS, {"s": 16})


def test_a_length_that_is_not_too_small():
  some = {"s": {"multiple_of": 8, "at_least": 16}}
  for longest, extent in ((8, 16), (9, 16), (17, 32)):
    made = batching.given(samples([3, longest]), SPECS, some)
    assert made["s"]["mask"].shape == (2, extent)


def test_samples_far_longer_than_the_runs_go_by_themselves():
  found = batching.groups(samples([3, 16, 33, 17, 1, 64]), SPECS)
  assert [rows.tolist() for rows in found] == [[0, 1, 4], [3], [2, 5]]
  (rows,) = batching.groups({"x": [None, np.ones(2)]}, SPECS)
  assert rows.tolist() == [0, 1]
